"""Includes, profiles and their order; every value keeps the place where it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muxly.config._document import FileLimits, Problems
from muxly.config._layers import merge, read_layers
from tests.core.config.loading import errors, load, write
from tests.core.config.reading import read

if TYPE_CHECKING:
    from pathlib import Path

_BASE = "pipelines: {daily: {connector: NUMBERS, parallel: 2, routes: {lake: {router: SHELF}}}}\n"


def test_the_file_lies_over_what_it_includes_and_the_profile_over_both(tmp_path: Path) -> None:
    write(tmp_path, _BASE + "profiles: {prod: {pipelines: {daily: {memory_bytes: 2 MiB}}}}", "base/a.yaml")
    write(tmp_path, "pipelines: {daily: {parallel: 3, segment_seconds: 5}}", "base/b.json.yaml")
    path = write(
        tmp_path,
        """\
        include: [base/a.yaml, base/b.json.yaml]
        pipelines: {daily: {segment_seconds: 7}}
        profiles: {prod: {pipelines: {daily: {segment_seconds: 9}}}}
        """,
    )
    plain = load(path).pipeline("daily")
    assert (plain.parallel, plain.segment_seconds, plain.memory_bytes) == (3, 7, 256 << 20)
    prod = load(path, profile="prod").pipeline("daily")
    assert (prod.parallel, prod.segment_seconds, prod.memory_bytes) == (3, 9, 2 << 20)


def test_the_profile_may_come_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, _BASE + "profiles: {prod: {pipelines: {daily: {parallel: 9}}}}")
    assert load(path, environ={"MUXLY_PROFILE": "prod"}).pipeline("daily").parallel == 9
    assert load(path, environ={"MUXLY_PROFILE": ""}).pipeline("daily").parallel == 2
    assert load(path, profile="prod", environ={"MUXLY_PROFILE": "other"}).profile == "prod"


def test_a_mistake_is_told_in_the_file_where_it_stands(tmp_path: Path) -> None:
    write(tmp_path, "spool: {budget_bytes: x}", "parts/a.toml.yaml")
    path = write(
        tmp_path,
        f"include: parts/a.toml.yaml\n{_BASE}profiles:\n  prod:\n    pipelines: {{daily: {{parallel: none}}}}\n",
    )
    assert errors(path, profile="prod") == [
        'muxly.yaml:5:35: pipelines.daily.parallel: expected a whole number, got "none"',
        'parts/a.toml.yaml:1:23: spool.budget_bytes: expected a whole number or a size such as "64 MiB", got "x"',
    ]


def test_formats_may_be_mixed(tmp_path: Path) -> None:
    write(tmp_path, '{"spool": {"budget_bytes": 5}}', "a.json")
    write(tmp_path, "[spool]\nsegment_bytes = 6", "b.toml")
    spool = load(write(tmp_path, "include: [a.json, b.toml]")).spool
    assert (spool.budget_bytes, spool.segment_bytes) == (5, 6)


def test_an_included_file_may_include(tmp_path: Path) -> None:
    write(tmp_path, "include: more/c.yaml\nspool: {segment_bytes: 2}", "parts/b.yaml")
    write(tmp_path, "spool: {segment_bytes: 1, retention_bytes: 1}", "parts/more/c.yaml")
    spool = load(write(tmp_path, "include: parts/b.yaml")).spool
    assert (spool.segment_bytes, spool.retention_bytes) == (2, 1)


@pytest.mark.parametrize(
    ("included", "message"),
    [
        ("../outside.yaml", '"../outside.yaml" is outside the folder of the main file; move it there'),
        ("/etc/passwd", '"/etc/passwd" is outside the folder of the main file; move it there'),
        ("link.yaml", '"link.yaml" is outside the folder of the main file; move it there'),
        ("nowhere.yaml", 'there is no file "nowhere.yaml"'),
        ("muxly.yaml", '"muxly.yaml" includes itself: muxly.yaml -> muxly.yaml'),
    ],
)
def test_an_include_must_be_a_file_in_the_folder(tmp_path: Path, included: str, message: str) -> None:
    folder = tmp_path / "here"
    write(tmp_path, "spool: {}", "outside.yaml")
    path = write(folder, f"spool: {{}}\ninclude:\n  - {included}\n")
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert errors(path) == [f"muxly.yaml:3:5: include: {message}"]


def test_a_circle_of_includes_is_told_with_all_its_files(tmp_path: Path) -> None:
    write(tmp_path, "include: [b.yaml]", "a.yaml")
    write(tmp_path, "include: [a.yaml]", "b.yaml")
    path = write(tmp_path, "include: [a.yaml]")
    assert errors(path) == ['b.yaml:1:11: include: "a.yaml" includes itself: a.yaml -> b.yaml -> a.yaml']


def test_files_that_include_each_other_many_times_end_soon(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"include: [{number + 1}.yaml, {number + 1}.yaml]", f"{number}.yaml")
    write(tmp_path, "spool: {}", "20.yaml")
    found = errors(tmp_path / "0.yaml")
    assert all("more than 100 files are included" in line for line in found)


def test_the_limit_of_values_holds_for_all_files_together(tmp_path: Path) -> None:
    write(tmp_path, "spool: {segment_bytes: 1}", "a.yaml")
    path = write(tmp_path, "include: [a.yaml, a.yaml]")
    problems = Problems()
    read_layers(path, None, problems, FileLimits(nodes=8))
    assert [one.message for one in problems.found] == [
        "the file holds more than 1 values, counting repeats through aliases"
    ]


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("prd", 'muxly.yaml:2:1: profiles: there is no profile "prd"; did you mean "prod"?'),
        ("zzz", 'muxly.yaml:2:1: profiles: there is no profile "zzz"; known: prod, test'),
    ],
)
def test_an_unknown_profile_is_told_with_the_nearest(tmp_path: Path, profile: str, message: str) -> None:
    path = write(tmp_path, "spool: {}\nprofiles: {prod: {}, test: {}}")
    assert errors(path, profile=profile) == [message]


def test_a_profile_cannot_include(tmp_path: Path) -> None:
    path = write(tmp_path, "profiles:\n  prod: {include: a.yaml}")
    assert errors(path, profile="prod") == [
        'muxly.yaml:2:10: profiles.prod.include: a profile cannot change "include"; remove it'
    ]


def test_keys_for_anchors_are_free(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        x-routes: &routes {lake: {router: SHELF}}
        pipelines:
          daily: {connector: NUMBERS, routes: *routes}
          hourly: {connector: NUMBERS, routes: {<<: *routes, more: {router: SHELF}}}
        """,
    )
    configuration = load(path)
    assert [route.name for route in configuration.pipeline("hourly").routes] == ["more", "lake"]
    assert "x-routes" not in configuration.show()


def test_mappings_are_joined_and_all_else_is_replaced() -> None:
    low = read("a: {b: [1, 2], c: {d: 1}, e: 5}\n", ".yaml")
    top = read("\na: {b: [3], c: {f: 2}, e: {g: 1}}\n", ".yaml")
    merged = merge([low, top])
    assert merged.value == {"a": {"b": [3], "c": {"d": 1, "f": 2}, "e": {"g": 1}}}
    assert low.value == {"a": {"b": [1, 2], "c": {"d": 1}, "e": 5}}
    assert {path: str(place) for path, place in merged.values.items()} == {
        (): "muxly.yaml:1:1",
        ("a",): "muxly.yaml:1:4",
        ("a", "b"): "muxly.yaml:2:8",
        ("a", "b", 0): "muxly.yaml:2:9",
        ("a", "c"): "muxly.yaml:1:19",
        ("a", "c", "d"): "muxly.yaml:1:23",
        ("a", "c", "f"): "muxly.yaml:2:20",
        ("a", "e"): "muxly.yaml:2:27",
        ("a", "e", "g"): "muxly.yaml:2:31",
    }
