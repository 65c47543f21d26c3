"""What the options of the file router come to, in one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from muxly_routers._files.layout import PartitionKey
    from muxly_routers._formats import Encoding

__all__ = ["Settings"]


@frozen(kw_only=True)
class Settings:
    """How and where the files of a route are written; equal options give equal settings."""

    path: Path
    folder: str
    file_name: str
    encoding: Encoding
    keys: tuple[PartitionKey, ...]
    keep_columns: bool
    most_folders: int
