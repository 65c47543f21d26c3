"""The router ``file``: CSV, JSON Lines, Parquet and Arrow files in a folder.

Each delivery becomes one file, ``<stream>/<delivery>.parquet``, or one in each partition folder it
touches. A file appears whole and durable, or not at all, and is never overwritten; a repeat of a
delivery finds its files and writes only those that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import muxly
from muxly_routers._files.failures import check_folder
from muxly_routers._files.options import FileOptions
from muxly_routers._formats import Csv, Parquet
from muxly_routers.file.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers.file.output import Output

__all__ = ["Csv", "File", "Parquet"]


class File(FileOptions, muxly.Router):
    """Writes records as files into a folder of this machine."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "overwrite", "replace"})
    promise: ClassVar[muxly.Promise] = "effectively_once"
    concurrency: ClassVar[int] = 4

    path: Path = muxly.option("Folder to write into; made if it is missing.")

    def open(self, run: muxly.Run) -> None:
        """Remember the run; the folder is made when there is something to write."""
        self._run = run
        self._output: Output | None = None

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the folder can be written to, or be made."""
        return check_folder(self.path)

    def deliver(self, delivery: muxly.Delivery) -> None:
        """Write the delivery's files; see the module for what holds after a crash."""
        self._opened().deliver(delivery)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation out of sight."""
        self._opened().begin(stream, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Let the generation take the place of the one before, in one step."""
        self._opened().complete(stream, generation)

    def close(self) -> None:
        """Let go of the folder."""
        output, self._output = getattr(self, "_output", None), None
        if output is not None:
            output.close()

    def _opened(self) -> Output:
        # Loads pyarrow, which a pipeline with another router does not need.
        from muxly_routers.file.output import Output

        if self._output is None:
            self._output = Output(self._settings(), self._run)
        return self._output

    def _settings(self) -> Settings:
        return Settings(
            path=self.path.absolute(),
            folder=self.folder,
            file_name=self.file_name,
            encoding=self._encoding(),
            keys=self._keys(),
            keep_columns=self.keep_partition_columns,
            most_folders=self.max_folders,
        )


@muxly.hookimpl
def muxly_router() -> type[File]:
    """The router of this module."""
    return File
