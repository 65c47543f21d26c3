"""The series of one stream, and how far its log was counted for them.

A series' values follow from the log alone, so a repeat changes nothing: records at or before the position up
to which a metric has counted are left out, whatever delivery brings them. Deliveries are cut by the runner, and a
replay may cut them elsewhere, so a position is a segment and a number of records in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import astuple, evolve, field, frozen

import muxly

__all__ = ["CountedLog", "MetricSeries", "SegmentPart", "StreamSeries", "WHOLE", "empty", "grouped", "joined"]

WHOLE = 1 << 62
"""The end of a part of a segment that goes to the segment's end."""


@frozen
class SegmentPart:
    """A part of a segment: a delivery may cut its first segment and its last.

    Args:
        position: The segment's; 0 = that of no log, and always new.
        begin: How many records of the segment lie before it, before the route's filter.
        end: How many lie up to its end, before the filter; ``WHOLE`` = all.
    """

    position: int
    begin: int = 0
    end: int = WHOLE

    @classmethod
    def of(cls, position: int, bounds: tuple[tuple[int, int], tuple[int, int]]) -> SegmentPart:
        """The part at a position of what lies between two bounds; dead letters lie in no log any more."""
        (first, begin), (last, end) = bounds
        if not first <= position <= last:
            return cls(0)
        return cls(position, begin if position == first else 0, end if position == last and position else WHOLE)


@frozen
class CountedLog:
    """The part of the log that a metric has counted.

    Where parts begin and end is known before the route's filter, and how many records they have behind
    it. A replay may cut a segment elsewhere; then the part in which the place lies is known in half.

    Args:
        position: The greatest position of which records were counted; 0 = none.
        end: How far in that segment, before the filter.
        records: How many records that are, after the filter.
        passed_end: Where the part of that segment ended that came last.
        passed: How many records lie before that place, after the filter.
        first: The position where counting began.
        begin: Where in that segment.
    """

    position: int = 0
    end: int = 0
    records: int = 0
    passed_end: int = 0
    passed: int = 0
    first: int = 0
    begin: int = 0

    def follows(self, part: SegmentPart) -> bool:
        """Return whether a part lies before all that was counted, so that a replay fills what came before."""
        return part.position > 0 and (part.position, part.begin) < (self.first, self.begin)

    def known(self, part: SegmentPart) -> int | None:
        """Return how many records of a part were counted already; None = all."""
        if part.position == 0 or part.position > self.position:
            return 0
        if part.position < self.position or part.end <= self.end:
            return None
        return 0 if part.begin >= self.end else self.records - self._before(part.begin)

    def after(self, part: SegmentPart, records: int) -> CountedLog:
        """The progress after a part of so many records."""
        if part.position == 0 or part.position < self.position:
            return self
        if self.position == 0:
            return CountedLog(part.position, part.end, records, part.end, records, part.position, part.begin)
        if part.position > self.position:
            return self._at(part, records, records)
        if part.begin >= self.end:
            return self._at(part, self.records + records, self.records + records)
        passed = self._before(part.begin) + records
        if part.end <= self.end:
            return evolve(self, passed_end=part.end, passed=passed)
        return self._at(part, max(passed, self.records), passed)

    def _at(self, part: SegmentPart, records: int, passed: int) -> CountedLog:
        return CountedLog(part.position, part.end, records, part.end, passed, self.first, self.begin)

    def _before(self, begin: int) -> int:
        """Count the records of the segment before a place, after the filter."""
        return self.passed if begin and begin >= self.passed_end else 0


_KEEP_NULLS = pc.ScalarAggregateOptions(skip_nulls=False, min_count=0)
_EXACT = float(1 << 62)
_STATE_BYTES = 1 << 20


@frozen(kw_only=True)
class MetricSeries:
    """The series of one metric.

    Args:
        definition: Names what they follow from.
        counted: How far the log was counted for them.
        table: Columns ``labels``, ``value`` (int64 or float64), ``time`` (ms since 1970, or null) and ``seen`` (s).
    """

    definition: str
    counted: CountedLog = field(factory=CountedLog)
    table: pa.Table


def empty(labels: pa.DataType) -> pa.Table:
    """No series."""
    return pa.schema(
        [("labels", labels), ("value", pa.int64()), ("time", pa.int64()), ("seen", pa.int64())]
    ).empty_table()


def grouped(table: pa.Table, *, adding: bool) -> pa.Table:
    """One line for each label set, in the order they first came: the last value, or the sum of all."""
    if len(table) < 2:
        return table
    wanted: list[tuple[Any, ...]] = [(name, "last", _KEEP_NULLS) for name in ("value", "time", "seen")]
    if adding:
        wanted = [("value", "sum"), ("time", "max"), ("seen", "max")]
        table = _wide_enough(table)
    found = table.group_by("labels", use_threads=False).aggregate(wanted)
    return found.select(range(4)).rename_columns(["labels", "value", "time", "seen"])


def _wide_enough(table: pa.Table) -> pa.Table:
    """With floats in place of integers whose sum may leave 64 bits."""
    values = table.column("value")
    if pa.types.is_integer(values.type) and pc.sum(pc.abs(values.cast(pa.float64(), safe=False))).as_py() >= _EXACT:
        return table.set_column(1, "value", values.cast(pa.float64(), safe=False))
    return table


def joined(first: pa.Table, second: pa.Table) -> pa.Table:
    """Both tables, one after the other; floats if one of them has floats."""
    kinds = {table.column("value").type for table in (first, second) if len(table)}
    if kinds == {pa.int64(), pa.float64()}:
        first, second = (_as_floats(table) for table in (first, second))
    tables = [table for table in (first, second) if len(table)]
    return pa.concat_tables(tables) if tables else first


def _as_floats(table: pa.Table) -> pa.Table:
    return table.set_column(1, "value", table.column("value").cast(pa.float64(), safe=False))


@frozen(kw_only=True)
class StreamSeries:
    """All series of one stream of one route.

    Args:
        families: By the metric's name.
        dropped: How many updates were left out because there were too many series.
        delivery: The delivery that was counted last.
        sent_at: The time of its samples where they are sent, in milliseconds since 1970.
    """

    families: Mapping[str, MetricSeries] = field(factory=dict)
    dropped: int = 0
    delivery: str = ""
    sent_at: int = 0

    @property
    def count(self) -> int:
        """The number of series."""
        return sum(len(family.table) for family in self.families.values())

    def unexpired(self, since: int) -> StreamSeries:
        """Without those that were last reported before that second."""
        kept = {
            name: evolve(family, table=family.table.filter(pc.greater_equal(family.table.column("seen"), since)))
            for name, family in self.families.items()
        }
        return evolve(self, families=kept)

    def to_ledger_state(self, stream: str) -> dict[str, Any]:
        """The same as ``to_state``, for the ledger.

        Args:
            stream: The stream's name, for the error.

        Raises:
            RouteError: They are more than the ledger keeps.
        """
        state = self.to_state()
        if (size := len(json.dumps(state))) > _STATE_BYTES - 1024:
            raise muxly.RouteError(
                f"the {self.count} series of stream {stream!r} take {size} bytes, and the ledger keeps at most "
                "1 MiB; write `keep: FOLDER` to keep them in files, or take away labels"
            )
        return state

    def to_state(self) -> dict[str, Any]:
        """As JSON values, the tables compressed."""
        families = {
            name: {
                "definition": family.definition,
                "counted": list(astuple(family.counted)),
                "series": base64.b64encode(_packed(family.table)).decode("ascii"),
            }
            for name, family in self.families.items()
        }
        return {
            "version": 1,
            "families": families,
            "dropped": self.dropped,
            "delivery": self.delivery,
            "sent_at": self.sent_at,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any] | None) -> StreamSeries:
        """Read the result of ``to_state``; None gives no series."""
        if not state:
            return cls()
        families = {
            name: MetricSeries(
                definition=series["definition"],
                counted=CountedLog(*series["counted"]),
                table=_unpacked(base64.b64decode(series["series"])),
            )
            for name, series in state["families"].items()
        }
        return cls(
            families=families, dropped=state["dropped"], delivery=state["delivery"], sent_at=state.get("sent_at", 0)
        )


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _unpacked(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()
