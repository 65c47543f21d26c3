"""Records sorted into their partition folders, and encoded folder by folder.

Only so many folders are open at a time; the records of the others are read again in a further pass, so that the
memory and descriptors of a delivery have a limit however many folders it touches.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

import muxly
from muxly_routers._files import layout
from muxly_routers._files.layout import FileLayout, PartitionKey, rendered
from muxly_routers._formats import Encoder, Encoding, Sink, open_encoder
from muxly_routers._formats.columns import check_years, is_text

__all__ = ["DraftStore", "FileShape", "PartitionEncoder", "Partitions", "overwrite_keys", "value_folders"]

FolderPath = tuple[str, ...]

_MOST_CODES = 1 << 62
_CALL = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_SHAPES = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}


@frozen
class Partitions:
    """Splits batches by the values of some columns.

    Args:
        keys: One for each level of folders, outermost first.
        keep: Whether the files keep the columns whose values the folders name.
    """

    keys: tuple[layout.PartitionKey, ...]
    keep: bool = True

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of the files.

        Raises:
            RouteError: A column is missing, or a function that there is not is named.
        """
        for key in self.keys:
            if key.column not in schema.names and (called := _CALL.fullmatch(key.column)):
                raise muxly.RouteError(
                    f"partition_by: {key.column!r}: there is no function {called[1]!r}; there are "
                    f"{', '.join(_SHAPES)}, as in 'month({called[2]})'"
                )
            if key.column not in schema.names:
                raise muxly.RouteError(
                    f"column {key.column!r} of partition_by is not among the columns "
                    f"({', '.join(schema.names)}); change partition_by or the route's columns"
                )
            if key.label in schema.names and (key.part is not None or key.label != key.column):
                raise muxly.RouteError(
                    f"partition_by: the folders {key.label}=... would be read as the column {key.label!r}, "
                    f"which is there too; name them with 'as', as in '{key.part}({key.column}) as "
                    f"{key.column}_{key.part or 'folder'}'"
                )
        dropped = self._dropped()
        return pa.schema([column for column in schema if column.name not in dropped], metadata=schema.metadata)

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[FolderPath, pa.RecordBatch]]:
        """The records of each folder, in their order.

        Raises:
            RouteError: A column's type cannot name folders.
            RejectedError: A value cannot name a folder.
        """
        if not self.keys or not batch.num_rows:
            yield (), batch
            return
        dictionaries = [_texts(key, batch.column(key.column)) for key in self.keys]
        codes = _codes([texts.indices for texts in dictionaries], [len(texts.dictionary) for texts in dictionaries])
        kept = batch.select([name for name in batch.schema.names if name not in self._dropped()])
        for rows, first in _runs(kept, codes):
            values = [texts.dictionary[texts.indices[first].as_py()].as_py() for texts in dictionaries]
            yield self._folders(values), rows

    def _folders(self, texts: Sequence[str | None]) -> FolderPath:
        names = tuple(layout.folder_name(key.label, text) for key, text in zip(self.keys, texts, strict=True))
        for name in names if not self.keep else ():
            if layout.is_cut(name):
                raise muxly.RejectedError(
                    f"a value is too long for the name of its folder, {name[:60]}...; "
                    "with keep_partition_columns: true the file itself keeps it whole"
                )
        return names

    def _dropped(self) -> set[str]:
        return set() if self.keep else {key.column for key in self.keys if key.part is None}


def _codes(indices: list[pa.Array], sizes: list[int]) -> pa.Array:
    """One number for each record, equal for records of one folder."""
    codes, count = indices[0].cast(pa.int64()), sizes[0]
    for more, size in zip(indices[1:], sizes[1:], strict=True):
        if count * size > _MOST_CODES:
            # Of many levels only few combinations are there: these are counted anew.
            dense = codes.dictionary_encode()
            codes, count = dense.indices.cast(pa.int64()), len(dense.dictionary)
        codes, count = pc.add(pc.multiply(codes, size), more.cast(pa.int64())), count * size
    return codes


def _runs(batch: pa.RecordBatch, codes: pa.Array) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The records of each code, in their order, each with the number of the first."""
    runs = pc.run_end_encode(codes)
    if len(runs.values) == 1:
        yield batch, 0
        return
    order = pc.sort_indices(codes)
    if not _can_be_taken(batch):
        # Some types can only be sliced: the codes come again and again then, as in the batch.
        yield from ((batch.slice(start, count), start) for start, count in _spans(runs))
        return
    for start, count in _spans(pc.run_end_encode(codes.take(order))):
        # Copies of their own: slices would keep the whole batch until the last folder is written.
        yield batch.take(order.slice(start, count)), order[start].as_py()


def _can_be_taken(batch: pa.RecordBatch) -> bool:
    try:
        batch.take(pa.array([0]))
    except pa.ArrowNotImplementedError:
        return False
    return True


def _spans(runs: pa.RunEndEncodedArray) -> Iterator[tuple[int, int]]:
    start = 0
    for end in runs.run_ends.to_pylist():
        yield start, end - start
        start = end


def _texts(key: layout.PartitionKey, column: pa.Array) -> pa.DictionaryArray:
    """The column as indices into the texts of its folders; missing values are null in the dictionary."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    column = _in_utc(key, column)
    if key.part is not None:
        column = _floor(key, column)
    elif not _names_folders(column.type):
        raise muxly.RouteError(
            f"partition_by: column {key.column!r} is {column.type}, whose values are no names of folders; "
            f"use text, integers, booleans or dates, or day({key.column})"
        )
    encoded = column.dictionary_encode(null_encoding="encode")
    values = encoded.dictionary
    texts = pc.strftime(values, _SHAPES[key.part]) if key.part else _plain(values)
    return pa.DictionaryArray.from_arrays(encoded.indices, texts)


def _in_utc(key: layout.PartitionKey, column: pa.Array) -> pa.Array:
    """Dates and times in types that Python has, and times with a zone in UTC, whatever their zone is called.

    Raises:
        RejectedError: One has no four-digit year, or is told in nanoseconds where it names a folder itself.
    """
    kind = column.type
    if pa.types.is_date64(kind):
        column = column.cast(pa.date32())
    if pa.types.is_timestamp(kind):
        zone = "UTC" if kind.tz is not None else None
        column = column.cast(pa.timestamp(kind.unit, zone))
        if kind.unit == "ns" and key.part is None:
            try:
                column = column.cast(pa.timestamp("us", zone))
            except pa.ArrowInvalid as error:
                raise muxly.RejectedError(
                    f"partition_by: column {key.column!r}: a time with nanoseconds names no folder; "
                    f"use hour({key.column})"
                ) from error
    check_years(key.column, column)
    return column


def _names_folders(kind: pa.DataType) -> bool:
    types = pa.types
    flat = (types.is_integer, types.is_boolean, types.is_date, types.is_decimal, types.is_timestamp)
    return is_text(kind) or any(is_kind(kind) for is_kind in flat)


def _plain(values: pa.Array) -> pa.Array:
    return pa.array([value_text(value) for value in values.to_pylist()], pa.string())


def _floor(key: layout.PartitionKey, column: pa.Array) -> pa.Array:
    """The start of each value's year, month, day or hour, in UTC."""
    kind = column.type
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("ms"))
        elif is_text(kind):
            column = _parsed(column)
        elif not pa.types.is_timestamp(kind):
            raise muxly.RouteError(
                f"partition_by: {key.part}({key.column}) needs a date or a time, and the column is {kind}"
            )
        if column.type.tz is not None:
            column = column.cast(pa.timestamp(column.type.unit))
        return pc.floor_temporal(column, unit=key.part)
    except pa.ArrowInvalid as error:
        raise muxly.RejectedError(f"partition_by: {key.part}({key.column}): {error}") from error


def _parsed(column: pa.Array) -> pa.Array:
    """ISO 8601 text as times; with zones or without, not both in one column."""
    try:
        return column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us", "UTC"))


def value_text(value: Any) -> str | None:
    """A value as the text of its folder; equal values of one column give equal texts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def overwrite_keys(stream: muxly.Stream, keys: tuple[layout.PartitionKey, ...]) -> tuple[layout.PartitionKey, ...]:
    """The levels of folders in mode ``overwrite``: first those of the stream's overwrite key.

    Raises:
        RouteError: The stream has none.
    """
    if not stream.overwrite_key:
        raise muxly.RouteError(
            f"stream {stream.name!r} has no overwrite key, which mode overwrite needs; "
            "choose mode append or replace for this route"
        )
    first = tuple(layout.PartitionKey(column, None, column) for column in stream.overwrite_key)
    return first + tuple(key for key in keys if key not in first)


def value_folders(values: Sequence[Any], keys: Sequence[layout.PartitionKey], schema: pa.Schema) -> FolderPath:
    """The folders of one value of the overwrite key, as ``split`` would name them.

    Args:
        values: One for each column of the key; of the column's type, or of one that converts to it.
        keys: The columns of the key.
        schema: Of the records.
    """
    texts = [value_text(_as_in_column(value, key.column, schema)) for value, key in zip(values, keys, strict=True)]
    return tuple(layout.folder_name(key.label, text) for key, text in zip(keys, texts, strict=True))


def _as_in_column(value: Any, column: str, schema: pa.Schema) -> Any:
    index = schema.get_field_index(column)
    if index < 0:
        return value
    kind = schema.field(index).type
    try:
        return pa.scalar(value).cast(kind.value_type if pa.types.is_dictionary(kind) else kind).as_py()
    except (pa.ArrowException, TypeError, ValueError):
        return value


# Each open draft holds records that wait and perhaps a file; more folders are written in further passes.
_OPEN_DRAFTS = 48
_WAITING_BYTES = 16 * 1024 * 1024

D = TypeVar("D", bound=Sink)


@frozen
class FileShape:
    """What the files of a delivery look like.

    Args:
        encoding: The format with its settings.
        partitions: How records are sorted into folders.
        name: The name of each file in its folder.
        most_folders: How many folders one delivery may have.
    """

    encoding: Encoding
    partitions: Partitions
    name: str
    most_folders: int

    @classmethod
    def of(cls, files: FileLayout, keys: tuple[PartitionKey, ...], names: Mapping[str, str], ending: str = "") -> Self:
        """The shape of one delivery's files.

        Args:
            files: The options of the route.
            keys: The levels of folders, outermost first.
            names: The delivery's id, stream and pipeline, by placeholder.
            ending: Follows the usual ending of the name.
        """
        name = rendered(files.file_name, names) + files.encoding.suffix + ending
        return cls(files.encoding, Partitions(keys, files.keep_columns), name, files.most_folders)


class DraftStore(Protocol[D]):
    """Where encoded bytes go, a draft for each folder; who gives drafts also discards them."""

    def is_published(self, folders: FolderPath) -> bool:
        """Whether an earlier attempt has published this folder's file; asked once for each."""

    def draft(self, folders: FolderPath) -> D:
        """A new, empty draft for a folder's file."""

    def settle(self, folders: FolderPath, draft: D, nonfinite: int) -> None:
        """Take back a draft that is whole; ``nonfinite`` of its values were written as null."""


@frozen
class _OpenDraft(Generic[D]):
    draft: D
    encoder: Encoder


@define
class PartitionEncoder(Generic[D]):
    """Sorts records into folders, and encodes each folder's into its own draft.

    Args:
        shape: What the files look like.
        delivery: The records.
        drafts: Where the bytes go.
    """

    shape: FileShape
    delivery: muxly.Delivery
    drafts: DraftStore[D]
    published: set[FolderPath] = field(factory=set, init=False)
    settled: set[FolderPath] = field(factory=set, init=False)
    _absent: set[FolderPath] = field(factory=set, init=False)
    _open: dict[FolderPath, _OpenDraft[D]] = field(factory=dict, init=False)

    def run(self, schema: pa.Schema) -> None:
        """Encode everything, in as many passes as it takes.

        Args:
            schema: Of the files.
        """
        while self._one_pass(schema):
            pass

    def _one_pass(self, schema: pa.Schema) -> bool:
        """Write as many folders as may be open; whether there are more."""
        left_out = False
        for batch in self.delivery.batches():
            for folders, rows in self.shape.partitions.split(batch):
                if not rows.num_rows or folders in self.settled or self.is_published(folders):
                    continue
                if folders not in self._open and len(self._open) >= _OPEN_DRAFTS:
                    left_out = True
                    continue
                self.write(folders, rows, schema)
        for folders in list(self._open):
            self.finish(folders)
        return left_out

    def is_published(self, folders: FolderPath) -> bool:
        """Whether the file of these folders was published before."""
        if folders in self.published:
            return True
        if folders in self._absent:
            return False
        published = self.drafts.is_published(folders)
        (self.published if published else self._absent).add(folders)
        return published

    def write(self, folders: FolderPath, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        """Encode records into the draft of their folders."""
        if folders not in self._open:
            self._check_count()
            draft = self.drafts.draft(folders)
            encoder = open_encoder(self.shape.encoding, schema, draft, digest=self.delivery.digest)
            self._open[folders] = _OpenDraft(draft, encoder)
        self._open[folders].encoder.write(batch)
        if sum(opened.encoder.pending_bytes for opened in self._open.values()) > _WAITING_BYTES:
            max(self._open.values(), key=lambda opened: opened.encoder.pending_bytes).encoder.flush()

    def _check_count(self) -> None:
        if len(self._open) + len(self.settled) + len(self.published) >= self.shape.most_folders:
            raise muxly.RouteError(
                f"partition_by makes more than {self.shape.most_folders} folders of one delivery; "
                "choose a coarser key, such as month(column), or raise max_folders"
            )

    def finish(self, folders: FolderPath) -> None:
        """End the file of these folders, and give its draft back."""
        opened = self._open[folders]
        opened.encoder.finish()
        self.drafts.settle(folders, opened.draft, opened.encoder.nonfinite)
        del self._open[folders]
        self.settled.add(folders)
