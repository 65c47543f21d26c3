"""Series in files: for the node exporter's textfile collector, and between runs.

Every file is replaced as a whole: a reader sees the old one or the new one, also after a power cut. So a draft
is written and synced under another name, renamed, and then the folder is synced, in this order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

import muxly
from muxly_routers._failures import check_folder, failures_at
from muxly_routers._files import layout
from muxly_routers.prometheus.exposition import MetricFamily, render
from muxly_routers.prometheus.options import StreamKey
from muxly_routers.prometheus.series import StreamSeries

__all__ = ["SavedSeries", "SeriesFiles", "TextfileOutlet", "read_file", "remove_file", "replace_file"]


def replace_file(path: Path, content: bytes, *, mode: int, token: int) -> None:
    """Put a new file in the place of another; durable on return.

    Args:
        path: Its name; folders are made. Something there that is no file is refused.
        content: All of it.
        mode: Its permissions.
        token: The run's, for the name of the draft: no two runs write to one draft.

    Raises:
        RetryableError: It may work later.
        RouteError: It will not.
    """
    with failures_at(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_others(path)
        draft = path.with_name(f".{path.name}.{token}.draft")
        draft.unlink(missing_ok=True)
        try:
            _write(draft, content, mode)
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        _sweep(path, token)


def _refuse_others(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise muxly.RouteError(f"{path} is not a file and is not replaced; move it away or choose another folder")


def _write(draft: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(draft, flags, mode), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask is: another user reads it
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path, token: int) -> None:
    """Remove what killed runs left of their drafts of this file."""
    start, end = f".{path.name}.", ".draft"
    for sibling in path.parent.iterdir():
        number = sibling.name.removeprefix(start).removesuffix(end)
        if sibling.name == f"{start}{number}{end}" and number.isdigit() and int(number) < token:
            sibling.unlink(missing_ok=True)


def read_file(path: Path) -> bytes | None:
    """The file's content; None if it is not there."""
    with failures_at(path, "read"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def remove_file(path: Path) -> None:
    """Remove the file, if it is there; durable on return."""
    with failures_at(path, "remove"), contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


@frozen
class SavedSeries:
    """Series as they lie in a file.

    Args:
        series: The series.
        generation: The full read they are of; 0 = none.
    """

    series: StreamSeries = field(factory=StreamSeries)
    generation: int = 0


@frozen
class SeriesFiles:
    """A folder with a file for each stream of a route.

    Args:
        folder: Made if it is missing.
        stream_key: Whose series.
        token: The run's.
    """

    folder: Path
    stream_key: StreamKey
    token: int

    def visible(self) -> SavedSeries:
        """The series that are shown."""
        return self._read(self._path("visible"))

    def growing(self, generation: int) -> SavedSeries | None:
        """The part that has arrived of an incomplete generation; None if nothing has."""
        found = self._read(self._path("growing"))
        return found if found.generation == generation else None

    def show(self, kept: SavedSeries) -> None:
        """Keep what is shown from now on."""
        self._write(self._path("visible"), kept)

    def grow(self, kept: SavedSeries) -> None:
        """Keep what has arrived of a generation."""
        self._write(self._path("growing"), kept)

    def drop_growing(self, *, before: int) -> None:
        """Drop what has arrived of an older generation."""
        path = self._path("growing")
        if 0 < self._read(path).generation < before:
            remove_file(path)

    def _path(self, what: str) -> Path:
        place = self.folder / layout.slug(self.stream_key.pipeline) / layout.slug(self.stream_key.route or "route")
        return place / f"{layout.slug(self.stream_key.stream)}.{what}.json"

    def _write(self, path: Path, kept: SavedSeries) -> None:
        body = json.dumps({"generation": kept.generation, "series": kept.series.to_state()}).encode()
        digest = hashlib.blake2b(body, digest_size=16).hexdigest().encode()
        replace_file(path, digest + b"\n" + body, mode=0o600, token=self.token)

    def _read(self, path: Path) -> SavedSeries:
        content = read_file(path)
        if content is None:
            return SavedSeries()
        digest, _, body = content.partition(b"\n")
        if hashlib.blake2b(body, digest_size=16).hexdigest().encode() != digest:
            raise muxly.RouteError(f"{path} is damaged; remove it, and `muxly replay` fills it again from the spool")
        found: dict[str, Any] = json.loads(body)
        return SavedSeries(StreamSeries.from_state(found["series"]), found["generation"])


# The node exporter runs as a user of its own.
_READABLE = 0o644


@frozen
class TextfileOutlet:
    """The collector's folder.

    Args:
        folder: Made if it is missing.
        token: The run's.
    """

    folder: Path
    token: int

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others."""
        content = render(families, "text", times=False)
        replace_file(self.folder / file_name(stream_key), content, mode=_READABLE, token=self.token)

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the folder can be written to, or be made."""
        return check_folder(self.folder)

    def close(self) -> None:
        """Nothing is held."""


def file_name(stream_key: StreamKey) -> str:
    """The name of a stream's file; of streams whose names differ they differ, whatever they are called."""
    parts = [stream_key.pipeline, *([stream_key.route] if stream_key.route else []), stream_key.stream]
    return f"{'.'.join(layout.slug(part).replace('.', '~') for part in parts)}.prom"
