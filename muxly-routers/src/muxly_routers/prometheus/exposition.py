"""Series as text: OpenMetrics 1.0, and the text format 0.0.4 that came before it.

https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md and
https://prometheus.io/docs/instrumenting/exposition_formats/. Lines are joined by Arrow's kernels; the
bytes of a joined column are the text, without a Python object for each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from attrs import evolve, frozen

import muxly
from muxly_routers.prometheus.options import MetricDefinition, StreamKey
from muxly_routers.prometheus.series import grouped, joined

__all__ = ["CONTENT_TYPES", "ExpositionFormat", "MetricFamily", "PublishedSeries", "render"]

ExpositionFormat = Literal["openmetrics", "text"]
CONTENT_TYPES: dict[ExpositionFormat, str] = {
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "text": "text/plain; version=0.0.4; charset=utf-8",
}
_LINES = 1 << 16
_ODD_FLOATS = (("nan", "NaN"), ("-nan", "NaN"), ("inf", "+Inf"), ("-inf", "-Inf"))


@frozen
class MetricFamily:
    """A metric and its series, ready to be shown.

    Args:
        metric: What it is.
        tables: Its series, as in ``Family.table``; no label set twice in all of them.
    """

    metric: MetricDefinition
    tables: Sequence[pa.Table]


def render(families: Iterable[MetricFamily], format: ExpositionFormat, *, times: bool = True) -> bytes:
    """All metrics as one document.

    Args:
        families: The metrics, each once.
        format: Which of the two formats.
        times: Whether the values' own times are shown.
    """
    parts: list[bytes | pa.Buffer] = []
    for family in families:
        tables = [table for table in family.tables if len(table)]
        if tables:
            parts.append(_head(family.metric, format))
            parts.extend(lines for table in tables for lines in _lines(family.metric, table, format, times=times))
    if format == "openmetrics":
        parts.append(b"# EOF\n")
    return b"".join(parts)


def _head(metric: MetricDefinition, format: ExpositionFormat) -> bytes:
    """The lines before a metric's samples."""
    opened = format == "openmetrics"
    name = metric.family if opened else metric.sample
    lines = [f"# TYPE {name} {'counter' if metric.is_counter else 'gauge'}"]
    if opened and metric.unit:
        lines.append(f"# UNIT {name} {metric.unit}")
    if metric.help:
        text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"# HELP {name} {_quoted(text) if opened else text}")
    return "".join(f"{line}\n" for line in (lines if opened else reversed(lines))).encode()


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


def _lines(metric: MetricDefinition, table: pa.Table, format: ExpositionFormat, *, times: bool) -> Iterable[pa.Buffer]:
    name = metric.sample
    for batch in table.combine_chunks().to_batches(max_chunksize=_LINES):
        labels, value, time, _seen = batch.columns
        ends = _ends(time, format) if times and time.null_count < len(time) else "\n"
        lines = pc.binary_join_element_wise(f"{name}{{", labels, "} ", number_text(value), ends, "")
        yield joined_bytes(lines)


def joined_bytes(lines: pa.Array) -> pa.Buffer:
    """The bytes of all values, one after the other, as they lie in memory."""
    if lines.offset or not lines.buffers()[1]:
        lines = pa.concat_arrays([lines])
    places = lines.buffers()[1]
    if places is None or not len(lines):
        return pa.py_buffer(b"")
    ends = memoryview(places).cast("i")
    return lines.buffers()[2].slice(ends[lines.offset], ends[lines.offset + len(lines)] - ends[lines.offset])


def number_text(numbers: pa.Array) -> pa.Array:
    """Numbers as Go and OpenMetrics read them; integers exact, floats with the fewest digits that give them back."""
    text = numbers.cast(pa.string())
    if pa.types.is_floating(numbers.type) and not pc.all(pc.is_finite(numbers)).as_py():
        for found, written in _ODD_FLOATS:
            text = pc.if_else(pc.equal(text, found), written, text)
    return text


def _ends(time: pa.Array, format: ExpositionFormat) -> pa.Array:
    """Space, time and line end; only the line end where there is no time."""
    written = _seconds_text(time) if format == "openmetrics" else time.cast(pa.string())
    stamped = pc.binary_join_element_wise(" ", pc.fill_null(written, ""), "\n", "")
    return pc.if_else(time.is_valid(), stamped, "\n")


def _seconds_text(time: pa.Array) -> pa.Array:
    """Milliseconds as seconds with three digits behind the point, exact."""
    digits = pc.utf8_lpad(pc.abs(time).cast(pa.string()), 4, "0")
    sign = pc.if_else(pc.less(time, 0), "-", "")
    return pc.binary_join_element_wise(
        sign, pc.utf8_slice_codeunits(digits, 0, -3), ".", pc.utf8_slice_codeunits(digits, -3), ""
    )


@frozen
class _PublishedStream:
    """The series of one stream, and after how many seconds without a report one is left out."""

    families: tuple[MetricFamily, ...]
    expire_seconds: float | None


class PublishedSeries:
    """The series that were published last, by stream; not thread-safe."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, _PublishedStream] = {}

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily], expire_seconds: float | None) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RouteError: Another route shows a metric of that name that is of another kind.
        """
        new = {family.metric.family: family.metric for family in families}
        for other in [key for key in self._streams if key != stream_key]:
            self._drop_conflicting(stream_key, new, other)
        self._streams[stream_key] = _PublishedStream(tuple(families), expire_seconds)

    def _drop_conflicting(self, stream_key: StreamKey, new: Mapping[str, MetricDefinition], other: StreamKey) -> None:
        """Show no metric as of two kinds."""
        shown = self._streams[other]
        clashing = [family for family in shown.families if _clash(new.get(family.metric.family), family.metric)]
        if not clashing:
            return
        if (stream_key.pipeline, stream_key.route) != (other.pipeline, other.route):
            raise muxly.RouteError(
                f"metric {new[clashing[0].metric.family].name!r} of stream {stream_key.stream!r} differs in type "
                f"or unit from the one of route {other.route!r} of pipeline {other.pipeline!r}, which is shown at "
                "the same address; name one of them otherwise"
            )
        # The route was configured anew since that stream was delivered last.
        left = (family for family in shown.families if not _clash(new.get(family.metric.family), family.metric))
        self._streams[other] = evolve(shown, families=tuple(left))

    @property
    def lasting(self) -> bool:
        """Whether the passing of time changes nothing, as no series expires."""
        return all(stream.expire_seconds is None for stream in self._streams.values())

    def merged(self, now: float) -> list[MetricFamily]:
        """Each metric once, with the series of all streams; of a label set in several streams only one.

        Args:
            now: In seconds since 1970.
        """
        metrics: dict[str, MetricDefinition] = {}
        tables: dict[str, list[pa.Table]] = {}
        for published in (self._streams[stream_key] for stream_key in sorted(self._streams, key=_order)):
            for families in published.families:
                metrics.setdefault(families.metric.family, families.metric)
                tables.setdefault(families.metric.family, []).extend(
                    _unexpired(families, published.expire_seconds, now)
                )
        return [MetricFamily(metric, _distinct(tables[name])) for name, metric in metrics.items()]


def _order(stream_key: StreamKey) -> tuple[str, str, str]:
    return stream_key.pipeline, stream_key.route, stream_key.stream


def _clash(mine: MetricDefinition | None, known: MetricDefinition) -> bool:
    return mine is not None and (mine.is_counter, mine.unit) != (known.is_counter, known.unit)


def _unexpired(families: MetricFamily, expire_seconds: float | None, now: float) -> list[pa.Table]:
    if expire_seconds is None:
        return list(families.tables)
    return [
        table.filter(pc.greater_equal(table.column("seen"), int(now - expire_seconds))) for table in families.tables
    ]


def _distinct(tables: list[pa.Table]) -> list[pa.Table]:
    if len(tables) < 2:
        return tables
    whole = tables[0]
    for table in tables[1:]:
        whole = joined(whole, table)
    return [grouped(whole, adding=False)]
