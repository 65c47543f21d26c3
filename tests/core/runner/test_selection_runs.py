"""Columns and filters over several runs: what is not there is told before records are left out, and can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly.pipeline import RunResult
from muxly_testing import CollectingRouter


class Orders(muxly.Connector):
    """Three orders; of these the columns that somebody wants, as a connector of files has it."""

    since: int = 1

    def streams(self) -> list[muxly.Stream]:
        return [muxly.Stream("numbers", primary_key="id")]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        whole = [{"id": n, "amount": f"{n}.5" if n < 3 else "three"} for n in range(self.since, self.since + 3)]
        wanted = stream.columns
        yield muxly.Batch([{name: one[name] for name in one if wanted is None or name in wanted} for one in whole])


def run(home: Path, router: CollectingRouter, since: int = 1, **route: Any) -> RunResult:
    pipeline = muxly.Pipeline("shop", Orders(since=since), routes=[muxly.Route("lake", router, mode="append", **route)])
    return muxly.run(pipeline, home=home)


def test_filter_that_names_no_column_keeps_its_records_until_it_is_mended(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = run(tmp_path, router, where="amout = '1.5'")
    lake = result.routes["lake"]
    assert (result.state, lake.filtered, lake.pending) == ("partial", 0, 3)
    assert "there is no column 'amout'; did you mean 'amount'?" in (lake.error or "")
    result = run(tmp_path, router, where="amount = '1.5'")
    assert result.routes["lake"].pending == 0
    assert {one["id"] for one in router.records()} == {1}


def test_filter_that_fails_on_a_value_can_be_mended(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = run(tmp_path, router, where="cast(amount as double) > 2")
    assert "where: 'cast(amount as double) > 2' failed" in (result.routes["lake"].error or "")
    result = run(tmp_path, router, where="try_cast(amount as double) > 2")
    assert result.routes["lake"].pending == 0
    assert {one["id"] for one in router.records()} == {2}


def test_column_that_nobody_asked_for_before_can_be_asked_for(tmp_path: Path) -> None:
    router = CollectingRouter()
    run(tmp_path, router, columns=muxly.Columns(include=["id"])).raise_for_status()
    run(tmp_path, router, since=4, columns=muxly.Columns(include=["id", "amount"])).raise_for_status()
    assert {"id": 4, "amount": "three"} in router.records()
    run(tmp_path, router, since=7, columns=muxly.Columns(exclude=["amount"])).raise_for_status()


@pytest.mark.parametrize("route", [{"where": "amount > ''"}, {"columns": muxly.Columns(exclude=["amount"])}])
def test_column_that_was_never_read_is_not_taken_for_a_mistake(tmp_path: Path, route: dict[str, Any]) -> None:
    router = CollectingRouter()
    run(tmp_path, router, columns=muxly.Columns(include=["id"])).raise_for_status()
    run(tmp_path, router, since=4, **route).raise_for_status()
    assert len(router.records()) == 6


def test_column_that_is_not_there_is_refused_when_all_are_known(tmp_path: Path) -> None:
    router = CollectingRouter()
    run(tmp_path, router).raise_for_status()
    with pytest.raises(muxly.ConfigurationError, match=r"there is no column 'amuont'; did you mean 'amount'\?"):
        run(tmp_path, router, columns=muxly.Columns(include=["id", "amuont"]))


def test_column_that_is_included_and_not_there_is_told_once(tmp_path: Path) -> None:
    router = CollectingRouter()
    columns = muxly.Columns(include=["id", "amuont"])
    for since in (1, 4):
        result = run(tmp_path, router, since=since, columns=columns)
        assert result.state == "succeeded"
        (notice,) = result.notices
        assert notice.code == "column_missing"
        assert "includes the column 'amuont', which no record read so far has had" in notice.message
