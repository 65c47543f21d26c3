"""Databases that are one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["file_of", "make_folder", "not_there", "written_alone"]


def file_of(url: URL) -> Path:
    """The database's file.

    Raises:
        ConfigurationError: The URL names a database in memory, which would be gone with the run.
    """
    if not url.database or url.database.startswith((":memory:", "file:")):
        kind = url.get_backend_name()
        raise muxly.ConfigurationError(
            f"a {kind} URL needs a file, as in {kind}:////absolute/path/records.db", path=("url",)
        )
    return Path(url.database).absolute()


def make_folder(path: Path) -> None:
    """Make the folder of a database's file.

    Raises:
        RouteError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise muxly.RouteError(f"the folder {path.parent} cannot be made: {error.strerror}") from error


def written_alone(url: URL) -> str:
    """The file's name, whatever way leads to it."""
    return str(file_of(url).resolve())


def not_there(path: Path) -> str | None:
    """Why there is nothing to connect to yet; None = there is."""
    return None if path.exists() else f"the file {path} is not there yet; the first delivery makes it"
