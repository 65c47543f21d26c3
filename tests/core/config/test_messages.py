"""Every mistake is told once, in one line: where it is, what is wrong, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import muxly
from tests.core.config.loading import errors, load, write

if TYPE_CHECKING:
    from pathlib import Path

SHELF = "tests.core.config.components:Shelf"


def _router(folder: Path, options: str) -> list[str]:
    text = f"pipelines:\n  daily:\n    connector: NUMBERS\n    routes:\n      lake:\n        router: {options}\n"
    return errors(write(folder, text))


def _connector(folder: Path, options: str) -> list[str]:
    return errors(write(folder, f"connectors:\n  hub: {{type: 'tests.core.config.components:Numbers', {options}}}\n"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("format: parqet", 'format: expected one of csv, jsonl, parquet; did you mean "parquet"?'),
        ("format: xyz", 'format: expected one of csv, jsonl, parquet, got "xyz"'),
        ("format: 1.10", "format: expected one of csv, jsonl, parquet, got 1.1"),
        ("even: '4'", 'even: expected a whole number, got "4"; remove the quotes'),
        ("even: true", "even: expected a whole number, got true"),
        ("even: [4]", "even: expected a whole number, got a list"),
        ("even: 3", "even: 3 is odd; write an even number"),
        ("fromat: csv", 'fromat: unknown key; did you mean "format"?'),
        ("zzz: 1", "zzz: unknown key; known: even, format, key, path, twin, type"),
    ],
)
def test_values_of_a_router(tmp_path: Path, options: str, message: str) -> None:
    (found,) = _router(tmp_path, f"{{type: '{SHELF}', path: out, {options}}}")
    assert found.endswith(f"pipelines.daily.routes.lake.router.{message}")
    assert found.startswith("muxly.yaml:6:")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("token: t, retries: 0", "hub.retries: must be at least 1, got 0"),
        ("token: t, retries: 11", "hub.retries: must be at most 10, got 11"),
        ("token: t, ratio: x", 'hub.ratio: expected a number, got "x"'),
        ("token: t, ratio: '0.5'", 'hub.ratio: expected a number, got "0.5"; remove the quotes'),
        ("token: t, url: ftp", r'hub.url: expected text that matches ^(?:https?://\S+)$, got "ftp"'),
        ("token: t, url: 5", "hub.url: expected text, got 5; put it in quotes"),
        ("token: t, url: ", "hub.url: expected text, got nothing"),
        (
            "token: t, page_bytes: 5 lots",
            'hub.page_bytes: expected a whole number or a size such as "64 MiB", got "5 lots"',
        ),
        ("token: t, window: soon", 'hub.window: expected a number or a duration such as "15m", got "soon"'),
        ("token: t, window: -5", "hub.window: must be at least 0, got -5"),
        ("token: t, reports: {a: {metrics: []}}", "hub.reports.a.metrics: must not be empty"),
        ("token: t, reports: {a: {}}", 'hub.reports.a: missing required key "metrics": What is counted.'),
        (
            "token: t, reports: {a: {metric: [x]}}",
            'hub.reports.a: missing required key "metrics"; the key "metric" looks like a misspelling',
        ),
        (
            "token: t, reports: {a: {metrics: x}}",
            'hub.reports.a.metrics: expected a list, got "x"; write it as a list: [x]',
        ),
        ("token: t, names: [a, b, c, d]", "hub.names: must have at most 3 items"),
        ("token: t, pair: [1]", "hub.pair: must have at least 2 items"),
        ("token: t, pair: [a, b]", 'hub.pair[0]: expected a whole number, got "a"'),
        ("token: t, tags: [a, a]", "hub.tags: an item appears twice; remove one of the two"),
        ("token: t, color: green", 'hub.color: expected one of red, blue, got "green"'),
        ("token: t, either: x", 'hub.either: expected a whole number or a list, got "x"; write it as a list: [x]'),
        ("token: t, either: [x]", 'hub.either[0]: expected a whole number, got "x"'),
        ("token: t, since: tomorrow", 'hub.since: expected a date such as 2026-01-31, got "tomorrow"'),
        ("token: t, at: noon", 'hub.at: expected a time such as 2026-01-31T08:00:00Z, got "noon"'),
        (
            "token: t, at: '2026-01-01T00:00:00'",
            'hub.at: "2026-01-01T00:00:00" has no time zone; add Z for UTC, or an offset such as +02:00',
        ),
        ("url: https://x", 'hub: missing required key "token": Access token.'),
    ],
)
def test_values_of_a_connector(tmp_path: Path, options: str, message: str) -> None:
    (found,) = _connector(tmp_path, options)
    assert found.endswith(f": connectors.{message}")
    assert found.startswith("muxly.yaml:2:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2", "muxly.yaml:1:10: version: expected 1, got 2"),
        ("piplines: {}", 'muxly.yaml:1:1: piplines: unknown key; did you mean "pipelines"?'),
        ("pipelines: []", "muxly.yaml:1:12: pipelines: expected a mapping, got a list"),
        (
            "pipelines:\n  a b: {connector: NUMBERS, routes: {r: {router: SHELF}}}",
            (
                'muxly.yaml:2:3: pipelines."a b": this name cannot be used; expected letters, digits, "_", ".", "-", '
                "at most 63, beginning with a letter or digit"
            ),
        ),
        (
            "pipelines:\n  a:\n    conector: NUMBERS\n    routes: {r: {router: SHELF}}",
            (
                'muxly.yaml:3:5: pipelines.a: missing required key "connector"; '
                'the key "conector" looks like a misspelling'
            ),
        ),
        (
            "pipelines: {a: {connector: NUMBERS, routes: {}}}",
            "muxly.yaml:1:REST: pipelines.a.routes: must not be empty",
        ),
        (
            "pipelines: {a: {connector: hub, routes: {r: {router: SHELF}}}}",
            (
                'muxly.yaml:1:28: pipelines.a.connector: there is no connector "hub" under connectors; '
                "known: none; define it there"
            ),
        ),
        (
            "connectors: {hub: NUMBERS}\npipelines: {a: {connector: hubb, routes: {r: {router: SHELF}}}}",
            (
                'muxly.yaml:2:28: pipelines.a.connector: there is no connector "hubb" under connectors; '
                'did you mean "hub"?'
            ),
        ),
        (
            "pipelines: {a: {connector: NUMBERS, routes: {r: {router: {path: x}}}}}",
            'muxly.yaml:1:REST: pipelines.a.routes.r.router: missing required key "type"',
        ),
        (
            "pipelines: {a: {connector: NUMBERS, routes: {r: {router: SHELF, required: yes}}}}",
            (
                'muxly.yaml:1:REST: pipelines.a.routes.r.required: expected true or false, got "yes"; '
                "write true or false (YAML 1.2)"
            ),
        ),
        (
            "jobs: {j: {pipeline: daly}}",
            'muxly.yaml:1:22: jobs.j.pipeline: there is no pipeline "daly"; known: none',
        ),
        ("profiles: {p: 5}", "muxly.yaml:1:15: profiles.p: expected a mapping, got 5"),
        ("include: 5", "muxly.yaml:1:10: include: expected text or a list, got 5; put it in quotes"),
    ],
)
def test_the_cores_own_keys(tmp_path: Path, text: str, message: str) -> None:
    (found,) = errors(write(tmp_path, text))
    start, _, end = message.partition("REST")
    assert found.startswith(start if end else message)
    assert found.endswith(end)


def test_an_unknown_plugin_is_told_with_the_nearest(tmp_path: Path) -> None:
    (found,) = errors(write(tmp_path, "connectors: {hub: {type: fille}}"))
    assert found == (
        "muxly.yaml:1:26: connectors.hub.type: there is no connector named 'fille'; did you mean \"file\"?"
    )


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    (found,) = errors(write(tmp_path, "connectors: {hub: {type: 'no_such_module:It'}}"))
    assert found.startswith("muxly.yaml:1:26: connectors.hub.type: the connector plugin 'no_such_module:It'")
    assert found.endswith("ModuleNotFoundError: No module named 'no_such_module'")


def test_a_component_that_refuses_itself_is_placed_at_the_option(tmp_path: Path) -> None:
    (found,) = _router(tmp_path, "{type: 'tests.core.config.components:Picky', high: 1, low: 2}")
    assert found == "muxly.yaml:6:76: pipelines.daily.routes.lake.router.low: low is above high"


def test_validators_are_all_asked(tmp_path: Path) -> None:
    found = _router(tmp_path, f"{{type: '{SHELF}', path: out, even: 3, twin: 5}}")
    assert [line.split(": ", 1)[1] for line in found] == [
        "pipelines.daily.routes.lake.router.even: 3 is odd; write an even number",
        "pipelines.daily.routes.lake.router.twin: 5 is odd; write an even number",
    ]


def test_the_mode_must_be_one_that_the_router_has(tmp_path: Path) -> None:
    text = "pipelines: {a: {connector: NUMBERS, routes: {r: {mode: upsert, router: SHELF}}}}"
    (found,) = errors(write(tmp_path, text))
    assert found.endswith(
        'pipelines.a.routes.r.mode: the router "tests.core.config.components:Shelf" has no mode upsert; '
        "it has append and replace"
    )


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ("", 'streams are read incrementally by default; add streams: {"*": {read: full}}'),
        ("streams: {contacts: {}},", '"contacts" is read incrementally; write read: full under streams.contacts'),
        ("streams: {x: {}, '*': {}},", '"*" is read incrementally; write read: full under streams.*'),
        ("streams: {'con*': {}},", '"con*" is read incrementally; write read: full under streams.con*'),
    ],
)
def test_replace_on_an_incremental_stream_names_the_full_read(tmp_path: Path, streams: str, message: str) -> None:
    routes = "routes: {r: {mode: replace, streams: contacts, router: SHELF}}"
    (found,) = errors(write(tmp_path, f"pipelines: {{a: {{connector: NUMBERS, {streams} {routes}}}}}"))
    assert found.endswith(f"pipelines.a.routes.r.mode: replace needs full reads, and {message}")


@pytest.mark.parametrize(
    ("streams", "route"),
    [
        ("{contacts: {read: full}, '*': {}}", "contacts"),
        ("{'con*': {read: full}, '*': {}}", "contacts"),
        ("{'con*': {read: full}, '*': {}}", "'con*'"),
        ("{'con*': {read: full}, deals: {}}", "'co*'"),
        ("{'*': {read: full}}", "'*'"),
    ],
)
def test_the_rules_of_the_name_or_the_first_glob_decide(tmp_path: Path, streams: str, route: str) -> None:
    routes = f"routes: {{r: {{mode: replace, streams: {route}, router: SHELF}}}}"
    load(write(tmp_path, f"pipelines: {{a: {{connector: NUMBERS, streams: {streams}, {routes}}}}}")).validate()


def test_replace_beside_append_is_told_where_streams_overlap(tmp_path: Path) -> None:
    routes = (
        "routes: {r: {mode: replace, streams: contacts, router: SHELF},"
        " s: {mode: append, router: SHELF}, t: {mode: append, streams: [deals], router: SHELF}}"
    )
    streams = "streams: {contacts: {read: full}, deals: {}}"
    (found,) = errors(write(tmp_path, f"pipelines: {{a: {{connector: NUMBERS, {streams}, {routes}}}}}"))
    assert "pipelines.a.routes.s.mode: append would repeat every record each time" in found


def test_a_column_cannot_be_both_included_and_excluded(tmp_path: Path) -> None:
    columns = "columns: {include: [a, b], exclude: b}"
    text = f"pipelines: {{a: {{connector: NUMBERS, routes: {{r: {{{columns}, router: SHELF}}}}}}}}"
    (found,) = errors(write(tmp_path, text))
    assert found.endswith('pipelines.a.routes.r.columns: "b" is both included and excluded; remove one of the two')


def test_five_hundred_mistakes_are_all_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    routes = "".join(
        f"      r{n}:\n        router: {{type: '{SHELF}', path: out, format: c{n}v, even: 3}}\n        requird: true\n"
        for n in range(167)
    )
    path = write(tmp_path, f"pipelines:\n  daily:\n    connector: NUMBERS\n    routes:\n{routes}")
    found = errors(path)
    lines = [int(line.split(":")[1]) for line in found]
    assert len(found) == 167 * 2
    assert lines == sorted(lines)
    fixed = path.read_text(encoding="utf-8").replace("requird", "required")
    for n in range(167):
        fixed = fixed.replace(f"format: c{n}v,", "")
    path.write_text(fixed, encoding="utf-8")
    assert len(errors(path)) == 167


def test_mistakes_of_the_core_and_of_plugins_are_told_together(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"""\
        connectors:
          unused: {{type: 'tests.core.config.components:Numbers'}}
        pipelines:
          daily:
            connector: hub
            parallel: none
            routes:
              lake: {{router: {{type: '{SHELF}', path: out, even: 3}}, backlog: stopp}}
        jobs:
          j: {{pipeline: dayly}}
        more: 1
        """,
    )
    with pytest.raises(muxly.ConfigurationError, match="unknown key"):
        load(path)
    assert [line.split(":")[1] for line in errors(path)] == ["2", "5", "6", "8", "8", "10", "11"]


def test_odd_keys_and_values_cannot_forge_a_line(tmp_path: Path) -> None:
    path = tmp_path / "muxly.json"
    path.write_text('{"a\\nmuxly.json:1:1: b\\u001b[31m": 1, "version": "x\\ny\\u202e"}', encoding="utf-8")
    found = errors(path)
    assert len(found) == 2
    assert all("\x1b" not in line and "\u202e" not in line for line in found)
    assert '"a\\nmuxly.json:1:1: b\\u001b[31m": unknown key' in found[0]
