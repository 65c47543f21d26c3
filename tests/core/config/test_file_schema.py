"""The schema for editors: valid itself, complete, and of one mind with the loader."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry

import muxly
from muxly import _plugins, config
from muxly.config._file_schema import published_schema
from muxly.errors import PluginError
from tests.core.config.components import Numbers, Shelf, Unfit
from tests.core.config.mutating import changed, paths

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN: dict[str, Any] = {"numbers": Numbers, "shelf": Shelf, "unfit": Unfit}


@pytest.fixture
def _plugins_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(kind: str, name: str) -> Any:
        if name not in _KNOWN:
            raise PluginError(f"there is no {kind} named {name!r}")
        return _KNOWN[name]

    monkeypatch.setattr(_plugins, "names", lambda kind: {"connector": ["numbers"], "router": ["shelf", "unfit"]}[kind])
    monkeypatch.setattr(_plugins, "load", load)


_RIGHT: dict[str, Any] = {
    "$schema": "./muxly.schema.json",
    "x-mine": {"anything": [1]},
    "version": 1,
    "home": "state",
    "connectors": {
        "hub": {
            "type": "numbers",
            "token": "${TOKEN}",
            "retries": "${TRIES}",
            "ratio": 1,
            "window": "15m",
            "page_bytes": "64 MiB",
            "poll_seconds": 5,
            "reports": {"a": {"metrics": ["x"], "limit": None}},
            "color": "red",
            "pair": [1, "a"],
            "names": ["a"],
            "either": [1],
            "extra": {"any": None},
        }
    },
    "pipelines": {
        "daily": {
            "connector": {"type": "numbers", "token": "t"},
            "parallel": 2,
            "memory_bytes": "64 MiB",
            "segment_seconds": "1h 30m",
            "streams": {"contacts": None, "deals*": {"read": "full", "primary_key": ["id"], "new_columns": "freeze"}},
            "routes": {
                "lake": {
                    "router": {"type": "shelf", "path": "out", "format": "csv", "key": None},
                    "streams": ["a", "b"],
                    "columns": {"include": ["a"], "exclude": "b", "rename": {"a": "c"}},
                    "batch": {"records": None, "bytes": 5, "seconds": 0.5},
                    "required": False,
                    "retry": {"attempts": 1},
                    "max_rejected": 0,
                    "backlog": "detach",
                }
            },
        }
    },
    "jobs": {"j": {"pipeline": "daily", "triggers": [{"type": "cron", "more": 1}], "later": True}},
    "events": {"routes": {"alerts": {"router": {"type": "shelf", "path": "x"}}}},
    "store": {"url": "${DATABASE}"},
    "spool": {"budget_bytes": 5, "retention_seconds": "7d"},
    "profiles": {"prod": {"spool": {}}},
}
_ENVIRON = {"TOKEN": "t", "TRIES": "3", "DATABASE": "sqlite://"}
_SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 12) | st.sampled_from([0.5, "", "a", "5m", "7 KiB", "csv", "red"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "type"]), inner, max_size=2),
    max_leaves=4,
)


def _only_the_loader_can_know(path: tuple[Any, ...], value: dict[str, Any]) -> bool:
    """What stands between values, and names of things that are defined elsewhere."""
    pipelines = value.get("pipelines")
    daily = pipelines.get("daily") if isinstance(pipelines, dict) else None
    named = isinstance(daily, dict) and isinstance(daily.get("connector"), str)
    if path[-2:-1] == ("columns",) and _both_included_and_excluded(value):
        return True
    return named or not isinstance(pipelines, dict) or "daily" not in pipelines or path[:1] == ("jobs",)


def _both_included_and_excluded(value: dict[str, Any]) -> bool:
    columns = value["pipelines"]["daily"]["routes"]["lake"]["columns"]
    chosen = [columns[word] for word in ("include", "exclude")]
    names = [{one} if isinstance(one, str) else set(map(str, one or ())) for one in chosen if not isinstance(one, int)]
    return bool(set.intersection(*names)) if len(names) == 2 else False


def _loads(folder: Path, value: Any) -> bool:
    path = folder / "muxly.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    try:
        config.load(path, environ=_ENVIRON).validate()
    except muxly.ConfigurationError:
        return False
    return True


def test_it_is_a_right_schema_that_refers_to_itself_only() -> None:
    schema = config.schema()
    Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    assert "http" not in text.replace("https://json-schema.org/draft/2020-12/schema", "").split('"$ref": "')[0][:60]
    refs = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert {ref.removeprefix("#/$defs/") for ref in refs} <= schema["$defs"].keys()
    assert {"connector.file", "router.file"} <= schema["$defs"].keys()


@pytest.mark.usefixtures("_plugins_of_the_tests")
def test_a_right_file_is_right_for_both(tmp_path: Path) -> None:
    validator = Draft202012Validator(published_schema(), registry=Registry())
    assert list(validator.iter_errors(_RIGHT)) == []
    assert _loads(tmp_path, _RIGHT)


@pytest.mark.usefixtures("_plugins_of_the_tests")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(paths(_RIGHT)), _VALUES)
def test_what_the_schema_takes_loads_and_what_it_refuses_does_not(
    tmp_path: Path, path: tuple[Any, ...], new: Any
) -> None:
    value = changed(_RIGHT, path, new)
    assume(isinstance(value, dict) and not _only_the_loader_can_know(path, value))
    validator = Draft202012Validator(published_schema(), registry=Registry())
    assert _loads(tmp_path, value) is validator.is_valid(value)


@pytest.mark.usefixtures("_plugins_of_the_tests")
def test_a_plugin_that_cannot_be_described_is_named_and_harms_no_other() -> None:
    schema = published_schema()
    assert "option 'when' of tests.core.config.components.Unfit" in schema["$comment"]
    assert "router.unfit" not in schema["$defs"]
    assert schema["$defs"]["router"]["properties"]["type"]["anyOf"][0] == {"enum": ["shelf", "unfit"]}


@pytest.mark.usefixtures("_plugins_of_the_tests")
def test_secrets_and_words_are_there() -> None:
    option = published_schema()["$defs"]["connector.numbers"]["properties"]["token"]
    assert option == {"type": "string", "writeOnly": True, "description": "Access token."}
