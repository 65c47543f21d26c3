"""Series kept in a folder between runs: of any number, and out of sight while a generation grows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from attrs import field, frozen

import muxly
from muxly_routers._files import layout
from muxly_routers.prometheus import files
from muxly_routers.prometheus.series import StreamSeries
from muxly_routers.prometheus.settings import StreamKey

__all__ = ["SeriesFiles", "SavedSeries"]


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
        unit: Whose series.
        token: The run's.
    """

    folder: Path
    unit: StreamKey
    token: int

    def visible(self) -> SavedSeries:
        """What is shown."""
        return self._read(self._path("visible"))

    def growing(self, generation: int) -> SavedSeries | None:
        """What has arrived of a generation that is not complete; None if nothing has."""
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
            files.remove(path)

    def _path(self, what: str) -> Path:
        place = self.folder / layout.slug(self.unit.pipeline) / layout.slug(self.unit.route or "route")
        return place / f"{layout.slug(self.unit.stream)}.{what}.json"

    def _write(self, path: Path, kept: SavedSeries) -> None:
        body = json.dumps({"generation": kept.generation, "series": kept.series.to_state()}).encode()
        digest = hashlib.blake2b(body, digest_size=16).hexdigest().encode()
        files.replace(path, digest + b"\n" + body, mode=0o600, token=self.token)

    def _read(self, path: Path) -> SavedSeries:
        content = files.read(path)
        if content is None:
            return SavedSeries()
        digest, _, body = content.partition(b"\n")
        if hashlib.blake2b(body, digest_size=16).hexdigest().encode() != digest:
            raise muxly.RouteError(f"{path} is damaged; remove it, and `muxly replay` fills it again from the spool")
        found: dict[str, Any] = json.loads(body)
        return SavedSeries(StreamSeries.from_state(found["series"]), found["generation"])
