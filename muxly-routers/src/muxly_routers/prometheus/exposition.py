"""Series as text: OpenMetrics 1.0, and the text format 0.0.4 that came before it.

https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md and
https://prometheus.io/docs/instrumenting/exposition_formats/. Lines are joined by Arrow's kernels; the
bytes of a joined column are the text, without a Python object for each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from muxly_routers.prometheus.settings import MetricDefinition

__all__ = ["CONTENT_TYPES", "MetricFamily", "ExpositionFormat", "render"]

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


def render(exposed: Iterable[MetricFamily], format: ExpositionFormat, *, times: bool = True) -> bytes:
    """All metrics as one document.

    Args:
        exposed: The metrics, each once.
        format: Which of the two formats.
        times: Whether the values' own times are shown.
    """
    parts: list[bytes | pa.Buffer] = []
    for one in exposed:
        tables = [table for table in one.tables if len(table)]
        if tables:
            parts.append(_head(one.metric, format))
            parts.extend(lines for table in tables for lines in _lines(one.metric, table, format, times=times))
    if format == "openmetrics":
        parts.append(b"# EOF\n")
    return b"".join(parts)


def _head(metric: MetricDefinition, format: ExpositionFormat) -> bytes:
    """What stands before a metric's samples."""
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
        yield content(lines)


def content(lines: pa.Array) -> pa.Buffer:
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
