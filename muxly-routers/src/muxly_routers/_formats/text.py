"""Records as text: JSON Lines and CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from muxly_routers._formats import columns, compression, csv, jsonl

if TYPE_CHECKING:
    from muxly_routers._formats.encoding import Encoding, Sink

__all__ = ["TextEncoder"]

# What is turned into text at a time: a large batch never stands in memory a second time, and the other
# threads, whose turn comes only between two parts because arro3 holds the GIL, never wait long.
_PART_ROWS = 8_192
_PART_BYTES = 8 * 1024 * 1024


class TextEncoder:
    """Writes each batch as lines, a part at a time."""

    pending_bytes = 0

    def __init__(self, encoding: Encoding, schema: pa.Schema, sink: Sink) -> None:
        self._encoding = encoding
        self._conversion = columns.conversion(schema, encoding.format)
        self._sink = compression.compressing(encoding, sink)
        self._begun = False
        self.nonfinite = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the batch as lines."""
        size = max(1, batch.num_rows)
        rows = max(1, min(_PART_ROWS, size * _PART_BYTES // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            self._write_part(self._conversion.apply(batch.slice(start, rows)))

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """End the compressed stream."""
        self._sink.finish()

    def _write_part(self, part: pa.RecordBatch) -> None:
        for name, column in zip(part.schema.names, part.columns, strict=True):
            for place, leaf in columns.leaves(name, column):
                self._look_at(place, leaf, inside=place != name)
        if self._encoding.format == "jsonl":
            self._sink.write(jsonl.lines(part))
        else:
            header = self._encoding.header and not self._begun
            self._sink.write(csv.lines(part, self._encoding, header=header))
        self._begun = True

    def _look_at(self, place: str, leaf: pa.Array, *, inside: bool) -> None:
        kind = leaf.type
        if pa.types.is_floating(kind):
            # CSV itself has a text for them, the JSON inside of it has none.
            if inside or self._encoding.format == "jsonl":
                self.nonfinite += pc.sum(pc.invert(pc.is_finite(leaf))).as_py() or 0
        elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            columns.check_years(place, leaf)
