"""References: what they stand for, where they are looked for, and what is told when they are wrong."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

import muxly
from muxly import _references
from tests.core.config.loading import errors, load, write

if TYPE_CHECKING:
    from pathlib import Path

_ENVIRON = {"NAME": "value", "EMPTY": "", "SLACK_TOKEN": "s3cr3t"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "value"),
        ("a${NAME}b${NAME}", "avaluebvalue"),
        ("${NONE:-other}", "other"),
        ("${NAME:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-}", ""),
        ("${EMPTY}", ""),
        ("$${NAME}", "${NAME}"),
        ("$$", "$"),
        ("5$ $x $(rm)", "5$ $x $(rm)"),
        ("plain", "plain"),
    ],
)
def test_references_stand_for_their_values(text: str, value: str) -> None:
    assert _references.resolve(text, _ENVIRON) == value
    assert _references.has_reference(text) is (text != value)


def test_values_are_not_looked_at_again() -> None:
    assert _references.resolve("${A}", {"A": "${B}", "B": "x"}) == "${B}"


def test_files_lie_in_the_folder_and_lose_one_line_break(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a\nb\r\n")
    assert _references.resolve("${file:secret}", {}, folder=tmp_path) == "a\nb"
    assert _references.resolve(f"${{file:{tmp_path}/secret}}", {}) == "a\nb"
    assert _references.resolve("${file:nowhere:-x}", {}, folder=tmp_path) == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", r"environment variable NONE is not set; set it, or write \$\{NONE:-default\}"),
        ("${SLACK_TOKN}", r"environment variable SLACK_TOKN is not set; did you mean SLACK_TOKEN\?"),
        ("${a b}", r'"\$\{a b\}" is not a reference; write \$\{NAME\}'),
        ("${}", r'"\$\{\}" is not a reference'),
        ("${NAME", "begins a reference that is not closed, or that contains another one"),
        ("${A:-${B}}", "begins a reference that is not closed, or that contains another one"),
        ("${file:nowhere}", r"there is no file .*nowhere; create it, or write \$\{file:.*nowhere:-default\}"),
        ("${file:}", "cannot read .*: Is a directory"),
        ("${file:big}", "big is larger than 1 MiB"),
        ("${file:binary}", "binary is not UTF-8 text"),
        ("${file:a\0b}", "cannot read .*null byte"),
    ],
)
def test_what_cannot_be_resolved_is_told_with_the_next_step(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(muxly.ConfigurationError, match=message):
        _references.resolve(text, _ENVIRON, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("${NAME}", "${NAME}"),
        ("${file:a:-s3cr3t}", "${file:a:-***}"),
        ("postgresql://me:s3cr3t@${HOST}/db", "***${HOST}***"),
        ("a$$b", "*********"),
        ("s3cr3t", "***"),
    ],
)
def test_what_is_shown_of_a_secret_is_only_where_it_is_kept(text: str, shown: str) -> None:
    assert _references.masked(text) == shown


def _pipeline(folder: Path, options: str) -> Path:
    return write(
        folder,
        f"""\
        pipelines:
          daily:
            connector: {{type: 'tests.core.config.components:Numbers', {options}}}
            routes: {{lake: {{router: SHELF}}}}
        """,
    )


def test_a_secret_keeps_its_reference_and_pickles_as_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("s3cr3t", encoding="utf-8")
    path = _pipeline(tmp_path, 'token: "${file:token}", secrets: {a: "${NAME}"}')
    connector = load(path, environ=_ENVIRON).pipeline("daily").connector
    token: muxly.Secret = connector.token  # type: ignore[attr-defined]
    assert token.reveal() == "s3cr3t"
    assert "s3cr3t" not in repr(connector)
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(token)).reveal() == "s3cr3t"
    assert connector.secrets["a"].reveal() == "value"  # type: ignore[attr-defined]


def test_a_reference_may_stand_for_a_number(tmp_path: Path) -> None:
    path = _pipeline(tmp_path, 'token: t, retries: "${TRIES:-5}", page_bytes: "${SIZE}", either: "${TRIES:-5}"')
    connector = load(path, environ={"SIZE": "2 KiB"}).pipeline("daily").connector
    assert connector.retries == 5  # type: ignore[attr-defined]
    assert connector.page_bytes == 2048  # type: ignore[attr-defined]


def test_references_in_keys_are_text(tmp_path: Path) -> None:
    path = _pipeline(tmp_path, 'token: t, extra: {"${NAME}": 1}')
    connector = load(path, environ=_ENVIRON).pipeline("daily").connector
    assert connector.extra == {"${NAME}": 1}  # type: ignore[attr-defined]


def test_values_of_options_carry_no_trace_of_where_they_came_from(tmp_path: Path) -> None:
    path = _pipeline(tmp_path, 'token: t, extra: ["${NAME}"], source: "${NAME}", names: ["${NAME}"]')
    connector = load(path, environ=_ENVIRON).pipeline("daily").connector
    for text in (connector.extra[0], connector.names[0]):  # type: ignore[attr-defined]
        assert type(text) is str
        assert text == "value"


def test_all_references_that_cannot_be_resolved_are_told_and_nothing_that_follows_from_them(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        pipelines:
          daily:
            connector: {type: 'tests.core.config.components:Numbers', token: "${SLACK_TOKN}", retries: "${TRIES}"}
            parallel: ${MANY}
            routes: {lake: {router: SHELF, where: "${file:where.sql}"}}
        """,
    )
    assert errors(path, environ=_ENVIRON) == [
        (
            "muxly.yaml:3:70: pipelines.daily.connector.token: environment variable SLACK_TOKN is not set; "
            "did you mean SLACK_TOKEN?"
        ),
        (
            "muxly.yaml:3:96: pipelines.daily.connector.retries: environment variable TRIES is not set; "
            "set it, or write ${TRIES:-default}"
        ),
        (
            "muxly.yaml:4:15: pipelines.daily.parallel: environment variable MANY is not set; "
            "set it, or write ${MANY:-default}"
        ),
        (
            "muxly.yaml:5:93: pipelines.daily.routes.lake.where: there is no file where.sql; "
            "create it, or write ${file:where.sql:-default}"
        ),
    ]


def test_a_wrong_value_behind_a_reference_is_not_shown(tmp_path: Path) -> None:
    path = _pipeline(tmp_path, 'token: t, retries: "${SLACK_TOKEN}", color: "${SLACK_TOKEN}", since: "${SLACK_TOKEN}"')
    found = errors(path, environ=_ENVIRON)
    assert [line.rsplit(": ", 1)[1] for line in found] == ["expected a whole number", "expected one of red, blue"]
    path = _pipeline(tmp_path, 'token: t, since: "${SLACK_TOKEN}"')
    (found_later,) = errors(path, environ=_ENVIRON)
    assert found_later.endswith("connector.since: the value is not valid")


def test_a_reference_that_this_pipeline_does_not_need_may_be_unset(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        store: {url: "${DATABASE}"}
        pipelines:
          daily: {connector: NUMBERS, routes: {lake: {router: SHELF}}}
          other: {connector: NUMBERS, routes: {lake: {router: SHELF, where: "${NONE}"}}}
        """,
    )
    configuration = load(path)
    assert configuration.pipeline("daily").name == "daily"
    with pytest.raises(muxly.ConfigurationError, match=r"muxly.yaml:4:\d+: pipelines.other.routes.lake.where: .*NONE"):
        configuration.pipeline("other")
    with pytest.raises(muxly.ConfigurationError, match=r"muxly.yaml:1:14: store.url: .*DATABASE"):
        _ = configuration.store_url
    with pytest.raises(muxly.ConfigurationError, match=r"(?s)store.url.*pipelines.other"):
        configuration.validate()


@pytest.mark.parametrize(
    "options",
    [
        "token: [12345678]",
        "token: 12345678",
        "token: {a: 12345678}",
        "token: t, secrets: {a: 12345678}",
        "token: t, secrets: 12345678",
        "toke: 12345678",
        "token: t, secrets: {a: t}, nope: 12345678",
    ],
)
def test_a_secret_in_the_wrong_place_or_shape_is_not_shown(tmp_path: Path, options: str) -> None:
    for line in errors(_pipeline(tmp_path, options)):
        assert "12345678" not in line or "secrets: expected" in line
