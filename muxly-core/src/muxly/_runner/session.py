"""A session: the right to write one pipeline's ledger and spool, held from beginning to end.

Two things hold it. The operating system's lock on the spool keeps out other processes of this machine,
and is gone at once when its holder dies. The lease in the store keeps out other machines: it has a
fencing token, which every transaction of the ledger compares, and runs out when its heartbeat stops.
A process that was frozen and wakes up after its lease was taken over finds another token and writes
nothing: it is *fenced*.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import frozen

from muxly._ids import new_id
from muxly.errors import FencedError, MuxlyError
from muxly.options import Secret
from muxly.spool import FolderSpool, SpoolLock
from muxly.store import runs
from muxly.store.database.engine import Engine, sqlite_url
from muxly.store.ledger import LEASE_SECONDS, Ledger, acquire_lease, release_lease, renew_lease
from muxly.store.schema.upgrade import open_store


@frozen(kw_only=True)
class Home:
    """The place of a pipeline's store and spool.

    Args:
        folder: The folder ``.muxly``.
        store: URL of the store; None = a SQLite file in the folder.
    """

    folder: Path
    store: str | Secret | None = None

    def url(self) -> str:
        """The URL of the store; may hold a password."""
        url = self.store or sqlite_url(self.folder / "store.sqlite")
        return url.reveal() if isinstance(url, Secret) else url

    def engine(self) -> Engine:
        """The store, opened, and upgraded if that is safe.

        Raises:
            StoreError: It cannot be used as it is.
        """
        return open_store(self.url())

    def spool(self, pipeline: str) -> FolderSpool:
        """The pipeline's spool."""
        return FolderSpool(self.folder / "spool" / quote(pipeline, safe=""))

    def lock(self, pipeline: str, holder: str) -> SpoolLock:
        """The operating system's lock on that spool."""
        path = self.folder / "spool" / f"{quote(pipeline, safe='')}.lock"
        return SpoolLock(path, pipeline=pipeline, holder=holder)


@frozen(kw_only=True)
class LedgerSession:
    """The right to write, while the ``with`` block of ``open_session`` lasts.

    Args:
        ledger: The pipeline's ledger.
        spool: The pipeline's spool, swept.
        holder: How this process names itself to others.
    """

    ledger: Ledger
    spool: FolderSpool
    holder: str


@contextmanager
def open_session(
    home: Home,
    pipeline: str,
    *,
    command: str,
    params: Mapping[str, Any] | None = None,
    on_fenced: Callable[[FencedError], None] = lambda error: None,
) -> Iterator[LedgerSession]:
    """Take the pipeline's lock and lease, and keep them alive.

    Args:
        home: Where the store and the spool are.
        pipeline: The pipeline's name.
        command: What is being done, for the run's row.
        params: What the trigger passed.
        on_fenced: Told when the lease is lost.

    Raises:
        LeaseHeldError: Another run holds it; names the holder.
        StoreError: The store cannot be used.
    """
    run = new_id()
    holder = f"process {os.getpid()} on {socket.gethostname()} (run {run})"
    lock = home.lock(pipeline, holder)
    lock.acquire()
    try:
        engine = home.engine()
        try:
            spool = home.spool(pipeline)
            ledger = acquire_lease(engine, pipeline, run, holder=holder, spool=spool.identity())
            try:
                with _heartbeat(ledger, on_fenced):
                    runs.start(ledger, holder=holder, command=command, params=params or {})
                    yield LedgerSession(ledger=ledger, spool=spool, holder=holder)
            finally:
                _let_go(ledger)
        finally:
            engine.dispose()
    finally:
        lock.release()


def _let_go(ledger: Ledger) -> None:
    """Release the lease; if the store is away it runs out by itself."""
    with suppress(MuxlyError):
        release_lease(ledger)


@contextmanager
def _heartbeat(ledger: Ledger, on_fenced: Callable[[FencedError], None]) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(LEASE_SECONDS / 3):
            try:
                renew_lease(ledger)
            except FencedError as error:
                on_fenced(error)
                return
            except MuxlyError:
                continue  # the store is away for a moment; the lease lasts two more beats

    thread = threading.Thread(target=beat, name="muxly-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
