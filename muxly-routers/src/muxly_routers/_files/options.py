"""The options of routers that write files, wherever the files go."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen

import muxly
from muxly_routers._files import layout
from muxly_routers._formats import Compression, Csv, Encoding, Format, Parquet, resolve
from muxly_routers._formats.options import check_compression, check_level

__all__ = ["FileLayout", "FileOptions"]


def _check_folder(instance: Any, attribute: Any, value: str) -> None:
    if problem := layout.template_problem(value, "stream", ("stream", "pipeline")):
        raise ValueError(f"folder: {problem}")


def _check_file_name(instance: Any, attribute: Any, value: str) -> None:
    problem = layout.template_problem(value, "delivery", ("delivery", "stream", "pipeline"))
    if problem or "/" in value:
        raise ValueError(f"file_name: {problem or f'{value!r} is a path; folders belong into folder'}")


def _check_partition_by(instance: Any, attribute: Any, value: list[str]) -> None:
    keys = [layout.PartitionKey.parse(one) for one in value]
    labels = [key.label for key in keys]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ValueError(f"partition_by has two folders {twice[0]!r}; name one with 'as', as in 'day(at) as at_day'")


@frozen(kw_only=True)
class FileLayout:
    """How the files of a route are called and written; equal options give equal layouts.

    Args:
        folder: Template of a stream's folder.
        file_name: Template of a file's name, without its ending.
        encoding: The format with its settings.
        keys: The levels of partition folders, outermost first.
        keep_columns: Whether the files keep the columns whose values name the folders.
        most_folders: How many partition folders one delivery may touch.
    """

    folder: str
    file_name: str
    encoding: Encoding
    keys: tuple[layout.PartitionKey, ...]
    keep_columns: bool
    most_folders: int

    def stream_folder(self, stream: str, pipeline: str) -> tuple[str, ...]:
        """The folders of a stream, outermost first."""
        return layout.stream_folder(self.folder, stream, pipeline)


class FileOptions(muxly.Options):
    """How files are written, and what they are called."""

    format: Format = muxly.option("Format of the files.", default="parquet")
    compression: Compression = muxly.option(
        "How the files are compressed; auto is zstd for parquet, lz4 for arrow, none for csv and jsonl.",
        default="auto",
        validator=check_compression,
    )
    compression_level: int | None = muxly.option(
        "Level of gzip (1 to 9) or of parquet's zstd (1 to 22); higher is smaller and slower.",
        default=None,
        validator=check_level,
    )
    partition_by: list[str] = muxly.option(
        "Folders by value, outermost first: a column, or year(c), month(c), day(c), hour(c) of a date or "
        "time, in UTC; 'month(at) as at_month' names the folder.",
        factory=list,
        validator=_check_partition_by,
    )
    keep_partition_columns: bool = muxly.option(
        "Whether the files keep the columns whose values name the folders.", default=True
    )
    max_folders: int = muxly.option(
        "Most partition folders that one delivery may touch.", default=1000, validator=attrs.validators.ge(1)
    )
    folder: str = muxly.option(
        "Folder of a stream, made of {stream} and {pipeline}.",
        default="{stream}",
        validator=_check_folder,
    )
    file_name: str = muxly.option(
        "Name of a file without its ending, made of {delivery}, {stream} and {pipeline}.",
        default="{delivery}",
        validator=_check_file_name,
    )
    csv: Csv = muxly.option("How CSV is written.", factory=Csv)
    parquet: Parquet = muxly.option("How Parquet is written.", factory=Parquet)

    def _layout(self) -> FileLayout:
        return FileLayout(
            folder=self.folder,
            file_name=self.file_name,
            encoding=resolve(self.format, self.compression, self.compression_level, self.csv, self.parquet),
            keys=tuple(layout.PartitionKey.parse(text) for text in self.partition_by),
            keep_columns=self.keep_partition_columns,
            most_folders=self.max_folders,
        )
