"""One opened router: a connection, and a transaction for each delivery."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

import muxly
from muxly_routers._sql import dialects, modes, names
from muxly_routers._sql.deliveries import Deliveries, Owner
from muxly_routers._sql.dialect import Place, Session, Waits
from muxly_routers._sql.failures import StaleError, typed
from muxly_routers._sql.feed import Feed
from muxly_routers._sql.generations import Generations
from muxly_routers._sql.tables import Shape, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import URL

    from muxly_routers._sql.feed import Mapped

__all__ = ["Output", "Settings"]

T = TypeVar("T")

_TURN_SECONDS = 0.2
# Several that make the same tables at one moment meet at most as often as there are things to make.
_LOOKS = 3

_APPLY = {"append": modes.append, "replace": modes.append, "upsert": modes.upsert, "overwrite": modes.overwrite}


@frozen(kw_only=True)
class Settings:
    """The router's options, ready to use; see ``muxly_routers.sql.Sql`` for what they mean."""

    url: URL
    fast: bool
    schema: str | None
    table: str
    hard: bool
    indexes: Mapping[str, Sequence[Sequence[str]]]
    primary_keys: bool
    remember_seconds: float
    connect_seconds: int
    lock_seconds: int


@frozen
class _Connected:
    """A session, and what it knows."""

    session: Session
    tables: Tables


class Output:
    """Delivers to the tables of one database.

    Args:
        settings: Of the router.
        run: For whom.
    """

    def __init__(self, settings: Settings, run: muxly.Run) -> None:
        self._settings, self._run = settings, run
        self._dialect = dialects.dialect_of(settings.url, fast=settings.fast)
        self._where = dialects.shown(settings.url)
        self._connected: _Connected | None = None
        self._pruned = set[str]()
        self._feed: Feed | None = None

    def close(self) -> None:
        """Disconnect; a transaction that is open is taken back."""
        connected, self._connected = self._connected, None
        if connected is not None:
            with suppress(Exception):
                connected.session.close()

    def check(self) -> Iterable[muxly.Notice]:
        """What a person should know before the first delivery; reads only."""
        if not self._run.guarded and (missing := self._dialect.not_there(self._settings.url)):
            yield muxly.Notice("database_missing", f"{self._where}: {missing}", level="info")
            return
        try:
            with typed(self._dialect, self._where):
                session = self._connect().session
                session.columns(Place(self._fixed_schema(), "_muxly_deliveries"))  # a file may be no database
                version, allowed = session.version(), session.may_create(self._fixed_schema())
        except (muxly.RetryableError, muxly.RouteError) as error:
            yield muxly.Notice("database_unreachable", str(error), level="error")
            return
        yield muxly.Notice("database", f"{self._where}: {version}", level="info")
        if not allowed:
            message = f"{self._where}: this user may not create tables; make them beforehand, or give it the right"
            yield muxly.Notice("may_not_create", message)

    def _fixed_schema(self) -> str | None:
        schema = self._settings.schema
        return None if schema is None or "{" in schema else schema

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Records, id and receipt, in one transaction."""
        return self._tried(lambda: self._deliver(delivery))

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Drop what older generations of the stream left."""
        self._tried(lambda: self._begin(stream, generation))

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Make a generation visible."""
        self._tried(lambda: self._complete(stream, generation))

    def _tried(self, attempt: Callable[[], T]) -> T:
        """Try, and again if a table turned out to be another than it was."""
        for _ in range(_LOOKS - 1):
            with suppress(StaleError):
                return self._answered(attempt)
        try:
            return self._answered(attempt)
        except StaleError as error:
            raise muxly.StreamError(
                f"{error}; the table is not as this router makes it: change it back, or rename it"
            ) from None

    def _answered(self, attempt: Callable[[], T]) -> T:
        """An attempt whose errors the runner knows; after one, nothing is open or believed any more."""
        try:
            with typed(self._dialect, self._where), self._turn():
                answer = attempt()
                self._feed = None
                return answer
        except BaseException:
            self.close()
            feed, self._feed = self._feed, None
            if feed is not None and feed.error is not None:
                raise feed.error from None
            raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The turn to write, where a database lets only one of this process's routers write at a time."""
        if not self._dialect.one_writer:
            yield
            return
        lock = self._run.shared(f"sql:{self._where}", threading.Lock)
        while not lock.acquire(timeout=_TURN_SECONDS):
            self._run.sleep(0)
        try:
            yield
        finally:
            lock.release()

    def _connect(self) -> _Connected:
        if self._connected is None:
            waits = Waits(
                connect_seconds=self._settings.connect_seconds,
                lock_seconds=self._settings.lock_seconds,
                sleep=self._run.sleep,
            )
            session = self._dialect.open(self._url(), waits)
            for remark in session.remarks():
                self._run.notice(remark)
            self._connected = _Connected(session, Tables(session, self._dialect))
        return self._connected

    def _url(self) -> URL:
        if not self._run.guarded:
            return self._settings.url
        from muxly_routers._sql.guarded import allowed  # brings what else only webhooks need

        return allowed(self._settings.url)

    def _owner(self, stream: muxly.Stream) -> Owner:
        return Owner(self._run.pipeline, self._run.route or "", stream.name)

    def _target(self, stream: muxly.Stream) -> Place:
        given = {"stream": stream.name, "route": self._run.route or "", "pipeline": self._run.pipeline}
        template = self._settings.schema
        schema = None if template is None else names.fit(names.rendered(template, given), self._dialect)
        return self._connect().tables.place(schema, names.rendered(self._settings.table, given))

    def _memory(self, target: Place) -> Deliveries:
        one = self._connect()
        return Deliveries(one.session, self._dialect, one.tables, target.schema)

    def _generations(self, stream: muxly.Stream) -> Generations:
        one, target = self._connect(), self._target(stream)
        return Generations(
            session=one.session,
            dialect=self._dialect,
            tables=one.tables,
            memory=self._memory(target),
            owner=self._owner(stream),
            target=target,
        )

    @contextmanager
    def _transaction(self, prepare: Callable[[], T]) -> Iterator[T]:
        """A transaction, which makes tables too where the database can take that back."""
        session = self._connect().session
        prepared = None if self._dialect.transactional else prepare()
        session.begin()
        yield prepare() if prepared is None else prepared
        session.commit()

    def _begin(self, stream: muxly.Stream, generation: int) -> None:
        generations = self._generations(stream)
        generations.refuse_old(generation)
        if self._dialect.transactional:
            with self._transaction(lambda: True):
                generations.begin(generation)
        else:
            generations.begin(generation)
        self._connect().tables.forget()

    def _complete(self, stream: muxly.Stream, generation: int) -> None:
        generations = self._generations(stream)
        if generations.refuse_old(generation):
            return
        if self._dialect.transactional:
            with self._transaction(generations.prepare):
                generations.show(generation)
        else:
            generations.prepare()
            generations.show_in_steps(generation)
        self._connect().tables.forget()

    def _deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        target = self._target(delivery.stream)
        memory = self._memory(target)
        known = memory.receipt(delivery)
        if known is not None:
            return known
        if delivery.mode == "replace":
            assert delivery.generation is not None
            generations = self._generations(delivery.stream)
            generations.refuse_old(delivery.generation, filling=True)
            target = generations.place(delivery.generation)
        return self._deliver_to(target, memory, delivery)

    def _deliver_to(self, target: Place, memory: Deliveries, delivery: muxly.Delivery) -> muxly.Receipt:
        owner, receipt = self._owner(delivery.stream), muxly.Receipt()
        with self._transaction(lambda: self._prepared(target, memory, delivery)) as prepared:
            try:
                with typed(self._dialect, self._where):
                    memory.remember(delivery, owner, receipt)
            except muxly.RejectedError as error:
                raise muxly.RetryableError(f"{self._where}: another run makes the same delivery: {error}") from None
            if delivery.stream.name not in self._pruned:
                memory.prune(owner, self._settings.remember_seconds)
            for work in prepared:
                _APPLY[delivery.mode](work)
                modes.clear_stages(work)
        self._pruned.add(delivery.stream.name)
        return receipt

    def _prepared(self, target: Place, memory: Deliveries, delivery: muxly.Delivery) -> list[modes.Work]:
        """The tables made ready, and the work to do; none where there is nothing to make a table of."""
        memory.prepare()
        shape, tables = self._shape(delivery), self._connect().tables
        tables.look_again(target)
        wanted = tables.mapped(target, delivery.schema, keyed=shape.keyed)
        if not wanted and not any(batch.num_rows for batch in delivery.batches()):
            return []
        try:
            with typed(self._dialect, self._where):
                work = self._work(target, tables.ensure(target, wanted, shape), delivery)
                modes.prepare(work, shape)
        except muxly.RejectedError as error:  # of rows that are there, and no record's fault
            raise muxly.StreamError(
                f"{self._where}: the table {target.table!r} cannot be made ready for {delivery.mode}: {error}; change "
                "the rows that are in the way, or rename the table"
            ) from None
        return [work]

    def _shape(self, delivery: muxly.Delivery) -> Shape:
        stream, upsert = delivery.stream, delivery.mode == "upsert"
        if upsert and not stream.primary_key:
            raise muxly.StreamError(
                f"stream {stream.name!r} has no primary key, which upsert needs; name one with primary_key: "
                "in the pipeline's streams, or choose mode: append"
            )
        indexes = list(self._settings.indexes.get(stream.name, ()))
        if delivery.mode == "overwrite":
            indexes.append(stream.overwrite_key)
        return Shape(
            key=stream.primary_key if upsert or self._settings.primary_keys else (),
            sequenced=upsert,
            indexes=indexes,
        )

    def _work(self, target: Place, columns: tuple[Mapped, ...], delivery: muxly.Delivery) -> modes.Work:
        one = self._connect()
        return modes.Work(
            session=one.session,
            dialect=self._dialect,
            tables=one.tables,
            target=target,
            columns=columns,
            delivery=delivery,
            feed=self._fed(delivery),
            hard=self._settings.hard,
            stage=f"{names.OWN}{self._owner(delivery.stream).digest()}_t{self._run.token}",
        )

    def _fed(self, delivery: muxly.Delivery) -> Callable[..., Feed]:
        def feed(*args: Any, **options: Any) -> Feed:
            self._feed = Feed(self._run, delivery, *args, **options)
            return self._feed

        return feed
