"""The environment and ``--set`` reach every key, with the types of the schema; values are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import muxly
from tests.core.config.loading import errors, load, write

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = """\
connectors:
  hub: NUMBERS
pipelines:
  daily-run:
    connector: hub
    routes:
      lake: {router: SHELF}
jobs:
  j: {pipeline: daily-run, triggers: [{type: cron, expression: a}]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, _TEXT)


@pytest.mark.parametrize(
    ("name", "text", "option", "value"),
    [
        ("PARALLEL", "7", "parallel", 7),
        ("parallel", "7", "parallel", 7),
        ("MEMORY_BYTES", "2 MiB", "memory_bytes", 2 << 20),
        ("SEGMENT_SECONDS", "1.5", "segment_seconds", 1.5),
        ("SEGMENT_SECONDS", "2m", "segment_seconds", 120.0),
        ("STREAMS", "{deals: {read: full}}", "streams", {"deals": muxly.StreamRules(read="full")}),
        ("RETRY__ATTEMPTS", "2", "retry", muxly.Backoff(attempts=2)),
        ("ROUTES__LAKE__REQUIRED", "false", "routes.required", False),
        ("ROUTES__LAKE__STREAMS", "[a, b]", "routes.streams", ("a", "b")),
        ("ROUTES__LAKE__WHERE", "5", "routes.where", "5"),
        ("ROUTES__LAKE__COLUMNS__EXCLUDE", "a", "routes.columns", muxly.Columns(exclude=("a",))),
        ("ROUTES__LAKE__ROUTER__EVEN", "8", "routes.router.even", 8),
        ("ROUTES__LAKE__ROUTER__FORMAT", "jsonl", "routes.router.format", "jsonl"),
    ],
)
def test_a_variable_has_the_type_that_the_schema_wants(
    path: Path, name: str, text: str, option: str, value: Any
) -> None:
    pipeline = load(path, environ={f"MUXLY__PIPELINES__DAILY_RUN__{name}": text}).pipeline("daily-run")
    found: Any = pipeline
    for part in option.split("."):
        found = found[0] if isinstance(found, tuple) else found
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("retries", "7", 7),
        ("ratio", "1e-1", 0.1),
        ("names", "a, b,c", ("a", "b", "c")),
        ("names", "", ()),
        ("pair", "[3, x]", (3, "x")),
        ("either", "[3, 4]", [3, 4]),
        ("either", "3", 3),
        ("reports", '{"a": {"metrics": ["x"]}}', None),
        ("extra", "free", "free"),
    ],
)
def test_values_of_a_plugins_options_are_read_by_its_types(path: Path, name: str, text: str, value: Any) -> None:
    pipeline = load(path, sets=[f"connectors.hub.{name}={text}"]).pipeline("daily-run")  # type: ignore[arg-type]
    found = getattr(pipeline.connector, name)
    assert found == value if name != "reports" else found["a"].metrics == ["x"]


def test_an_item_of_a_list_can_be_set(path: Path) -> None:
    environ = {"MUXLY__JOBS__J__TRIGGERS__0__TYPE": "webhook"}
    assert load(path, environ=environ).jobs["j"].triggers == ({"type": "webhook", "expression": "a"},)
    sets = ("jobs.j.triggers[0].type=api",)
    assert load(path, environ=environ, sets=sets).jobs["j"].triggers == ({"type": "api", "expression": "a"},)


def test_sections_that_the_file_lacks_can_be_set(path: Path) -> None:
    configuration = load(path, environ={"MUXLY__STORE__URL": "sqlite:///x", "MUXLY__HOME": "/tmp/home"})
    assert configuration.store_url is not None
    assert configuration.store_url.reveal() == "sqlite:///x"
    assert str(configuration.home) == "/tmp/home"


def test_the_command_line_lies_over_the_environment(path: Path) -> None:
    key = "pipelines.daily-run.parallel"
    configuration = load(path, environ={"MUXLY__PIPELINES__DAILY_RUN__PARALLEL": "7"}, sets=(f"{key}=8", f"{key}=9"))
    assert configuration.pipeline("daily-run").parallel == 9


def test_a_secret_from_the_environment_can_be_found_again_by_another_process(path: Path) -> None:
    name = "MUXLY__CONNECTORS__HUB__TOKEN"
    connector = load(path, environ={name: "s3cr3t"}).pipeline("daily-run").connector
    token: muxly.Secret = connector.token  # type: ignore[attr-defined]
    assert token.reveal() == "s3cr3t"
    assert token.reference == f"${{{name}}}"


def test_values_of_variables_are_not_looked_at_again(path: Path) -> None:
    environ = {"MUXLY__CONNECTORS__HUB__EXTRA": "${HOME}", "HOME": "x"}
    connector = load(path, environ=environ).pipeline("daily-run").connector
    assert connector.extra == "${HOME}"  # type: ignore[attr-defined]


def test_references_on_the_command_line_keep_secrets_out_of_the_list_of_processes(path: Path) -> None:
    configuration = load(path, sets=("connectors.hub.token=${TOKEN}",), environ={"TOKEN": "s3cr3t"})
    token: muxly.Secret = configuration.pipeline("daily-run").connector.token  # type: ignore[attr-defined]
    assert token.reveal() == "s3cr3t"
    assert token.reference == "${TOKEN}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PIPELINES__DALY_RUN__PARALLEL", 'pipelines: pipelines has no "daly_run"; did you mean "daily-run"?'),
        (
            "PIPELINES__DAILY_RUN__PARALEL",
            'pipelines.daily-run: pipelines.daily-run has no "paralel"; did you mean "parallel"?',
        ),
        ("CONECTORS__X", 'the configuration has no "conectors"; did you mean "connectors"?'),
        ("CONNECTORS__HUB__RETRY", 'connectors.hub: connectors.hub has no "retry"; did you mean "retries"?'),
        ("CONNECTORS__HUB__RETRIES__X", 'connectors.hub.retries: connectors.hub.retries has no "x"; known: none'),
        ("JOBS__J__TRIGGERS__1__TYPE", 'jobs.j.triggers: jobs.j.triggers has no "1"; known: 0'),
        ("", 'the configuration has no ""; known: '),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_never_with_its_value(path: Path, name: str, message: str) -> None:
    (found,) = errors(path, environ={f"MUXLY__{name}": "s3cr3t"})
    assert found.startswith(f"environment variable MUXLY__{name}: {message}")
    assert "s3cr3t" not in found


def test_a_wrong_value_is_told_with_the_variable_and_not_with_the_value(path: Path) -> None:
    environ = {
        "MUXLY__PIPELINES__DAILY_RUN__PARALLEL": "s3cr3t",
        "MUXLY__CONNECTORS__HUB__COLOR": "s3cr3t",
        "MUXLY__PIPELINES__DAILY_RUN__ROUTES__LAKE__ROUTER__EVEN": "97531",
        "MUXLY__PIPELINES__DAILY_RUN__ROUTES__LAKE__MODE": "s3cr3t",
    }
    assert errors(path, environ=environ) == [
        "environment variable MUXLY__CONNECTORS__HUB__COLOR: connectors.hub.color: expected one of red, blue",
        (
            "environment variable MUXLY__PIPELINES__DAILY_RUN__PARALLEL: pipelines.daily-run.parallel: "
            "expected a whole number"
        ),
        (
            "environment variable MUXLY__PIPELINES__DAILY_RUN__ROUTES__LAKE__MODE: "
            "pipelines.daily-run.routes.lake.mode: expected one of append, upsert, overwrite, replace"
        ),
        (
            "environment variable MUXLY__PIPELINES__DAILY_RUN__ROUTES__LAKE__ROUTER__EVEN: "
            "pipelines.daily-run.routes.lake.router.even: the value is not valid"
        ),
    ]


def test_two_keys_that_one_name_could_mean_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, "connectors: {a-b: NUMBERS, a_b: NUMBERS}")
    (found,) = errors(path, environ={"MUXLY__CONNECTORS__A_B__RETRIES": "5"})
    assert 'could mean "a-b" or "a_b"; use --set, or rename one of them' in found
    assert load(path, sets=("connectors.a-b.retries=5",)).explain("connectors.a-b.retries").given[-1].value == 5


def test_a_key_may_hold_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path, "connectors: {a__b: NUMBERS}\npipelines: {}")
    configuration = load(path, environ={"MUXLY__CONNECTORS__A__B__RETRIES": "5"})
    assert configuration.show()["connectors"]["a__b"]["retries"] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipelines.daily-run.paralel=1", 'pipelines.daily-run has no "paralel"; did you mean "parallel"?'),
        ("pipelines", "--set pipelines: a value is set with KEY=VALUE"),
        ("pipelines..x=1", '"pipelines..x" is not a key; write it as pipelines.daily.parallel'),
        ("=1", '"" is not a key; write it as pipelines.daily.parallel'),
        ("jobs.j.triggers[5].type=x", 'jobs.j.triggers has no "5"; known: 0'),
    ],
)
def test_a_wrong_key_on_the_command_line_is_told(path: Path, text: str, message: str) -> None:
    (found,) = errors(path, sets=(text,))
    assert found.startswith("--set ")
    assert found.endswith(message)


def test_other_variables_are_nobodys_business(path: Path) -> None:
    load(path, environ={"MUXLY_SOMETHING": "x", "MUXLY": "y", "XMUXLY__A": "z"}).validate()
