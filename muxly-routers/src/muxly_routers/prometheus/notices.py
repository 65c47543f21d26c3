"""What people are told of a delivery: what was missing, left out, or too late."""

from __future__ import annotations

import muxly
from muxly_routers.prometheus.settings import PrometheusSettings, StreamKey

__all__ = ["tell"]


def tell(
    run: muxly.Run, unit: StreamKey, settings: PrometheusSettings, *, nulls: int = 0, dropped: int = 0, late: int = 0
) -> None:
    """Count and tell what did not become a sample.

    Args:
        run: The run.
        unit: Whose records.
        settings: What was to be made of them.
        nulls: Missing values.
        dropped: Updates beyond the most series.
        late: Samples that the receiver refused as too late.
    """
    if nulls:
        run.measure("null_values", nulls, stream=unit.stream)
    if dropped:
        run.measure("series_dropped", dropped, stream=unit.stream)
        message = (
            f"stream {unit.stream!r} has more than {settings.max_series} series; {dropped} updates of further ones "
            "were left out. Take away a label with many values, or raise max_series"
        )
        run.notice(muxly.Notice("series_limit", message, stream=unit.stream))
    if late:
        run.measure("late_samples", late, stream=unit.stream)
        message = (
            f"stream {unit.stream!r}: the receiver refused {late} samples because it holds a sample of that time or a "
            "later one: they were sent before, or Prometheus' out_of_order_time_window is too short for them"
        )
        run.notice(muxly.Notice("late_samples", message, stream=unit.stream))
