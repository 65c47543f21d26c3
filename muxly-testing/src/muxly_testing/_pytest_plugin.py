"""Fixtures for tests of pipelines and plugins; pytest finds them when muxly-testing is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from muxly.pipeline import Pipeline, RunResult
    from muxly.router import Delivery
    from muxly_testing._router_crashes import CrashRunner


class RunPipeline(Protocol):
    """Runs a pipeline with its state in the test's own home."""

    def __call__(self, pipeline: Pipeline | Path | str, name: str | None = None, **facts: Any) -> RunResult:
        """Run it.

        Args:
            pipeline: A pipeline, the path of a configuration, or its text in YAML.
            name: The pipeline of the configuration, if it has several.
            facts: Further arguments of ``muxly.run``, such as ``params``.
        """


@pytest.fixture
def muxly_home(tmp_path: Path) -> Path:
    """The folder of the state of this test's runs; all runs of one test share it."""
    return tmp_path / ".muxly"


@pytest.fixture
def muxly_run(tmp_path: Path, muxly_home: Path) -> RunPipeline:
    """Runs a pipeline, with its state in ``muxly_home``.

    ::

        def test_everything_arrives(muxly_run):
            router = CollectingRouter()
            muxly_run(Pipeline("p", FakeConnector(), routes=[Route("r", router)])).raise_for_status()
    """

    def run(pipeline: Pipeline | Path | str, name: str | None = None, **facts: Any) -> RunResult:
        import muxly

        if isinstance(pipeline, str) and "\n" in pipeline:
            path = tmp_path / "muxly.yaml"
            path.write_text(pipeline, encoding="utf-8")
            pipeline = path
        return muxly.run(pipeline, name, home=facts.pop("home", muxly_home), **facts)

    return run


@pytest.fixture
def make_delivery() -> Callable[..., Delivery]:
    """The function ``muxly_testing.delivery``."""
    from muxly_testing._deliveries import delivery

    return delivery


@pytest.fixture(scope="session")
def _muxly_crashes() -> Iterator[CrashRunner]:
    """Kills routers for ``RouterConformance``; kept for the whole session, since it takes a second to start."""
    from muxly_testing._router_crashes import CrashRunner

    crashes = CrashRunner()
    yield crashes
    crashes.close()
