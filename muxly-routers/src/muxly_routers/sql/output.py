"""One opened router: attempts at deliveries, with translated errors, write locks, and interruption on stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import URL

import muxly
from muxly_routers.sql import urls
from muxly_routers.sql.dialect import SessionTimeouts, dialect_of
from muxly_routers.sql.errors import StaleTableError, translated_errors
from muxly_routers.sql.names import TableName
from muxly_routers.sql.stream_tables import OpenDatabase, SqlOptions, StreamTables
from muxly_routers.sql.tables import KnownTables
from muxly_routers.sql.write_modes import RecordFeed

__all__ = ["SqlOutput", "interrupted_on_stop"]

T = TypeVar("T")

_LOCK_SECONDS = 0.2
# Several runs that make the same tables at one moment collide as often as there are things to make: a schema, the
# table of deliveries, the stream's, that of deleted records.
_ATTEMPTS = 5

_CHECK_SECONDS = 0.25
# A statement that is nearly finished is better finished than rolled back.
_GRACE_SECONDS = 2.0


class SqlOutput:
    """Delivers to the tables of one database.

    Args:
        options: Of the router.
        url: Of the database.
        run: The run that delivers.

    Raises:
        ConfigurationError: The database has no schemas, but one is configured.
    """

    def __init__(self, options: SqlOptions, url: URL, run: muxly.Run) -> None:
        self._options, self._url, self._run = options, url, run
        self._dialect = dialect_of(url, fast=options.fast_path)
        if options.schema is not None and not self._dialect.schemas:
            raise muxly.ConfigurationError(
                f"{self._dialect.name} has no schemas; leave schema: out, and keep tables apart by table:",
                path=("schema",),
            )
        self._where = urls.display_name(url)
        self._database: OpenDatabase | None = None
        self._pruned = set[str]()
        self._feed: RecordFeed | None = None

    def close(self) -> None:
        """Disconnect; an open transaction is rolled back."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(Exception):
                database.session.close()

    def check(self) -> Iterable[muxly.Notice]:
        """Remarks for a person before the first delivery; reads only."""
        self._dialect.require()
        if not self._run.guarded and (missing := self._dialect.missing_database(self._url)):
            yield muxly.Notice("database_missing", f"{self._where}: {missing}", level="info")
            return
        try:
            with translated_errors(self._dialect, self._where):
                session = self._connect().session
                session.columns(TableName(self._fixed_schema(), "_muxly_deliveries"))  # a file may be no database
                version, allowed = session.version(), session.may_create(self._fixed_schema())
        except (muxly.RetryableError, muxly.RouteError) as error:
            yield muxly.Notice("database_unreachable", str(error), level="error")
            return
        yield muxly.Notice("database", f"{self._where}: {version}", level="info")
        if not allowed:
            message = f"{self._where}: this user may not create tables; make them beforehand, or give it the right"
            yield muxly.Notice("may_not_create", message)

    def _fixed_schema(self) -> str | None:
        schema = self._options.schema
        return None if schema is None or "{" in schema else schema

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Write records, id and receipt, in one transaction."""

        def make_feed(*args: Any, **options: Any) -> RecordFeed:
            self._feed = RecordFeed(self._run, delivery, *args, **options)
            return self._feed

        return self._retried(lambda: self._tables_of(delivery.stream).deliver(delivery, make_feed, self._pruned))

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Drop what older generations of the stream left."""
        self._retried(lambda: self._tables_of(stream).begin(generation))

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Make a generation visible."""
        self._retried(lambda: self._tables_of(stream).complete(generation))

    def _tables_of(self, stream: muxly.Stream) -> StreamTables:
        return StreamTables(self._connect(), self._options, self._run, stream)

    def _retried(self, attempt: Callable[[], T]) -> T:
        """Try, and again as long as a table turns out to be other than expected."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(StaleTableError):
                return self._attempted(attempt)
        try:
            return self._attempted(attempt)
        except StaleTableError as error:
            raise muxly.StreamError(
                f"{error}; the table is not as this router makes it: change it back, or rename it"
            ) from None

    def _attempted(self, attempt: Callable[[], T]) -> T:
        """One attempt whose errors the runner knows.

        After any error the session is closed, and with it goes all that was known of the tables: the next attempt
        starts from what the database holds. An error of reading the records, which drivers wrap beyond recognition,
        is taken from the feed instead.
        """
        try:
            with (
                interrupted_on_stop(self._run, self._interrupt),
                translated_errors(self._dialect, self._where),
                self._write_lock(),
            ):
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
        database = self._database
        if database is not None:
            database.session.interrupt()

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        """The lock of a database that lets only one of this process's routers write at a time."""
        name = self._dialect.write_lock_name(self._url)
        if name is None:
            yield
            return
        lock = self._run.shared(f"sql:{name}", threading.Lock)
        while not lock.acquire(timeout=_LOCK_SECONDS):
            self._run.sleep(0)
        try:
            yield
        finally:
            lock.release()

    def _connect(self) -> OpenDatabase:
        if self._database is None:
            timeouts = SessionTimeouts(
                connect_seconds=self._options.connect_seconds,
                lock_seconds=self._options.lock_seconds,
                sleep=self._run.sleep,
            )
            url = urls.checked_url(self._url) if self._run.guarded else self._url
            session = self._dialect.open(url, timeouts)
            for notice in session.notices():
                self._run.notice(notice)
            self._database = OpenDatabase(session, self._dialect, KnownTables(session, self._dialect), self._where)
        return self._database


@contextmanager
def interrupted_on_stop(run: muxly.Run, interrupt: Callable[[], None]) -> Iterator[None]:
    """Call ``interrupt``, from another thread, while the block goes on after the run was stopped.

    Args:
        run: The run.
        interrupt: Called again and again: the block may begin to wait for something just after a call.

    Raises:
        StoppedError: The block ended with a retryable error after it was interrupted.
    """
    done, interrupted = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(_CHECK_SECONDS):
            if run.stopping and (interrupted.is_set() or not done.wait(_GRACE_SECONDS)):
                interrupted.set()
                interrupt()

    # A daemon, and never joined: a server that does not answer may not even take the interruption.
    threading.Thread(target=watch, name="muxly-sql-stop", daemon=True).start()
    try:
        yield
    except muxly.RetryableError as error:
        if interrupted.is_set():
            raise muxly.StoppedError(f"the run was asked to stop; {error}") from None
        raise
    finally:
        done.set()
