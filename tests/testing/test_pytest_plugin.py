"""The fixtures are there for everyone who has muxly-testing installed, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import muxly
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from muxly_testing._pytest_plugin import RunPipeline

YAML = """
version: 1
pipelines:
  numbers:
    connector: {type: "muxly_testing:FakeConnector", records: 30, wide: true}
    routes:
      kept: {router: {type: "muxly_testing:CollectingRouter", token: test-of-the-plugin}}
"""


def test_home_is_the_tests_own(muxly_home: Path, tmp_path: Path) -> None:
    assert muxly_home.parent == tmp_path


def test_deliveries_are_made_with_a_digest_of_their_records(make_delivery: Callable[..., muxly.Delivery]) -> None:
    first, second = make_delivery([{"id": 1}]), make_delivery([{"id": 1}])
    assert first.digest == second.digest
    assert first.id < second.id
    assert make_delivery([{"id": 2}]).digest != first.digest


def test_pipeline_of_python_objects_runs(muxly_run: RunPipeline) -> None:
    connector, router = FakeConnector(records=50), CollectingRouter()
    pipeline = muxly.Pipeline("numbers", connector, routes=[muxly.Route("kept", router)])
    assert muxly_run(pipeline).raise_for_status().routes["kept"].delivered == 50
    assert router.records() == connector.expected()
    assert muxly_run(pipeline).routes["kept"].delivered == 0


def test_pipeline_of_yaml_text_runs(muxly_run: RunPipeline) -> None:
    muxly_run(YAML).raise_for_status()
    assert len(CollectingRouter(token="test-of-the-plugin").records()) == 30


def test_scripted_fault_is_retried_with_the_same_id(muxly_run: RunPipeline) -> None:
    fault = Fault(method="deliver", action="RetryableError", after=True, retry_after=0.0)
    router = ChaosRouter(faults=[fault])
    retry = muxly.Backoff(first_seconds=0.01)
    pipeline = muxly.Pipeline(
        "numbers", FakeConnector(records=20), routes=[muxly.Route("kept", router, retry=retry, mode="append")]
    )
    muxly_run(pipeline).raise_for_status()
    tries = [call.key for call in router.calls if call.method == "deliver"]
    assert tries == [tries[0], tries[0]]
    assert len(router.records()) == 20


def test_plugin_imports_nothing_heavy() -> None:
    code = "import sys, muxly_testing._pytest_plugin; print({'pyarrow', 'sqlalchemy', 'cattrs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
