"""Runs when something is broken: segments, disks, leases, budgets, stores."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly._runner.options import Replay
from muxly._runner.session import Home, open_session
from muxly.spool import FolderSpool
from muxly.store import dead_letters, ledger, plans, positions, retention, runs
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import FAST, every, ids, pipeline, reads

DOWN = [Fault(method="deliver", action="RouteError", times=0)]


def spool_files(home: Path) -> list[Path]:
    """The published files of the pipeline."""
    return sorted((home / "spool" / "daily").glob("*.arrow"))


def is_draft(file: int) -> bool:
    """Whether a file descriptor is a spool file that is being written."""
    name = str(Path(f"/proc/self/fd/{file}").readlink())
    return name.endswith(".tmp") and "spool" in name


def backlog(home: Path, records: int = 300) -> tuple[FakeConnector, muxly.Pipeline]:
    """A home whose only route has a backlog, and the pipeline with the route mended."""
    source = FakeConnector(records=records, token=str(home))
    muxly.run(pipeline(source, ChaosRouter(faults=DOWN)), home=home)
    return source, pipeline(source, CollectingRouter(token=f"mended {home}"))


def test_flipped_bit_is_found_quarantined_and_named(tmp_path: Path) -> None:
    _source, mended = backlog(tmp_path)
    (file,) = spool_files(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = muxly.run(mended, home=tmp_path)
    assert result.state == "partial"
    assert "numbers at position 1 differs from what was sealed" in str(result.routes["r0"].error)
    assert result.routes["r0"].quarantined == 300
    assert result.routes["r0"].balanced
    again = muxly.run(mended, home=tmp_path)
    assert again.state != "failed"
    assert again.routes["r0"].delivered == 0


def test_missing_spool_file_is_quarantined_and_can_be_dropped(tmp_path: Path) -> None:
    _source, mended = backlog(tmp_path)
    spool_files(tmp_path)[0].unlink()
    assert muxly.run(mended, home=tmp_path).routes["r0"].quarantined == 300
    with open_session(Home(folder=tmp_path), "daily", command="segments drop") as session:
        dropped, _files = retention.drop(session.ledger, "numbers", [1])
    assert dropped == 300
    grown = pipeline(FakeConnector(records=400), CollectingRouter(token=f"mended {tmp_path}"))
    result = muxly.run(grown, home=tmp_path)
    assert (result.state, result.routes["r0"].delivered) == ("succeeded", 100)


def test_corrupt_segment_of_one_stream_does_not_block_the_other(tmp_path: Path) -> None:
    source = FakeConnector(names=["one", "two"], records=50)
    broken = pipeline(source, ChaosRouter(faults=DOWN), parallel=1)
    muxly.run(broken, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        first = retention.log(session.ledger, "one")[0]
        retention.quarantine(session.ledger, first)
    router = CollectingRouter()
    result = muxly.run(pipeline(source, router), home=tmp_path)
    assert len(router.records("two")) == 50
    assert router.records("one") == []
    assert result.state == "partial"


def test_full_spool_stops_reading_and_moves_no_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(file: int, content: Any) -> int:
        if is_draft(file):
            raise OSError(28, "No space left on device")
        return real(file, content)

    source, router = FakeConnector(records=300), CollectingRouter()
    FolderSpool(tmp_path / "spool" / "daily").identity()
    with monkeypatch.context() as patch:
        patch.setattr("muxly.spool.folder.os.write", full)
        result = muxly.run(pipeline(source, router), home=tmp_path)
    assert result.state == "partial"
    assert "No space left on device" in str(result.error)
    assert "free some space" in str(result.error)
    assert muxly.run(pipeline(source, router), home=tmp_path).state == "succeeded"
    assert ids(router) == every(300)


def test_failed_fsync_is_not_believed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = os.fsync, [True]

    def fsync(file: int) -> None:
        if failures and is_draft(file):
            failures.pop()
            raise OSError(5, "Input/output error")
        real(file)

    router, source = CollectingRouter(), FakeConnector(records=300)
    FolderSpool(tmp_path / "spool" / "daily").identity()
    monkeypatch.setattr("muxly.spool.folder.os.fsync", fsync)
    assert muxly.run(pipeline(source, router), home=tmp_path).state == "partial"
    assert router.records() == []
    assert muxly.run(pipeline(source, router), home=tmp_path).state == "succeeded"
    assert ids(router) == every(300)


def test_lost_lease_stops_the_run_and_writes_nothing_more(tmp_path: Path) -> None:
    stolen = threading.Event()

    class Thief(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            engine = Home(folder=tmp_path).engine()
            spool = FolderSpool(tmp_path / "spool" / "daily").identity()
            ledger.acquire_lease(engine, "daily", "OTHER", holder="another process", spool=spool)
            engine.dispose()
            stolen.set()
            return super().deliver(delivery)

    result = muxly.run(pipeline(FakeConnector(records=100), Thief()), home=tmp_path)
    assert stolen.is_set()
    assert result.state == "failed"
    assert "taken over" in str(result.error)
    assert result.routes["r0"].pending == 100


def test_reader_waits_until_the_route_makes_room(tmp_path: Path) -> None:
    router, source = CollectingRouter(), FakeConnector(records=3000)
    small = pipeline(source, router, segment_bytes=2000, spool_bytes=8000)
    result = muxly.run(small, home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert ids(router) == every(3000)


def test_dead_route_ends_reading_when_the_spool_is_full(tmp_path: Path) -> None:
    source = FakeConnector(records=3000)
    small = pipeline(source, ChaosRouter(faults=DOWN), segment_bytes=2000, spool_bytes=8000)
    result = muxly.run(small, home=tmp_path)
    assert result.state == "partial"
    assert 0 < result.streams["numbers"].sealed < 3000
    assert any(notice.code == "quota" and "backlog: detach" in notice.message for notice in result.notices)


def test_dead_route_with_backlog_detach_lets_reading_go_on(tmp_path: Path) -> None:
    source, good = FakeConnector(records=3000), CollectingRouter()
    routes = [
        muxly.Route("dead", ChaosRouter(faults=DOWN), backlog="detach", required=False, retry=FAST),
        muxly.Route("good", good, retry=FAST),
    ]
    chosen = muxly.Pipeline("daily", source, routes=routes, segment_bytes=2000, spool_bytes=8000)
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert ids(good) == every(3000)
    assert result.routes["dead"].balanced
    assert result.routes["dead"].dropped == 3000


def test_retention_prunes_what_every_route_has(tmp_path: Path) -> None:
    chosen = pipeline(FakeConnector(records=300), CollectingRouter(), retention_seconds=0)
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert spool_files(tmp_path) == []


def test_replay_fills_a_new_route_without_reading_the_source(tmp_path: Path) -> None:
    source, first, late = FakeConnector(records=300), CollectingRouter(), CollectingRouter()
    muxly.run(pipeline(source, first), home=tmp_path)
    both = pipeline(source, first, late)
    result = muxly.run(both, home=tmp_path)
    assert [notice.code for notice in result.notices] == ["route_added"]
    assert late.records() == []
    before = reads(source)
    replayed = muxly.run(both, home=tmp_path, replay=Replay(route="r1"))
    assert (replayed.state, replayed.routes["r1"].replayed) == ("succeeded", 300)
    assert ids(late) == every(300)
    assert len(first.ids) == 1
    assert reads(source) == before


def test_replay_names_the_first_position_that_is_gone(tmp_path: Path) -> None:
    source, first, late = FakeConnector(records=300), CollectingRouter(), CollectingRouter()
    muxly.run(pipeline(source, first, retention_seconds=0), home=tmp_path)
    both = pipeline(source, first, late)
    with pytest.raises(muxly.ConfigurationError, match="no longer holds position 1"):
        muxly.run(both, home=tmp_path, replay=Replay(route="r1"))
    assert muxly.run(both, home=tmp_path, replay=Replay(route="r1", partial=True)).routes["r1"].replayed == 0


def test_dead_letters_are_delivered_again_when_the_destination_takes_them(tmp_path: Path) -> None:
    strict = ChaosRouter(reject=[7, 8], token=f"strict {tmp_path}")
    muxly.run(pipeline(FakeConnector(records=20), strict, route={"max_rejected": 2}), home=tmp_path)
    lenient = ChaosRouter(token=f"strict {tmp_path}")
    mended = pipeline(FakeConnector(records=20), lenient)
    result = muxly.run(mended, home=tmp_path, replay=Replay(route="r0", dead_letters=True))
    assert (result.state, result.error) == ("succeeded", None)
    assert (result.routes["r0"].replayed, result.routes["r0"].delivered) == (2, 2)
    assert ids(lenient) == every(20)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert dead_letters.waiting(session.ledger) == []


def test_state_set_reads_again_from_there(tmp_path: Path) -> None:
    source, router = FakeConnector(records=300), CollectingRouter()
    chosen = pipeline(source, router, route={"mode": "append"})
    muxly.run(chosen, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="state set") as session:
        plans.set_cursor(session.ledger, "numbers", None)
    muxly.run(chosen, home=tmp_path)
    assert len(router.records()) == 600


def test_renamed_route_keeps_its_position_and_backlog(tmp_path: Path) -> None:
    source, router = FakeConnector(records=100), CollectingRouter()
    muxly.run(pipeline(source, ChaosRouter(faults=DOWN)), home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="routes rename") as session:
        positions.rename(session.ledger, "r0", "lake")
    renamed = muxly.Pipeline("daily", source, routes=[muxly.Route("lake", router)])
    assert muxly.run(renamed, home=tmp_path).routes["lake"].delivered == 100
    assert ids(router) == every(100)


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    chosen = pipeline(FakeConnector(records=10), CollectingRouter())
    muxly.run(chosen, home=tmp_path)
    folder = tmp_path / "spool" / "daily"
    spool = FolderSpool(folder)
    stray = spool.put(spool.draft(0))
    draft = spool.draft(0)
    muxly.run(chosen, home=tmp_path)
    assert not (folder / stray).exists()
    assert not draft.path.exists()
    draft.discard()
    assert len(spool_files(tmp_path)) == 1


def test_runs_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    source, router = FakeConnector(records=500, partitions=3), CollectingRouter()
    chosen = pipeline(source, router)
    assert muxly.run(chosen, home=tmp_path, store=postgres_url).state == "succeeded"
    assert muxly.run(chosen, home=tmp_path, store=postgres_url).routes["r0"].delivered == 0
    assert ids(router) == every(500)


def test_where_and_columns_select_what_a_route_delivers(tmp_path: Path) -> None:
    router = CollectingRouter()
    chosen = muxly.Route(
        "few",
        router,
        where="id % 10 = 3",
        columns={"include": ["id", "name"], "rename": {"name": "label"}},
        mode="append",
    )
    result = muxly.run(muxly.Pipeline("daily", FakeConnector(records=100), routes=[chosen]), home=tmp_path)
    assert (result.routes["few"].delivered, result.routes["few"].filtered) == (10, 90)
    assert result.routes["few"].balanced
    assert [set(record) for record in router.records()] == [{"id", "label"}] * 10


def test_wrong_filters_and_columns_are_found_before_reading_all_at_once(tmp_path: Path) -> None:
    source = FakeConnector(records=10)
    muxly.run(pipeline(source, CollectingRouter()), home=tmp_path)
    bad = muxly.Route("r0", CollectingRouter(), where="idd = 3", columns={"exclude": ["nam"]}, mode="append")
    before = reads(source)
    with pytest.raises(muxly.ConfigurationError, match=r"(?s)nam.*idd"):
        muxly.run(muxly.Pipeline("daily", source, routes=[bad]), home=tmp_path)
    assert reads(source) == before


def test_dead_letters_hold_the_rejected_record_itself(tmp_path: Path) -> None:
    import pyarrow as pa

    router = ChaosRouter(reject=[30], reject_by="error")
    chosen = pipeline(FakeConnector(records=100), router, route={"max_rejected": 1, "where": "id >= 20"})
    muxly.run(chosen, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        (letter,) = dead_letters.waiting(session.ledger)
    assert letter.letter.record is not None
    assert pa.ipc.open_stream(letter.letter.record).read_all().to_pylist()[0]["id"] == 30
    assert (letter.letter.position, letter.letter.number) == (1, 30)


def test_pending_records_in_another_spool_are_not_taken_for_lost(tmp_path: Path, postgres_url: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    muxly.run(pipeline(FakeConnector(records=50), ChaosRouter(faults=DOWN)), home=here, store=postgres_url)
    router = CollectingRouter()
    mended = pipeline(FakeConnector(records=50), router)
    with pytest.raises(muxly.errors.StoreError, match="are pending in another spool"):
        muxly.run(mended, home=there, store=postgres_url)
    moved = tmp_path / "moved"
    here.rename(moved)
    assert muxly.run(mended, home=moved, store=postgres_url).state == "succeeded"
    assert ids(router) == every(50)


def test_route_that_leaves_a_stream_with_a_backlog_refuses_the_run(tmp_path: Path) -> None:
    source = FakeConnector(names=["one", "two"], records=20)
    muxly.run(pipeline(source, ChaosRouter(faults=DOWN)), home=tmp_path)
    narrowed = pipeline(source, CollectingRouter(), route={"streams": ["two"]})
    with pytest.raises(muxly.ConfigurationError, match="muxly routes discard r0 --stream one"):
        muxly.run(narrowed, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="routes discard") as session:
        assert positions.forget(session.ledger, "r0", ["one"]) == 20
    assert muxly.run(narrowed, home=tmp_path).routes["r0"].delivered == 20


def test_route_that_leaves_a_delivered_stream_gets_no_more_of_it(tmp_path: Path) -> None:
    router = CollectingRouter(token=f"leaves {tmp_path}")
    muxly.run(pipeline(FakeConnector(names=["one", "two"], records=20), router), home=tmp_path)
    more = FakeConnector(names=["one", "two"], records=30)
    result = muxly.run(pipeline(more, router, route={"streams": ["two"]}), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert (len(router.records("one")), len(router.records("two"))) == (20, 30)


def test_old_runs_are_forgotten(tmp_path: Path) -> None:
    chosen = pipeline(FakeConnector(records=5), CollectingRouter())
    for _ in range(4):
        muxly.run(chosen, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        runs.forget_old(session.ledger, keep=2)
        assert len(runs.recent(session.ledger)) == 2
