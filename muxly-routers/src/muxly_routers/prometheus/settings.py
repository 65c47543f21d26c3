"""What the options of the router come to: values that the machinery works with."""

from __future__ import annotations

import hashlib
from typing import Literal

from attrs import field, frozen

from muxly_routers.prometheus import names

__all__ = ["MetricKind", "MetricDefinition", "PrometheusSettings", "StreamKey"]

MetricKind = Literal["gauge", "increments", "totals"]


@frozen(kw_only=True)
class MetricDefinition:
    """One metric and the columns that it is made from.

    Args:
        name: As it is shown.
        column: Where its values stand; None = each record counts one.
        labels: Pairs of label and column, sorted by label.
        kind: ``increments`` are added up; ``totals`` are a counter's totals already.
        help: One line for people.
        unit: Such as ``"seconds"``.
        timestamp: The column with the times of the values, if any.
    """

    name: str
    column: str | None
    labels: tuple[tuple[str, str], ...] = ()
    kind: MetricKind = "gauge"
    help: str = ""
    unit: str = ""
    timestamp: str | None = None

    @property
    def family(self) -> str:
        """The name of its family in OpenMetrics."""
        return names.family(self.name, counter=self.is_counter)

    @property
    def sample(self) -> str:
        """The name of its samples."""
        return f"{self.family}_total" if self.is_counter else self.name

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.kind != "gauge"

    def definition(self, stream_label: str) -> str:
        """Names what its series follow from; under another definition they begin anew."""
        facts = (self.column, self.labels, self.kind, self.timestamp, stream_label)
        return hashlib.blake2b(repr(facts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@frozen(kw_only=True)
class PrometheusSettings:
    """What is made of the records of every stream.

    Args:
        metrics: In the order of the configuration.
        stream_label: The label with the stream's name; empty = none.
        max_series: Most series of one stream.
        expire_seconds: When a series that is not reported is left out; None = never.
    """

    metrics: tuple[MetricDefinition, ...]
    stream_label: str
    max_series: int
    expire_seconds: float | None


@frozen
class StreamKey:
    """Whose series they are: one stream of one route.

    Args:
        pipeline: The pipeline's name.
        route: The route's name; empty outside a pipeline.
        stream: The stream's name.
    """

    pipeline: str
    route: str
    stream: str = field()
