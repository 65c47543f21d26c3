"""A loaded configuration: pipelines on demand, settings, what it shows of itself, and what it hides."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import muxly
from muxly import config
from tests.core.config.components import Numbers, Shelf
from tests.core.config.loading import errors, load, write

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = """\
version: 1
connectors:
  hub: {type: 'tests.core.config.components:Numbers', token: "${TOKEN}", folder: cache, source: s3://bucket/x}
spool: {budget_bytes: 5 GiB, segment_seconds: 9}
pipelines:
  daily:
    connector: hub
    parallel: 8
    segment_seconds: 2m
    streams: {contacts: , "deals:*": {read: full, primary_key: id, new_columns: freeze}}
    routes:
      lake: {router: SHELF, columns: {exclude: email, rename: {a: b}}, streams: [contacts], required: false}
      log: {router: {type: 'tests.core.config.components:Shelf', path: out, key: s3cr3t}, batch: {bytes: 1 MiB}}
  broken:
    connector: {type: no_such_plugin}
    routes: {lake: {router: {type: 'no_such_module:It'}}}
jobs:
  hourly: {pipeline: daily, triggers: [{type: cron, expression: "0 * * * *"}], later: {x: 1}, params: {a: 1}}
events:
  routes: {alerts: {router: SHELF, where: "event = 'failed'"}}
"""
_ENVIRON = {"TOKEN": "t0k3n"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, _TEXT)


def test_a_pipeline_is_built_with_its_types(path: Path) -> None:
    pipeline = load(path, environ=_ENVIRON).pipeline("daily")
    assert isinstance(pipeline.connector, Numbers)
    assert pipeline.connector.token.reveal() == "t0k3n"
    assert pipeline.connector.folder == path.parent / "cache"
    assert pipeline.connector.source == "s3://bucket/x"
    assert (pipeline.parallel, pipeline.segment_seconds, pipeline.spool_bytes) == (8, 120.0, 5 << 30)
    assert pipeline.streams == {
        "contacts": muxly.StreamRules(),
        "deals:*": muxly.StreamRules(read="full", primary_key=("id",), new_columns="freeze"),
    }
    lake, log = pipeline.routes
    assert lake == muxly.Route(
        "lake",
        Shelf(path=path.parent / "out"),
        streams=("contacts",),
        required=False,
        columns=muxly.Columns(exclude=("email",), rename={"a": "b"}),
    )
    assert log.batch == muxly.BatchLimits(bytes=1 << 20)
    assert isinstance(log.router, Shelf)
    assert log.router.key is not None
    assert log.router.key.reveal() == "s3cr3t"


def test_what_a_file_builds_is_what_python_builds(path: Path) -> None:
    pipeline = load(path, environ=_ENVIRON).pipeline("daily")
    again = muxly.Pipeline(
        "daily",
        pipeline.connector,
        routes=pipeline.routes,
        streams=pipeline.streams,
        parallel=8,
        segment_seconds=120,
        spool_bytes=5 << 30,
    )
    assert pipeline == again


def test_a_broken_pipeline_harms_no_other(path: Path) -> None:
    configuration = load(path, environ=_ENVIRON)
    assert list(configuration.pipelines) == ["daily", "broken"]
    assert configuration.pipelines["daily"] is configuration.pipeline("daily")
    assert "nothing" not in configuration.pipelines
    assert repr(configuration.pipelines) == "Pipelines(daily, broken)"
    with pytest.raises(muxly.ConfigurationError, match=r"(?s)no_such_plugin.*no_such_module") as caught:
        configuration.pipeline("broken")
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.path == ("pipelines", "broken", "connector", "type")


@pytest.mark.parametrize(
    ("name", "message"),
    [("dayly", 'there is no pipeline "dayly"; did you mean "daily"'), ("x", "known: daily, broken")],
)
def test_an_unknown_pipeline_is_told_with_the_nearest(path: Path, name: str, message: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match=message):
        load(path, environ=_ENVIRON).pipeline(name)


def test_settings_have_defaults_beside_the_file(tmp_path: Path) -> None:
    configuration = load(write(tmp_path, "version: 1"))
    assert configuration.home == tmp_path / ".muxly"
    assert configuration.folder == tmp_path
    assert configuration.path == tmp_path / "muxly.yaml"
    assert configuration.store_url is None
    assert configuration.spool == config.Spool()
    assert configuration.spool.budget_bytes == 10 << 30
    assert dict(configuration.pipelines) == {}
    assert configuration.jobs == {}
    assert configuration.events == {}
    configuration.validate()


def test_the_home_folder_starts_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "sub", "home: ${WHERE:-state}")
    monkeypatch.chdir(tmp_path)
    assert load(path.relative_to(tmp_path)).home == tmp_path / "sub" / "state"
    assert load(path, environ={"WHERE": "/var/x"}).home.as_posix() == "/var/x"


def test_empty_sections_are_as_good_as_none(tmp_path: Path) -> None:
    load(write(tmp_path, "pipelines:\nconnectors:\njobs:\nevents:\nprofiles:\n")).validate()


def test_jobs_keep_what_later_schedulers_read(path: Path) -> None:
    job = load(path, environ=_ENVIRON).jobs["hourly"]
    assert job.pipeline == "daily"
    assert job.triggers == ({"type": "cron", "expression": "0 * * * *"},)
    assert job.params == {"a": 1}
    assert job.options == {"later": {"x": 1}}


def test_triggers_keep_references_as_text(tmp_path: Path) -> None:
    text = "pipelines: {p: {connector: NUMBERS, routes: {r: {router: SHELF}}}}\n"
    path = write(tmp_path, text + 'jobs: {j: {pipeline: p, triggers: [{type: webhook, secrets: ["${HOOK}"]}]}}')
    assert load(path, environ={"HOOK": "s3cr3t"}).jobs["j"].triggers[0]["secrets"] == ["${HOOK}"]


def test_events_are_routes(path: Path) -> None:
    events = load(path, environ=_ENVIRON).events
    assert list(events) == ["alerts"]
    assert events["alerts"].where == "event = 'failed'"


def test_mistakes_in_events_are_placed(tmp_path: Path) -> None:
    path = write(tmp_path, "events: {routes: {a: {router: {type: 'tests.core.config.components:Shelf'}}}}")
    (found,) = errors(path)
    assert found == 'muxly.yaml:1:23: events.routes.a.router: missing required key "path": Where to put things.'


def test_secrets_are_shown_neither_as_written_nor_resolved(path: Path) -> None:
    configuration = load(path, environ=_ENVIRON)
    for shown in (configuration.show(), configuration.show(resolved=True)):
        assert "s3cr3t" not in repr(shown)
        assert "t0k3n" not in repr(shown)
        assert shown["pipelines"]["daily"]["routes"]["log"]["router"]["key"] == "***"
        assert shown["pipelines"]["daily"]["parallel"] == 8
    assert configuration.show()["connectors"]["hub"]["token"] == "${TOKEN}"
    assert configuration.show(resolved=True)["connectors"]["hub"]["token"] == "***"


def test_options_of_an_unknown_plugin_are_all_masked(tmp_path: Path) -> None:
    path = write(tmp_path, "connectors: {x: {type: nothing, password: s3cr3t, a: {b: [s3cr3t, 5, true]}, ref: '${X}'}}")
    shown = load(path, environ={"X": "y"}).show()
    assert shown["connectors"]["x"] == {
        "type": "nothing",
        "password": "***",
        "a": {"b": ["***", "***", True]},
        "ref": "${X}",
    }


def test_what_may_be_a_secret_in_open_options_is_masked(tmp_path: Path) -> None:
    trigger = "{type: webhook, secrets: [s3cr3t], name: hubspot, url: '${URL}'}"
    job = f"jobs: {{j: {{pipeline: p, triggers: [{trigger}]}}}}"
    path = write(tmp_path, f"pipelines: {{p: {{connector: NUMBERS, routes: {{r: {{router: SHELF}}}}}}}}\n{job}")
    configuration = load(path, environ={"URL": "https://me:s3cr3t@x"})
    (shown,) = configuration.show()["jobs"]["j"]["triggers"]
    assert shown == {"type": "webhook", "secrets": ["***"], "name": "hubspot", "url": "${URL}"}
    (shown,) = configuration.show(resolved=True)["jobs"]["j"]["triggers"]
    assert shown == {"type": "webhook", "secrets": ["***"], "name": "hubspot", "url": "***"}


def test_resolved_values_of_open_options_are_shown(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "pipelines: {p: {connector: NUMBERS, parallel: '${N:-3}', routes: {r: {router: SHELF, where: '${W}'}}}}",
    )
    configuration = load(path, environ={"W": "a > 1"})
    assert configuration.show()["pipelines"]["p"]["parallel"] == "${N:-3}"
    resolved = configuration.show(resolved=True)["pipelines"]["p"]
    assert (resolved["parallel"], resolved["routes"]["r"]["where"]) == (3, "a > 1")


def test_a_key_is_explained_with_every_layer(tmp_path: Path) -> None:
    write(tmp_path, "pipelines: {p: {connector: NUMBERS, parallel: 2}}", "a.yaml")
    path = write(
        tmp_path,
        "include: a.yaml\npipelines: {p: {parallel: 3, routes: {r: {router: SHELF}}}}\n"
        "profiles: {prod: {pipelines: {p: {parallel: 5}}}}\n",
    )
    environ = {"MUXLY__PIPELINES__P__PARALLEL": "6"}
    explained = load(path, profile="prod", environ=environ, sets=("pipelines.p.parallel=7",)).explain(
        "pipelines.p.parallel"
    )
    assert str(explained).replace(f"{tmp_path}/", "") == textwrap.dedent(
        """\
        pipelines.p.parallel
            default: 4
            include: 2  (a.yaml:1:96)
            file: 3  (muxly.yaml:2:27)
            profile prod: 5  (muxly.yaml:3:45)
            environment: 6  (environment variable MUXLY__PIPELINES__P__PARALLEL)
          * command line: 7  (--set pipelines.p.parallel)"""
    )
    assert [one.wins for one in explained.given] == [False] * 5 + [True]


def test_explaining_shows_no_secret(path: Path) -> None:
    configuration = load(path, environ={**_ENVIRON, "MUXLY__CONNECTORS__HUB__TOKEN": "s3cr3t"})
    explained = configuration.explain("connectors.hub.token")
    assert [one.value for one in explained.given] == ["${TOKEN}", "***"]
    assert "s3cr3t" not in str(configuration.explain("connectors.hub"))
    assert "s3cr3t" not in str(configuration.explain("connectors"))


def test_defaults_of_plugins_are_explained(path: Path) -> None:
    configuration = load(path, environ=_ENVIRON)
    assert str(configuration.explain("connectors.hub.retries")) == "connectors.hub.retries\n  * default: 3"
    assert 'connectors.hub has no "nothing"; known: type, ' in str(configuration.explain("connectors.hub.nothing"))
    with pytest.raises(muxly.ConfigurationError, match=r'".a" is not a key; write it as pipelines'):
        configuration.explain(".a")


def test_an_error_of_a_component_is_placed_at_its_option(path: Path) -> None:
    configuration = load(path, environ=_ENVIRON)
    error = muxly.ConfigurationError("the token is refused", path=("token",))
    with_location = configuration.with_location(error, pipeline="daily")
    assert str(with_location).endswith("muxly.yaml:3:62: connectors.hub.token: the token is refused")
    error = muxly.ConfigurationError("no such folder", path=("path",))
    with_location = configuration.with_location(error, pipeline="daily", route="lake")
    assert with_location.path == ("pipelines", "daily", "routes", "lake", "router", "path")
    assert ":12:" in str(with_location)
    whole = configuration.with_location(muxly.ConfigurationError("wrong"), pipeline="broken")
    assert str(whole).endswith("muxly.yaml:15:16: pipelines.broken.connector: wrong")


def test_a_class_beside_the_file_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "my_shelf_beside.py").write_text(
        "import muxly\n\nclass Mine(muxly.Router):\n    size: int = muxly.option('Size.', default=1)\n",
        encoding="utf-8",
    )
    path = write(
        tmp_path, "pipelines: {p: {connector: NUMBERS, routes: {r: {router: {type: 'my_shelf_beside:Mine', size: 5}}}}}"
    )
    assert load(path).pipeline("p").routes[0].router.size == 5  # type: ignore[attr-defined]


def test_loading_a_right_configuration_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write(tmp_path, "pipelines: {p: {connector: NUMBERS, routes: {r: {router: SHELF}}}}")
    script = (
        "import sys, muxly.config\n"
        "assert 'yaml' not in sys.modules and 'cattrs' not in sys.modules\n"
        f"muxly.config.load({str(path)!r}, environ={{}}).pipeline('p')\n"
        "print(*sorted({'jsonschema', 'pyarrow', 'sqlalchemy', 'rich', 'tomli'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "\n"


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUXLY__SPOOL__BUDGET_BYTES", "77")
    assert config.load(write(tmp_path, "version: 1")).spool.budget_bytes == 77
