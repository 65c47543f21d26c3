from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import muxly
from muxly import _plugins
from muxly_connector_file import Csv, File, muxly_connector
from muxly_testing import ChaosRouter
from tests.connector_file.reading import opened, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"name":"{name}"}}\n' if "json" in name else f"name\n{name}\n")


def plans(connector: File, cursor: Any = None) -> dict[str, list[str]]:
    return {one.name: ids(connector.plan(one, cursor)) for one in connector.streams()}


def ids(plan: muxly.Plan) -> list[str]:
    return [one.id for one in plan.partitions]


def only(found: Iterable[muxly.Stream]) -> muxly.Stream:
    [stream] = found
    return stream


def test_the_plugin_is_found_and_importing_it_loads_no_arrow() -> None:
    assert muxly_connector() is File
    assert any(one.name == "file" and one.kind == "connector" for one in _plugins.installed())
    code = "import sys, muxly_connector_file; sys.exit('pyarrow' in sys.modules or 'fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_is_a_stream_of_its_own_name(tmp_path: Path) -> None:
    fill(tmp_path, "weather.csv.gz")
    connector, _notices = opened(tmp_path / "weather.csv.gz")
    assert plans(connector) == {"weather": ["weather.csv.gz"]}


def test_each_folder_is_a_stream_and_unknown_or_hidden_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    fill(folder, "a.csv", "b/x.jsonl", "b/y.csv", "b/c/z.csv", "b/notes.txt", ".hidden.csv", ".git/x.csv")
    connector, _notices = opened(folder)
    assert plans(connector) == {"lake": ["a.csv"], "b": ["b/x.jsonl", "b/y.csv"], "b/c": ["b/c/z.csv"]}


def test_a_pattern_a_name_and_named_patterns(tmp_path: Path) -> None:
    fill(tmp_path, "w/a.csv", "w/b.csv", "w/c.jsonl", "x/d.csv")
    assert plans(opened(tmp_path / "w" / "*.csv")[0]) == {"w": ["a.csv", "b.csv"]}
    assert plans(opened(f"{tmp_path}/**/*.csv", stream="all")[0]) == {"all": ["w/a.csv", "w/b.csv", "x/d.csv"]}
    connector, _notices = opened(tmp_path, files={"one": "w/*.csv", "two": "**/*.jsonl"})
    assert plans(connector) == {"one": ["w/a.csv", "w/b.csv"], "two": ["w/c.jsonl"]}


def test_brackets_in_the_name_of_a_file(tmp_path: Path) -> None:
    fill(tmp_path, "a[1].csv")
    assert read_all(tmp_path / "a[1].csv").records == [{"name": "a[1].csv"}]
    fill(tmp_path, "b.csv", "c.csv")
    assert plans(opened(f"{tmp_path}/[bc].csv", stream="s")[0]) == {"s": ["b.csv", "c.csv"]}
    assert plans(opened(f"{tmp_path}/{{b,x}}.csv", stream="s")[0]) == {"s": ["b.csv"]}


def test_named_patterns_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(muxly.ConfigurationError, match="path is a folder if files gives a pattern") as caught:
        opened(tmp_path / "*.csv", files={"one": "*.csv"})
    assert caught.value.path == ("path",)


def test_streams_carry_their_keys(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    connector, _notices = opened(tmp_path / "a.csv", primary_key=["name"], cursor_field="name")
    stream = only(connector.streams())
    assert (stream.primary_key, stream.cursor_field, stream.sorted) == (("name",), "name", True)


def test_only_new_and_changed_files_are_planned_and_deleted_ones_forgotten(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv", "b.csv", "c.csv")
    connector, _notices = opened(f"{tmp_path}/*.csv")
    stream = only(connector.streams())
    first = connector.plan(stream, None)
    assert ids(first) == ["a.csv", "b.csv", "c.csv"]
    assert ids(connector.plan(stream, first.cursor)) == []
    (tmp_path / "b.csv").write_text("name\nother\n")
    (tmp_path / "c.csv").unlink()
    fill(tmp_path, "d.csv")
    second = connector.plan(stream, first.cursor)
    assert ids(second) == ["b.csv", "d.csv"]
    assert set(second.cursor["files"]) == {"a.csv", "b.csv", "d.csv"}
    fill(tmp_path, "c.csv")
    assert ids(connector.plan(stream, second.cursor)) == ["c.csv"]


def test_a_change_that_keeps_the_size_is_seen(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    connector, _notices = opened(tmp_path / "a.csv")
    stream = only(connector.streams())
    plan = connector.plan(stream, None)
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    assert ids(connector.plan(stream, plan.cursor)) == ["a.csv"]


def test_an_empty_folder_is_no_reason_to_forget_what_was_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    connector, notices = opened(f"{tmp_path}/*.csv", stream="s")
    stream = only(connector.streams())
    cursor = connector.plan(stream, None).cursor
    (tmp_path / "a.csv").unlink()
    plan = connector.plan(stream, cursor)
    assert (plan.partitions, plan.cursor) == ((), cursor)
    assert [one.code for one in notices] == ["no_files"]
    assert "matches *.csv" in notices[0].message


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    connector, _notices = opened(tmp_path / "none.csv")
    message = re.escape(f"{tmp_path}/none.csv does not exist; correct path, or create it")
    with pytest.raises(muxly.StreamError, match=message):
        connector.plan(only(connector.streams()), None)
    assert [one.level for one in connector.check()] == ["error"]
    connector, notices = opened(tmp_path / "none" / "*.csv")
    assert list(connector.streams()) == []
    assert "none does not exist" in notices[0].message


def test_a_file_that_was_read_before_and_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    connector, _notices = opened(tmp_path / "a.csv")
    stream = only(connector.streams())
    cursor = connector.plan(stream, None).cursor
    (tmp_path / "a.csv").unlink()
    with pytest.raises(muxly.StreamError, match=r"/a\.csv does not exist; correct path"):
        connector.plan(stream, cursor)


def test_a_run_of_a_path_that_does_not_exist_fails_and_one_of_a_pattern_waits(tmp_path: Path) -> None:
    def run(path: str) -> muxly.RunResult:
        routes = [muxly.Route("lake", ChaosRouter())]
        return muxly.run(muxly.Pipeline("daily", File(path=path), routes=routes), home=tmp_path / "home")

    result = run(f"{tmp_path}/none.csv")
    assert result.state == "partial"
    with pytest.raises(muxly.MuxlyError, match=r"/none\.csv does not exist; correct path, or create it"):
        result.raise_for_status()
    for waiting in (f"{tmp_path}/*.csv", f"{tmp_path}/none/*.csv", f"{tmp_path}/[ab].csv"):
        result = run(waiting)
        assert (result.state, [one.code for one in result.notices]) == ("succeeded", ["no_files"])


def test_a_folder_without_files(tmp_path: Path) -> None:
    connector, notices = opened(tmp_path)
    assert list(connector.streams()) == []
    assert "holds no file of a known format" in notices[0].message or "matches" in notices[0].message


def test_an_unknown_format_asks_for_the_option(tmp_path: Path) -> None:
    fill(tmp_path, "a.dat")
    connector, _notices = opened(tmp_path / "a.dat")
    with pytest.raises(muxly.ConfigurationError, match="does not tell its format; set format to csv") as caught:
        plans(connector)
    assert caught.value.path == ("format",)
    assert read_all(tmp_path / "a.dat", format="csv").records == [{"name": "a.dat"}]


def test_relative_paths_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "x/a.csv")
    monkeypatch.chdir(tmp_path)
    assert read_all("x/*.csv").records == [{"name": "x/a.csv"}]
    assert read_all("./x/../x/a.csv").records == [{"name": "x/a.csv"}]


def test_links_to_files_are_read_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "real", "a.csv")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.csv").symlink_to(tmp_path / "real" / "a.csv")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.csv").symlink_to(tmp_path / "nowhere.csv")
    connector, _notices = opened(f"{folder}/**/*.csv", stream="s")
    assert plans(connector) == {"s": ["link.csv"]}


def test_pipes_are_not_files(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    os.mkfifo(tmp_path / "b.csv")
    connector, _notices = opened(f"{tmp_path}/*.csv", stream="s")
    assert plans(connector) == {"s": ["a.csv"]}


def test_check_counts_files_and_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv", "b.csv")
    connector, _notices = opened(f"{tmp_path}/*.csv", stream="s")
    [notice] = connector.check()
    assert (notice.level, notice.facts) == ("info", {"files": 2, "bytes": 22})
    assert notice.message == "s: 2 files, 22 bytes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": {"a": "in64"}}, r"types\.a: there is no type 'in64'; .*did you mean 'int64'"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
        ({"encoding": "base64"}, "there is no encoding 'base64'"),
        ({"block_bytes": 0}, "block_bytes"),
        ({"batch_records": 0}, "batch_records"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        File(path="x", **options)


@pytest.mark.parametrize("options", [{"delimiter": ";;"}, {"delimiter": "\n"}, {"delimiter": "€"}, {"quote": "''"}])
def test_wrong_dialects_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is one ASCII letter"):
        Csv(**options)


def test_the_unopened_connector_pickles(tmp_path: Path) -> None:
    connector = File(path=tmp_path, types={"a": "int64"})
    assert pickle.loads(pickle.dumps(connector)) == connector
