"""A spool in a folder: its files, from a draft to a mapping into memory, and the lock on it.

A file gets its name only when its bytes are on the disk, and the name counts only when the folder's entry is: ``put``
syncs the bytes and then links the name, ``sync_folder`` makes the names durable. A crash before that leaves a draft, or
a file that no row of the ledger names; ``sweep`` deletes both. Nothing is ever written under a name that exists, so who
has a file open, or mapped, never sees it change.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from attrs import frozen

from muxly._ids import new_id
from muxly.errors import CorruptSegmentError, LeaseHeldError, SpoolError

if TYPE_CHECKING:
    import pyarrow as pa


_SUFFIX = ".arrow"
_IDENTITY = ".identity"
_DRAFT = re.compile(r"\.(?P<token>\d+)-[0-9A-Z]{26}\.tmp\Z")


class SpoolDraft:
    """A file being written in the spool's folder under a temporary name.

    Args:
        path: Where; begins with a dot and carries the writer's fencing token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        self._synced = False
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, content: Any) -> None:
        """Append all of the bytes.

        Raises:
            SpoolError: The disk is full or failing.
        """
        view = memoryview(content).cast("B")
        while view:
            try:
                written = os.write(self._file, view)
            except OSError as error:
                raise failed("write to", self.path.parent, error) from error
            view = view[written:]
            self.length += written

    def sync(self) -> None:
        """Make the bytes durable and close the file; done once, however often it is called.

        A failed fsync is never repeated on the same file: what reached the disk is unknown.

        Raises:
            SpoolError: The disk is full or failing, now or when it was tried first.
        """
        if self._synced:
            return
        if self._file < 0:
            raise SpoolError(f"cannot write to the spool {self.path.parent}: an earlier attempt failed")
        try:
            os.fsync(self._file)
        except OSError as error:
            raise failed("write to", self.path.parent, error) from error
        finally:
            self._close()
        self._synced = True

    def discard(self) -> None:
        """Close and delete the file; may be repeated."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class FolderSpool:
    """Segment files of one pipeline in one folder of a local file system.

    Args:
        folder: The pipeline's folder; made at first use, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: WeakValueDictionary[tuple[str, int], MappedSegment] = WeakValueDictionary()

    def identity(self) -> str:
        """This spool's own name, kept inside it, so that it is the same wherever the folder is moved.

        Call it while holding the spool's lock.
        """
        file = self.folder / _IDENTITY
        try:
            return file.read_text(encoding="ascii")
        except FileNotFoundError:
            pass
        try:
            self._make()
            name = new_id()
            draft = SpoolDraft(self.folder / f".0-{name}.tmp")
            draft.write(name.encode())
            draft.sync()
            draft.path.replace(file)
        except OSError as error:
            raise failed("write to", self.folder, error) from error
        self.sync_folder()
        return name

    def _make(self) -> None:
        """Make the folder, and its name durable in the one above, up to the first that was there."""
        if self.folder.is_dir():
            return
        created = [self.folder, *(parent for parent in self.folder.parents if not parent.exists())]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in created:
            _sync(folder.parent)

    def draft(self, token: int) -> SpoolDraft:
        """A new temporary file.

        Raises:
            SpoolError: The folder cannot be written; names it and the cause.
        """
        try:
            self._make()
            return SpoolDraft(self.folder / f".{token}-{new_id()}.tmp")
        except OSError as error:
            raise failed("write to", self.folder, error) from error

    def put(self, draft: SpoolDraft) -> str:
        """Publish a draft under a name of its own that never existed before.

        Durable when it returns: the bytes, then the name, then the folder's entry; the entry
        is made durable by ``sync_folder``, once for all drafts that are published together.

        Returns:
            The file's name in this spool.

        Raises:
            SpoolError: The disk is full or failing; nothing was published.
        """
        name = f"{new_id()}{_SUFFIX}"
        try:
            draft.sync()
            os.link(draft.path, self.folder / name)
            draft.path.unlink()
        except SpoolError:
            draft.discard()
            raise
        except OSError as error:
            draft.discard()
            raise failed("write to", self.folder, error) from error
        return name

    def sync_folder(self) -> None:
        """Make the names in the folder durable."""
        try:
            _sync(self.folder)
        except OSError as error:
            raise failed("write to", self.folder, error) from error

    def open(self, name: str, offset: int, length: int) -> MappedSegment:
        """A part of a file, mapped into memory once for all who read it at the same time.

        Raises:
            CorruptSegmentError: The file is gone or shorter.
        """
        mapped = self._mapped.get((name, offset))
        if mapped is not None:
            return mapped
        path = self.folder / name
        try:
            mapped = self._mapped[name, offset] = MappedSegment.of(path, offset, length)
        except FileNotFoundError as error:
            raise CorruptSegmentError(f"the spool file {path} is missing") from error
        except OSError as error:
            raise failed("read from", self.folder, error) from error
        return mapped

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are gone already are no error."""
        try:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise failed("delete from", self.folder, error) from error

    def list(self) -> set[str]:
        """The names of all published files."""
        try:
            return {path.name for path in self.folder.iterdir() if path.suffix == _SUFFIX}
        except FileNotFoundError:
            return set()

    def sweep(self, *, named: set[str], token: int) -> int:
        """Delete what a crash left: drafts of older tokens, and files that no row names.

        Call it while holding the lease, before anything is written.

        Args:
            named: Files that the ledger names.
            token: Our fencing token.

        Returns:
            How many files were deleted.
        """
        leftovers = [name for name in self.list() if name not in named]
        if self.folder.exists():
            leftovers += [path.name for path in self.folder.iterdir() if self._is_older(path.name, token)]
        self.delete(leftovers)
        return len(leftovers)

    def _is_older(self, name: str, token: int) -> bool:
        match = _DRAFT.match(name)
        return match is not None and int(match["token"]) < token


def failed(doing: str, folder: Path, error: OSError) -> SpoolError:
    """What the operating system refused, as a sentence with the next step."""
    hint = ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "; free some space, or move the spool with `home:`"
    elif error.errno in {errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS}:
        hint = "; check that the folder is writable, or move the spool with `home:`"
    return SpoolError(f"cannot {doing} the spool {folder}: {error.strerror}{hint}")


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SpoolLock:
    """The operating system's lock on a pipeline's spool; it ends with the process that holds it.

    Args:
        path: The lock file, beside the spool's folder.
        holder: The name that others are given, written into the file.
    """

    def __init__(self, path: Path, *, pipeline: str, holder: str) -> None:
        self._path, self._pipeline, self._holder = path, pipeline, holder
        self._file = -1

    def acquire(self) -> None:
        """Take the lock, or refuse at once.

        Raises:
            LeaseHeldError: Another process holds it; names the holder.
            SpoolError: The folder cannot be made or written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed("write to", self._path.parent, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 1024).decode(errors="replace") or "another process"
            os.close(file)
            raise LeaseHeldError(
                f"the pipeline {self._pipeline!r} is already being run by {holder}; wait for it to end, or stop it",
                holder=holder,
            ) from error
        os.ftruncate(file, 0)
        os.write(file, self._holder.encode())
        self._file = file

    def release(self) -> None:
        """Release the lock; may be repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@frozen(eq=False)
class MappedSegment:
    """A part of a file that never changes.

    Args:
        buffer: Its bytes, mapped; valid for as long as anybody holds them.
    """

    buffer: pa.Buffer

    @classmethod
    def of(cls, path: Path, offset: int, length: int) -> MappedSegment:
        """Map a part of a file.

        Raises:
            CorruptSegmentError: The file is shorter.
            OSError: It cannot be opened.
        """
        import pyarrow as pa

        # Unlike Python's own mapping this one holds no descriptor: a delivery may have a thousand segments.
        with pa.memory_map(str(path), "r") as file:
            if file.size() < offset + length:
                raise CorruptSegmentError(f"the spool file {path} is {file.size()} bytes long, not {offset + length}")
            file.seek(offset)
            return cls(file.read_buffer(length))

    def forget(self, length: int) -> None:
        """Give back the memory of its first bytes: routes that are apart must not fill it with segments.

        The bytes stay readable; the system fetches them again from the file.

        Args:
            length: How many bytes.
        """
        address = self.buffer.address
        start, end = (edge // mmap.PAGESIZE * mmap.PAGESIZE for edge in (address, address + length))
        if start < end:
            # Only advice: if it is refused, the memory is given back with the mapping.
            _madvise()(start, end - start, mmap.MADV_DONTNEED)


@cache
def _madvise() -> Any:
    """The system's own function: Python has it only for mappings that it made itself."""
    import ctypes

    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
