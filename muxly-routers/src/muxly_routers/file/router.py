"""The router ``file``: CSV, JSON Lines, Parquet and Arrow files in a folder.

Each delivery becomes one file, ``<stream>/<delivery>.parquet``, or one in each partition folder it
touches. A file appears whole and durable, or not at all, and is never overwritten; a repeat of a
delivery finds its files and writes only those that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import muxly
from muxly_routers._failures import check_folder
from muxly_routers._files.layout import FileOptions
from muxly_routers._formats import Csv, Parquet
from muxly_routers._lazy_output import LazyOutputRouter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers.file.output import FileOutput

__all__ = ["Csv", "File", "Parquet"]


class File(FileOptions, LazyOutputRouter["FileOutput"]):
    """Writes records as files into a folder of this machine."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "overwrite", "replace"})
    promise: ClassVar[muxly.Promise] = "effectively_once"
    concurrency: ClassVar[int] = 4

    path: Path = muxly.option("Folder to write into; made if it is missing.")

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the folder can be written to, or be made."""
        return check_folder(self.path)

    def _open_output(self) -> FileOutput:
        # Loads pyarrow, which a pipeline with another router does not need.
        from muxly_routers.file.output import FileOutput

        return FileOutput(self.path.absolute(), self._layout(), self._run)


@muxly.hookimpl
def muxly_router() -> type[File]:
    """The router of this module."""
    return File
