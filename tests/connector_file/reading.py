"""Reading files with the connector alone, as the runner would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import field, frozen

import muxly
from muxly_connector_file import File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@frozen
class Read:
    """What one plan gave."""

    batches: list[muxly.Batch]
    notices: list[muxly.Notice] = field(factory=list)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record for batch in self.batches if batch.data is not None for record in batch.data.to_pylist()]

    @property
    def rejected(self) -> list[muxly.Rejected]:
        return [one for batch in self.batches for one in batch.rejected]

    @property
    def tables(self) -> list[pa.Table]:
        made = [batch.to_arrow()[0] for batch in self.batches]
        return [one for one in made if one.num_rows]

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(self.tables, promote_options="permissive")


def opened(path: Path | str, **options: Any) -> tuple[File, list[muxly.Notice]]:
    """The connector, opened, and the list that its notices go to."""
    notices: list[muxly.Notice] = []
    connector = File(path=path, **options)
    connector.open(muxly.Run("01J0000000000000000000000", "test", on_notice=notices.append))
    return connector, notices


def read_all(path: Path | str, **options: Any) -> Read:
    """All files of all streams, from the start."""
    connector, notices = opened(path, **options)
    batches = [
        batch
        for stream in connector.streams()
        for partition in connector.plan(stream, None).partitions
        for batch in connector.read(stream, partition, partition.cursor)
    ]
    return Read(batches, notices)


def resumed(path: Path | str, **options: Any) -> Iterator[tuple[Read, Read]]:
    """A single file read as a whole, and read in two parts, for each cursor on the way."""
    connector, notices = opened(path, **options)
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    whole = list(connector.read(stream, partition, None))
    for index, batch in enumerate(whole):
        if batch.cursor is not None:
            rest = list(connector.read(stream, partition, batch.cursor))
            yield Read(whole, notices), Read([*whole[: index + 1], *rest])
