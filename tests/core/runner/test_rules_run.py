"""Rules of the run (13 to 17): leases, endings, accounts and flags, where something goes wrong in between."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, update

import muxly
from muxly._runner.events import EventLog
from muxly._runner.options import Replay
from muxly._runner.session import Home, open_session
from muxly.pipeline import RunResult
from muxly.spool import FolderSpool
from muxly.store import ledger as leases
from muxly.store import plans, retention, runs
from muxly.store.schema.tables import route_positions
from muxly.store.schema.tables import segments as segments_table
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import FAST, every, ids, pipeline
from tests.core.runner.test_run_faults import DOWN


def steal(home: Path) -> None:
    """Take the lease, as another machine does that believes this one to be dead."""
    engine = Home(folder=home).engine()
    spool = FolderSpool(home / "spool" / "daily").identity()
    leases.acquire_lease(engine, "daily", "OTHER", holder="another process", spool=spool)
    engine.dispose()


@pytest.mark.parametrize("method", ["open", "streams", "plan", "read", "close"])
def test_lease_that_is_lost_in_a_phase_of_reading_ends_the_run_as_failed(tmp_path: Path, method: str) -> None:
    class Robbed(FakeConnector):
        def _rob(self, name: str) -> None:
            if name == method:
                steal(tmp_path)

        def open(self, run: muxly.Run) -> None:
            super().open(run)
            self._rob("open")

        def streams(self) -> list[muxly.Stream]:
            self._rob("streams")
            return super().streams()

        def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
            self._rob("plan")
            return super().plan(stream, cursor)

        def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Any:
            self._rob("read")
            yield from super().read(stream, partition, cursor)

        def close(self) -> None:
            super().close()
            self._rob("close")

    result = muxly.run(pipeline(Robbed(records=100), CollectingRouter()), home=tmp_path)
    assert result.state == "failed"
    assert "taken over" in str(result.error)


@pytest.mark.parametrize("method", ["open", "begin", "deliver", "complete", "close"])
def test_lease_that_is_lost_in_a_phase_of_delivering_ends_the_run_as_failed(tmp_path: Path, method: str) -> None:
    class Robbed(CollectingRouter):
        def _rob(self, name: str) -> None:
            if name == method:
                steal(tmp_path)

        def open(self, run: muxly.Run) -> None:
            super().open(run)
            self._rob("open")

        def begin(self, stream: muxly.Stream, generation: int) -> None:
            super().begin(stream, generation)
            self._rob("begin")

        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            self._rob("deliver")
            return super().deliver(delivery)

        def complete(self, stream: muxly.Stream, generation: int) -> None:
            super().complete(stream, generation)
            self._rob("complete")

        def close(self) -> None:
            super().close()
            self._rob("close")

    full = {"numbers": {"read": "full"}}
    result = muxly.run(pipeline(FakeConnector(records=100), Robbed(), streams=full), home=tmp_path)
    assert result.state == "failed"
    assert "taken over" in str(result.error)


def test_lease_that_is_lost_before_the_cursors_are_cleared_clears_none(tmp_path: Path) -> None:
    source = FakeConnector(records=100)
    muxly.run(pipeline(source, ChaosRouter(faults=DOWN)), home=tmp_path)

    class Robbed(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            steal(tmp_path)
            return super().deliver(delivery)

    result = muxly.run(pipeline(source, Robbed()), home=tmp_path, full_refresh=True)
    assert result.state == "failed"
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert plans.stream_cursor(session.ledger, "numbers") is not None


def test_stop_during_full_refresh_clears_no_cursor(tmp_path: Path) -> None:
    source, stop = FakeConnector(records=100), threading.Event()
    muxly.run(pipeline(source, ChaosRouter(faults=DOWN)), home=tmp_path)

    class Stops(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            stop.set()
            return super().deliver(delivery)

    result = muxly.run(pipeline(source, Stops()), home=tmp_path, full_refresh=True, stop=stop)
    assert result.state == "stopped"
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert plans.stream_cursor(session.ledger, "numbers") is not None


@pytest.mark.parametrize("method", ["open", "streams"])
def test_stop_while_the_source_is_waited_for_ends_the_run_as_stopped(tmp_path: Path, method: str) -> None:
    stop = threading.Event()
    away = Fault(method=method, action="RetryableError", times=0, retry_after=60)
    source = FakeConnector(faults=[away])
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    result = muxly.run(pipeline(source, CollectingRouter()), home=tmp_path, stop=stop)
    timer.join()
    assert result.state == "stopped"


def test_stop_during_retries_of_a_delivery_ends_the_run(tmp_path: Path) -> None:
    stop = threading.Event()
    router = ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", times=0, retry_after=60)])
    chosen = pipeline(FakeConnector(records=10), router)
    watch = threading.Timer(30, stop.set)
    watch.start()
    threading.Thread(target=lambda: _stop_when_tried(router, stop), daemon=True).start()
    result = muxly.run(chosen, home=tmp_path, stop=stop)
    watch.cancel()
    assert (result.state, result.routes["r0"].pending) == ("stopped", 10)


def _stop_when_tried(router: ChaosRouter, stop: threading.Event) -> None:
    while not stop.is_set():
        if any(call.method == "deliver" for call in router.calls):
            stop.set()
        time.sleep(0.05)


def test_source_that_is_away_leaves_the_backlog_to_its_routes(tmp_path: Path) -> None:
    muxly.run(pipeline(FakeConnector(records=100), ChaosRouter(faults=DOWN)), home=tmp_path)
    router = CollectingRouter()
    away = FakeConnector(records=100, faults=[Fault(method="streams", action="RetryableError", times=0)])
    result = muxly.run(pipeline(away, router), home=tmp_path)
    assert (result.state, ids(router)) == ("failed", every(100))


@pytest.mark.parametrize("method", ["open", "streams", "close"])
def test_source_that_hangs_is_left_behind(tmp_path: Path, method: str) -> None:
    muxly.run(pipeline(FakeConnector(records=100), ChaosRouter(faults=DOWN)), home=tmp_path)
    router = CollectingRouter()
    hangs = FakeConnector(records=100, faults=[Fault(method=method, action="hang", seconds=20)])
    result = muxly.run(pipeline(hangs, router, stall_seconds=2), home=tmp_path)
    assert ids(router) == every(100)
    assert result.state == ("succeeded" if method == "close" else "failed")
    assert method == "close" or "did not return" in str(result.error)


def test_run_that_raises_tells_its_end(tmp_path: Path) -> None:
    """An alert on failed runs must come also for those that could not begin."""
    log = EventLog()
    muxly.run(pipeline(FakeConnector(records=100), ChaosRouter(faults=DOWN)), home=tmp_path)
    other = muxly.Pipeline("daily", FakeConnector(), routes=[muxly.Route("other", CollectingRouter(), retry=FAST)])
    with pytest.raises(muxly.ConfigurationError, match="is no longer in the pipeline 'daily'"):
        muxly.run(other, home=tmp_path, observers=[log])
    assert [record["event"] for record in log.records] == ["started", "failed"]
    assert "is no longer in the pipeline" in str(log.records[1]["message"])


def test_error_that_ends_a_run_is_not_hidden_by_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: Any, **named: Any) -> None:
        raise muxly.errors.StoreError("the store is away")

    monkeypatch.setattr(runs, "finish", away)
    router = CollectingRouter()
    wrong = pipeline(FakeConnector(), router, streams={"nubmers": {}})
    with pytest.raises(muxly.ConfigurationError, match='did you mean "numbers"'):
        muxly.run(wrong, home=tmp_path)


def test_spool_that_cannot_be_pruned_does_not_hide_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: FolderSpool, names: Any) -> None:
        if names:
            raise muxly.errors.SpoolError("cannot delete from the spool")

    router = CollectingRouter()
    with monkeypatch.context() as patch:
        patch.setattr(FolderSpool, "delete", refused)
        chosen = pipeline(FakeConnector(records=100), router, retention_bytes=0)
        result = muxly.run(chosen, home=tmp_path)
    assert result.state == "succeeded"
    assert [notice.code for notice in result.notices] == ["prune_failed"]


@pytest.mark.parametrize(("how", "said"), [("raises", "raised OSError: the port is busy"), ("hangs", "did not end")])
def test_shared_object_that_does_not_close_does_not_spoil_the_run(tmp_path: Path, how: str, said: str) -> None:
    class Server:
        def close(self) -> None:
            if how == "raises":
                raise OSError("the port is busy")
            time.sleep(5)

    class OpenedRouter(CollectingRouter):
        def open(self, run: muxly.Run) -> None:
            super().open(run)
            run.shared(f"server {tmp_path}", Server)

    chosen = pipeline(FakeConnector(records=10), OpenedRouter(), stall_seconds=1.0)
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, result.routes["r0"].delivered) == ("succeeded", 10)
    assert [
        notice.message.startswith("closing the shared objects") and said in notice.message for notice in result.notices
    ] == [True]


def test_store_that_is_away_for_a_moment_at_the_end_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = runs.finish, [1]

    def finish(*given: Any, **named: Any) -> None:
        if away:
            away.pop()
            raise muxly.RetryableError("the store is locked by another process")
        real(*given, **named)

    def locked(*given: Any, **named: Any) -> list[str]:
        raise muxly.RetryableError("the store is locked by another process")

    monkeypatch.setattr(runs, "finish", finish)
    monkeypatch.setattr(retention, "prune", locked)
    result = muxly.run(pipeline(FakeConnector(records=10), CollectingRouter()), home=tmp_path)
    assert (result.state, [notice.code for notice in result.notices]) == ("succeeded", ["prune_failed"])
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert [one["state"] for one in runs.recent(session.ledger)] == ["running", "succeeded"]


def test_limit_looks_only_at_the_routes_that_deliver(tmp_path: Path) -> None:
    good, whole = CollectingRouter(), CollectingRouter()
    routes = [
        muxly.Route("some", good, mode="upsert", retry=FAST),
        muxly.Route("whole", whole, mode="replace", retry=FAST),
    ]
    chosen = muxly.Pipeline("daily", FakeConnector(), routes=routes, streams={"*": {"read": "full"}})
    with pytest.raises(muxly.ConfigurationError, match="route 'whole' would replace all records"):
        muxly.run(chosen, home=tmp_path, limit=10)
    assert muxly.run(chosen, home=tmp_path, limit=10, routes=["some"]).routes["some"].delivered == 10
    assert whole.records() == []


@pytest.mark.parametrize("flag", [{"limit": 5}, {"dry_run": True}])
def test_replay_is_not_rehearsed(tmp_path: Path, flag: dict[str, Any]) -> None:
    chosen = pipeline(FakeConnector(), CollectingRouter())
    with pytest.raises(muxly.ConfigurationError, match="a replay delivers from the spool"):
        muxly.run(chosen, home=tmp_path, replay=Replay(route="r0"), **flag)


@pytest.mark.parametrize("flag", [{"limit": 5}, {"dry_run": True}])
def test_rehearsal_leaves_nothing_in_the_home(tmp_path: Path, flag: dict[str, Any]) -> None:
    router = CollectingRouter()
    muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path, **flag)
    assert list(tmp_path.iterdir()) == []
    assert len(router.records()) == flag.get("limit", 0)


def test_full_refresh_with_a_route_that_is_down_keeps_its_backlog_and_balances(tmp_path: Path) -> None:
    source, good = FakeConnector(records=100), CollectingRouter()
    down = ChaosRouter(faults=[Fault(method="deliver", action="RouteError", times=2)])
    chosen = pipeline(source, good, down)
    muxly.run(chosen, home=tmp_path)
    refreshed = muxly.run(chosen, home=tmp_path, full_refresh=True)
    assert all(route.balanced for route in refreshed.routes.values())
    assert refreshed.routes["r1"].pending == 200
    healed = muxly.run(chosen, home=tmp_path)
    assert (healed.state, ids(down), ids(good)) == ("succeeded", every(100), every(100))


def test_account_is_one_look_at_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was left behind may still acknowledge while the result is made."""
    from muxly._runner import result as results
    from muxly.store import accounts

    looks: list[object] = []
    real_sums, real_pending = accounts.of_run_in, accounts.pending_in

    class Sums:
        @staticmethod
        def of_run_in(connection: Any, ledger: Any) -> Any:
            looks.append(connection)
            return real_sums(connection, ledger)

        @staticmethod
        def pending_in(connection: Any, ledger: Any) -> Any:
            looks.append(connection)
            return real_pending(connection, ledger)

    monkeypatch.setattr(results, "accounts", Sums)
    muxly.run(pipeline(FakeConnector(records=10), CollectingRouter()), home=tmp_path)
    assert len(looks) == 2
    assert looks[0] is looks[1]


def test_no_thread_is_left_after_a_run(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    faults = [Fault(method="read", action="StreamError", at=3)]
    bad = ChaosRouter(faults=[Fault(method="open", action="RouteError")])
    source = FakeConnector(records=1000, partitions=3, faults=faults)
    for _ in range(3):
        muxly.run(pipeline(source, bad, CollectingRouter()), home=tmp_path)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


def test_two_runs_in_one_process_refuse_each_other(tmp_path: Path) -> None:
    inside: list[BaseException] = []

    class Again(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            try:
                muxly.run(pipeline(FakeConnector(records=5), CollectingRouter()), home=tmp_path)
            except muxly.LeaseHeldError as error:
                inside.append(error)
            return super().deliver(delivery)

    assert muxly.run(pipeline(FakeConnector(records=5), Again()), home=tmp_path).state == "succeeded"
    assert "is already being run by process" in str(inside[0])


def test_events_that_cannot_be_delivered_do_not_spoil_the_run(tmp_path: Path) -> None:
    from muxly._runner.events import deliver_events, finished_events

    log = EventLog()
    result = muxly.run(pipeline(FakeConnector(records=5), CollectingRouter()), home=tmp_path, observers=[log])
    wrong = {"alerts": muxly.Route("alerts", CollectingRouter(), mode="replace")}
    with pytest.raises(muxly.ConfigurationError, match="mode replace"):
        deliver_events(log, "daily", wrong, Home(folder=tmp_path))
    told = finished_events(log, "daily", wrong, Home(folder=tmp_path))
    assert [notice.code for notice in told] == ["events_failed"]
    assert isinstance(result, RunResult)


def test_many_files_are_pruned_with_few_parameters_in_a_statement(tmp_path: Path, store_url: str) -> None:
    """A database takes no more than 32,766, or 65,535, of them."""
    home, most = Home(folder=tmp_path, store=store_url), [0]

    def count(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        most[0] = max(most[0], len(parameters))

    muxly.run(pipeline(FakeConnector(records=1), CollectingRouter()), home=tmp_path, store=store_url)
    with open_session(home, "daily", command="test") as session:
        ledger = session.ledger
        columns = segments_table.c
        with ledger.write() as connection:
            for power in range(12):  # doubles them
                step = 2**power
                shifted = {"position": columns.position + step, "key": columns.key + f"-{step}"}
                chosen = [
                    shifted.get(one.name, one) if one.name != "file" else columns.file + f"-{step}" for one in columns
                ]
                connection.execute(segments_table.insert().from_select(list(columns), select(*chosen)))
            connection.execute(update(route_positions).values(position=2**12))
        event.listen(ledger.engine, "before_cursor_execute", count)
        names = retention.prune(ledger, keep_seconds=1e9, keep_bytes=0)
    assert len(names) == 2**12
    assert 100 < most[0] < 2**11
