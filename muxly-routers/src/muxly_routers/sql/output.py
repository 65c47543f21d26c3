"""One opened router: attempts that are typed, take turns, and end when the run stops."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import muxly
from muxly_routers.sql import dialects
from muxly_routers.sql.error_texts import StaleError, typed
from muxly_routers.sql.interrupt import attentive
from muxly_routers.sql.quoting import Place
from muxly_routers.sql.reconnect import Link
from muxly_routers.sql.row_slices import Feed
from muxly_routers.sql.session import Waits
from muxly_routers.sql.stream_tables import StreamTables
from muxly_routers.sql.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import URL

    from muxly_routers.sql.settings import Settings

__all__ = ["Output"]

T = TypeVar("T")

_TURN_SECONDS = 0.2
# Several that make the same tables at one moment meet as often as there are things to make: a schema, the
# table of deliveries, the stream's, that of deleted records.
_LOOKS = 5


class Output:
    """Delivers to the tables of one database.

    Args:
        settings: Of the router.
        run: For whom.
    """

    def __init__(self, settings: Settings, run: muxly.Run) -> None:
        self._settings, self._run = settings, run
        self._dialect = dialects.dialect_of(settings.url, fast=settings.fast)
        if settings.schema is not None and not self._dialect.schemas:
            raise muxly.ConfigurationError(
                f"{self._dialect.name} has no schemas; leave schema: out, and keep tables apart by table:",
                path=("schema",),
            )
        self._where = dialects.shown(settings.url)
        self._link: Link | None = None
        self._pruned = set[str]()
        self._feed: Feed | None = None

    def close(self) -> None:
        """Disconnect; a transaction that is open is taken back."""
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.session.close()

    def check(self) -> Iterable[muxly.Notice]:
        """What a person should know before the first delivery; reads only."""
        self._dialect.require()
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

        def fed(*args: Any, **options: Any) -> Feed:
            self._feed = Feed(self._run, delivery, *args, **options)
            return self._feed

        return self._tried(lambda: self._tables_of(delivery.stream).deliver(delivery, fed, self._pruned))

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Drop what older generations of the stream left."""
        self._tried(lambda: self._tables_of(stream).begin(generation))

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Make a generation visible."""
        self._tried(lambda: self._tables_of(stream).complete(generation))

    def _tables_of(self, stream: muxly.Stream) -> StreamTables:
        return StreamTables(self._connect(), self._settings, self._run, stream)

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
            with attentive(self._run, self._interrupt), typed(self._dialect, self._where), self._turn():
                answer = attempt()
                self._feed = None
                return answer
        except BaseException:
            self.close()
            feed, self._feed = self._feed, None
            if feed is not None and feed.error is not None:
                raise feed.error from None
            raise

    def _interrupt(self) -> None:
        link = self._link
        if link is not None:
            link.session.interrupt()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The turn to write, where a database lets only one of this process's routers write at a time."""
        written = self._dialect.written_alone(self._settings.url)
        if written is None:
            yield
            return
        lock = self._run.shared(f"sql:{written}", threading.Lock)
        while not lock.acquire(timeout=_TURN_SECONDS):
            self._run.sleep(0)
        try:
            yield
        finally:
            lock.release()

    def _connect(self) -> Link:
        if self._link is None:
            waits = Waits(
                connect_seconds=self._settings.connect_seconds,
                lock_seconds=self._settings.lock_seconds,
                sleep=self._run.sleep,
            )
            session = self._dialect.open(self._url(), waits)
            for remark in session.remarks():
                self._run.notice(remark)
            self._link = Link(session, self._dialect, Tables(session, self._dialect), self._where)
        return self._link

    def _url(self) -> URL:
        if not self._run.guarded:
            return self._settings.url
        from muxly_routers.sql.guarded import allowed  # brings what else only webhooks need

        return allowed(self._settings.url)
