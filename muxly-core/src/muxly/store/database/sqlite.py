"""The store as a SQLite file: made whole, opened with care, and never taken for another program's file."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from muxly.errors import StoreError
from muxly.store.database.errors import damaged, translated

__all__ = [
    "APPLICATION_ID",
    "back_up",
    "check_pages",
    "checked",
    "connect",
    "create",
    "path_of",
    "sidecars",
    "was_left_open",
]

_DAY_SECONDS = 86_400.0
APPLICATION_ID = 0x4D55584C  # "MUXL", in the header: `file` shows it, and another program's file is not taken for ours
_BUSY_SECONDS = 10
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_MOUNTS = Path("/proc/self/mountinfo")
# SQLite: "WAL does not work over a network filesystem" (sqlite.org/wal.html).
_REMOTE = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
    | {f"fuse.{name}" for name in ("ceph", "gcsfuse", "glusterfs", "goofys", "rclone", "s3fs", "smbnetfs", "sshfs")}
)
_LOG = logging.getLogger("muxly.store")


def create(path: Path, fill: Callable[[Connection], object]) -> None:
    """Make a new store and give it its name when it is whole, unless another process was faster.

    So a file that bears the store's name is never empty or half made, however a process dies.

    Args:
        path: Where no store is yet. Its folder is created for its owner only.
        fill: Creates the tables, inside a transaction.

    Raises:
        StoreError: The folder or the file cannot be written.
    """
    with _explained(path, "created"):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with _new_file(path) as new:
            _build(new, fill)
            _sync(new)
            _publish(new, path)


def back_up(path: Path, suffix: str) -> Path:
    """Copy the store to ``<path>.backup-<suffix>``, as of one moment, also while others use it.

    An older copy of that name, from an upgrade that did not end, is replaced.

    Raises:
        StoreError: The copy cannot be written.
    """
    target = path.with_name(f"{path.name}.backup-{suffix}")
    with _explained(target, "written"), _new_file(path) as new:
        with closing(connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        _sync(new)
        new.replace(target)
        _sync(path.parent)
    return target


@contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        raise StoreError(
            f"{path} cannot be {verb} ({cause}); check that {path.parent} is writable and has free space"
        ) from cause


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that only its owner may read; removed at the end if it is still there."""
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what a process that died here left behind; a day is longer than any process needs."""
    for left in path.parent.glob(f".{path.name}.*.new*"):
        if time.time() - left.stat().st_mtime > _DAY_SECONDS:
            left.unlink(missing_ok=True)


def _build(new: Path, fill: Callable[[Connection], object]) -> None:
    url = URL.create("sqlite", database=str(new))
    engine = create_engine(url, creator=lambda: _connect_unsafely(new), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with translated(engine), engine.begin() as connection:
        fill(connection)
    with closing(sqlite3.connect(new)) as plain:
        plain.execute("PRAGMA journal_mode = WAL")


def _connect_unsafely(new: Path) -> sqlite3.Connection:
    # Neither a journal nor waiting for the disk: nobody sees the file before it is whole and synced.
    connection = sqlite3.connect(new, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return connection


def _publish(new: Path, path: Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        return
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checked(given: str) -> Path:
    """The absolute path of the store's file, found fit to be opened, or not there yet.

    Raises:
        StoreError: The file is no whole store of ours, it is gone while its ``-wal`` is
            still there, or it lies on a network file system.
    """
    path = Path(given).expanduser().absolute()
    _refuse_network(path)
    try:
        status = path.stat()
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return path if _is_new(path) else checked(given)
    except OSError as cause:
        raise StoreError(
            f"the store {path} cannot be read ({cause.strerror}); check that it is a file, and its owner and mode"
        ) from cause
    _check_header(path, header)
    _warn_of_mode(path, status)
    return path


def sidecars(path: Path) -> tuple[Path, Path]:
    """The files that SQLite keeps beside an open store: the log not yet written back, and its index."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def path_of(engine: Engine) -> Path | None:
    """The file of a SQLite store; None for another database."""
    return Path(str(engine.url.database)) if engine.dialect.name == "sqlite" else None


def was_left_open(path: Path) -> bool:
    """Whether another process has the store open now, or died while it had."""
    try:
        return sidecars(path)[0].stat().st_size > 0
    except FileNotFoundError:
        return False


def check_pages(connection: Connection, where: str) -> None:
    """Look for damaged pages.

    Raises:
        StoreError: There are some.
    """
    result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if result != "ok":
        raise damaged(where, " ".join(str(result).split()))


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the existing file: durable, checked keys, no transaction but those we begin."""
    connection = sqlite3.connect(
        # "rw" and never "rwc": a store that was moved away must not come back empty.
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _configure(connection, path)
    except BaseException as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            # A header that names a format which SQLite does not know.
            raise damaged(path, str(error)) from error
        raise
    return connection


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    """Set what SQLite forgets with each connection, and the journal mode, which the file remembers."""
    # NORMAL loses acknowledged commits in a power cut; FULL costs one fsync a commit.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
    connection.execute("PRAGMA foreign_keys = ON")
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(
            f"the store {path} is on a file system without shared memory, which SQLite's write-ahead log needs; "
            "put it on a local disk (--home), or use postgresql://USER:PASSWORD@HOST/NAME"
        )


def _is_new(path: Path) -> bool:
    """False if another process created the store just now."""
    left = [file.name for file in sidecars(path) if file.exists()]
    if path.exists():
        return False
    if left:
        raise StoreError(
            f"the store {path} is missing, but its {' and '.join(left)} still exists, so it was moved or deleted "
            "while open. Put the file back, or restore a backup and delete the leftover files"
        )
    return True


def _check_header(path: Path, header: bytes) -> None:
    if not header:
        raise damaged(path, "the file is empty")
    if len(header) < _HEADER_BYTES:
        raise damaged(path, f"it has only {len(header)} bytes")
    if not header.startswith(_MAGIC):
        raise damaged(path, "it is not a SQLite file, or no longer one")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreError(f"{path} is a SQLite file, but not a Muxly store; choose another file")


def _warn_of_mode(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if os.name == "posix" and mode & 0o077:
        _LOG.warning(
            "the store %s is accessible to other users of this machine (mode %03o); "
            "it holds records and cursors: chmod 600 %s",
            path,
            mode,
            path,
        )


def _refuse_network(path: Path) -> None:
    kind = _file_system(path)
    if kind in _REMOTE:
        raise StoreError(
            f"the store {path} is on a network file system ({kind}), where SQLite can lose or damage it; "
            "put it on a local disk (--home), or use postgresql://USER:PASSWORD@HOST/NAME"
        )


def _file_system(path: Path) -> str:
    """The type of the mounted file system that holds `path`; empty where the machine does not say."""
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return ""
    target = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        # proc_pid_mountinfo(5): the mount point is the fifth field, the type follows the dash.
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        within = target == point or target.startswith(point.rstrip("/") + "/")
        if within and len(point) >= len(best):
            best, kind = point, after.partition(" ")[0]
    return kind
