"""The router ``prometheus``: numbers in columns become metrics that Prometheus scrapes or receives.

A stream's series follow from its log alone: of a gauge the newest value of each label set, of a counter
the sum of its increments up to the place that was counted last. A delivery that comes again changes
nothing, whichever way out is used: ``textfile``, ``listen``, ``pushgateway`` or ``remote_write``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

import muxly
from muxly_routers._prometheus import names

if TYPE_CHECKING:

    from muxly_routers._prometheus.delivering import Delivering
    from muxly_routers._prometheus.settings import Metric as MetricSettings
    from muxly_routers._prometheus.settings import Settings

__all__ = ["Metric", "Prometheus"]

_WAYS = ("textfile", "listen", "pushgateway", "remote_write")


def _check_labels(instance: Any, attribute: Any, value: list[str] | dict[str, str]) -> None:
    if isinstance(value, dict):
        for label in value:
            if problem := names.label_problem(label):
                raise ValueError(f"labels: {problem}")
    elif twice := [one for one in value if value.count(one) > 1]:
        raise ValueError(f"labels has {twice[0]!r} twice")


def _check_unit(instance: Any, attribute: Any, value: str) -> None:
    if value and names.label_problem(value):
        raise ValueError(f"unit: {value!r} is not a unit like seconds or bytes: use letters, digits and '_'")


class Metric(muxly.Options):
    """A metric and the columns that it is made from."""

    column: str = muxly.option("Column with its values: numbers, booleans, times or durations (in seconds).")
    labels: list[str] | dict[str, str] = muxly.option(
        "Columns that become labels: a list of columns, or a mapping of label to column.",
        factory=list,
        validator=_check_labels,
    )
    type: Literal["gauge", "counter"] = muxly.option(
        "gauge shows the newest value of each label set; counter adds the values up.", default="gauge"
    )
    cumulative: bool = muxly.option(
        "For a counter: whether the column holds totals already, which are not added up.", default=False
    )
    help: str = muxly.option("One line that says what it is; default: which column it is made from.", default="")
    unit: str = muxly.option(
        "Unit, such as seconds or bytes; the metric's name must end in it.", default="", validator=_check_unit
    )
    timestamp: str | None = muxly.option(
        "Column with the times of the values, for listen and remote_write; default: they are of now.", default=None
    )


def _check_metrics(instance: Any, attribute: Any, value: dict[str, Metric]) -> None:
    if not value:
        raise ValueError("metrics: name one or more metrics, such as `temperature: {column: temp, labels: [city]}`")
    families: dict[str, str] = {}
    for name, metric in value.items():
        counter = metric.type == "counter"
        if problem := names.metric_problem(name, counter=counter, unit=metric.unit):
            raise ValueError(f"metrics: {problem}")
        if metric.cumulative and not counter:
            raise ValueError(f"metrics: {name!r} is cumulative, which only a counter can be; write `type: counter`")
        family = names.family(name, counter=counter)
        if family in families:
            raise ValueError(f"metrics: {families[family]!r} and {name!r} would both be the family {family!r}")
        families[family] = name


def _check_stream_label(instance: Any, attribute: Any, value: str) -> None:
    if value and (problem := names.label_problem(value)):
        raise ValueError(f"stream_label: {problem}")
    for name, metric in instance.metrics.items():
        if value in _labels(metric):
            raise ValueError(
                f"stream_label: {value!r} is a label of metric {name!r} too; choose another one, or "
                '`stream_label: ""` if all of the route\'s streams have different label sets'
            )


def _labels(metric: Metric) -> dict[str, str]:
    """Columns by label."""
    if isinstance(metric.labels, dict):
        return metric.labels
    return {names.label_name(column): column for column in metric.labels}


class Prometheus(muxly.Router):
    """Turns columns into metrics, for Prometheus to scrape or receive."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "replace"})
    promise: ClassVar[muxly.Promise] = "idempotent"

    metrics: dict[str, Metric] = muxly.option("Metrics by name, each made from a column.", validator=_check_metrics)
    textfile: Path | None = muxly.option(
        "Folder that the node exporter's textfile collector reads; each stream gets a file there.", default=None
    )
    keep: Path | None = muxly.option(
        "Folder where the series are kept between runs, for more of them than the ledger holds and for mode replace; "
        "default: the ledger, for textfile the folder .muxly in it.",
        default=None,
    )
    stream_label: str = muxly.option(
        "Label that tells the streams of a route apart, with the stream's name; empty = none.",
        default="stream",
        validator=_check_stream_label,
    )
    max_series: int = muxly.option(
        "Most series of one stream; further ones are left out and counted.",
        default=10_000,
        validator=attrs.validators.ge(1),
    )
    expire_seconds: float | None = muxly.option(
        "How long a series that no record reports any more is still shown; default: for ever.",
        default=None,
        validator=attrs.validators.optional(attrs.validators.gt(0)),
    )

    def open(self, run: muxly.Run) -> None:
        """Remember the run."""
        self._run = run
        self._delivering: Delivering | None = None

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Merge the delivery's records into the series of its stream, and show them."""
        return self._opened().deliver(delivery)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation out of sight."""
        self._opened().begin(stream, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show the series of the generation, and no others."""
        self._opened().complete(stream, generation)

    def close(self) -> None:
        """Let go of everything."""
        delivering, self._delivering = getattr(self, "_delivering", None), None
        if delivering is not None:
            delivering.close()

    def _opened(self) -> Delivering:
        # Loads pyarrow, which a pipeline with another router does not need.
        from muxly_routers._prometheus.delivering import Delivering
        from muxly_routers._prometheus.textfile import Textfile

        if self._delivering is None:
            assert self.textfile is not None
            outlet = Textfile(self.textfile, self._run.token)
            self._delivering = Delivering(self._run, self._settings(), outlet, self._folder())
        return self._delivering

    def _folder(self) -> Path | None:
        """Where the series are kept; None = in the ledger."""
        if self.keep is not None:
            return self.keep
        return None if self.textfile is None else self.textfile / ".muxly"

    def _settings(self) -> Settings:
        from muxly_routers._prometheus.settings import Settings

        return Settings(
            metrics=tuple(_metric(name, one) for name, one in self.metrics.items()),
            stream_label=self.stream_label,
            max_series=self.max_series,
            expire_seconds=self.expire_seconds,
        )


def _metric(name: str, given: Metric) -> MetricSettings:
    from muxly_routers._prometheus.settings import Kind
    from muxly_routers._prometheus.settings import Metric as MetricSettings

    counter: Kind = "totals" if given.cumulative else "increments"
    return MetricSettings(
        name=name,
        column=given.column,
        labels=tuple(sorted(_labels(given).items())),
        kind="gauge" if given.type == "gauge" else counter,
        help=given.help or f"Column {given.column} of the records that Muxly delivers.",
        unit=given.unit,
        timestamp=given.timestamp,
    )


@muxly.hookimpl
def muxly_router() -> type[Prometheus]:
    """The router of this module."""
    return Prometheus
