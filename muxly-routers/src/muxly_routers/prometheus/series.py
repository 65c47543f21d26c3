"""The series of one stream, and how far its log was counted for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import astuple, evolve, field, frozen

from muxly_routers.prometheus.counters import CountedLog

__all__ = ["MetricSeries", "StreamSeries", "empty", "grouped", "joined"]

_KEEP_NULLS = pc.ScalarAggregateOptions(skip_nulls=False, min_count=0)
_EXACT = float(1 << 62)


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


def joined(one: pa.Table, other: pa.Table) -> pa.Table:
    """Both tables, one after the other; floats if one of them has floats."""
    kinds = {table.column("value").type for table in (one, other) if len(table)}
    if kinds == {pa.int64(), pa.float64()}:
        one, other = (_as_floats(table) for table in (one, other))
    tables = [table for table in (one, other) if len(table)]
    return pa.concat_tables(tables) if tables else one


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
        """How many there are."""
        return sum(len(one.table) for one in self.families.values())

    def unexpired(self, since: int) -> StreamSeries:
        """Without those that were last reported before that second."""
        kept = {
            name: evolve(one, table=one.table.filter(pc.greater_equal(one.table.column("seen"), since)))
            for name, one in self.families.items()
        }
        return evolve(self, families=kept)

    def to_state(self) -> dict[str, Any]:
        """As JSON values, the tables compressed."""
        families = {
            name: {
                "definition": one.definition,
                "counted": list(astuple(one.counted)),
                "series": base64.b64encode(_packed(one.table)).decode("ascii"),
            }
            for name, one in self.families.items()
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
        """What ``to_state`` gave; none for None."""
        if not state:
            return cls()
        families = {
            name: MetricSeries(
                definition=one["definition"],
                counted=CountedLog(*one["counted"]),
                table=_unpacked(base64.b64decode(one["series"])),
            )
            for name, one in state["families"].items()
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
