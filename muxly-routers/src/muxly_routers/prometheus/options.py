"""Options of the router ``prometheus``: their checks, and the metric definitions that they come to.

Checks are given to ``muxly.option`` as validators: the router, the option, its value; each raises ``ValueError``
with the problem. Names follow https://prometheus.io/docs/concepts/data_model/ and OpenMetrics 1.0: a metric's
name is made of letters, digits, ``_`` and ``:``, a label's of letters, digits and ``_``; labels that begin with
``__`` are Prometheus' own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import field, frozen

import muxly
from muxly_routers._http.credentials import Basic, Tls

__all__ = [
    "Metric",
    "MetricDefinition",
    "MetricKind",
    "OWN",
    "PrometheusOptions",
    "PrometheusSettings",
    "StreamKey",
    "check_grouping",
    "check_labels",
    "check_listen",
    "check_metrics",
    "check_outlets",
    "check_stream_label",
    "check_unit",
    "columns_by_label",
    "family_name",
    "label_name",
    "label_problem",
    "metric_problem",
    "parse_address",
]

_OUTLETS = ("textfile", "listen", "pushgateway", "remote_write")
_ONLY_WITH = {
    "job": ("pushgateway",),
    "grouping": ("pushgateway",),
    "keep": ("textfile", "listen", "pushgateway"),
    "operations": ("listen",),
    "bearer": ("listen", "pushgateway", "remote_write"),
    "basic": ("listen", "pushgateway", "remote_write"),
    "tls": ("pushgateway", "remote_write"),
}


def check_labels(instance: Any, attribute: Any, value: list[str] | dict[str, str]) -> None:
    """A label's name is one, and none comes twice."""
    if isinstance(value, dict):
        for label in value:
            if problem := label_problem(label):
                raise ValueError(f"labels: {problem}")
    elif twice := [label for label in value if value.count(label) > 1]:
        raise ValueError(f"labels has {twice[0]!r} twice")


def check_unit(instance: Any, attribute: Any, value: str) -> None:
    """A unit can end a metric's name."""
    if value and label_problem(value):
        raise ValueError(f"unit: {value!r} is not a unit like seconds or bytes: use letters, digits and '_'")


def check_metrics(instance: Any, attribute: Any, value: dict[str, Metric]) -> None:
    """Each metric can be, alone and beside the others."""
    if not value:
        raise ValueError("metrics: name one or more metrics, such as `temperature: {column: temp, labels: [city]}`")
    families: dict[str, str] = {}
    for name, metric in value.items():
        counter = metric.type == "counter"
        if problem := metric_problem(name, counter=counter, unit=metric.unit):
            raise ValueError(f"metrics: {problem}")
        _check_kind(name, metric)
        family = family_name(name, counter=counter)
        if family in families:
            raise ValueError(f"metrics: {families[family]!r} and {name!r} would both be the family {family!r}")
        families[family] = name


def _check_kind(name: str, metric: Metric) -> None:
    counter = metric.type == "counter"
    if metric.column is None and (not counter or metric.cumulative):
        raise ValueError(f"metrics: {name!r} needs a column; only a counter that adds up has none, and counts records")
    if metric.timestamp is not None and counter and not metric.cumulative:
        raise ValueError(f"metrics: {name!r} adds values up, which has no time but now; leave timestamp out")
    if metric.cumulative and not counter:
        raise ValueError(f"metrics: {name!r} is cumulative, which only a counter can be; write `type: counter`")


def check_stream_label(instance: Any, attribute: Any, value: str) -> None:
    """No column takes the place of the stream's name."""
    if value and (problem := label_problem(value)):
        raise ValueError(f"stream_label: {problem}")
    for name, metric in instance.metrics.items():
        if value in columns_by_label(metric.labels):
            raise ValueError(
                f"stream_label: {value!r} is a label of metric {name!r} too; choose another one, or "
                '`stream_label: ""` if all of the route\'s streams have different label sets'
            )


def check_listen(instance: Any, attribute: Any, value: str | None) -> None:
    """It is an address."""
    if value is not None:
        parse_address(value)


def check_grouping(instance: Any, attribute: Any, value: dict[str, str]) -> None:
    """The labels of a group are labels, and each its own."""
    taken = {"job", "route", instance.stream_label or "stream"}
    for label in value:
        if problem := label_problem(label):
            raise ValueError(f"grouping: {problem}")
        if label in taken:
            raise ValueError(f"grouping: {label!r} is in every group already; choose another label")


def check_outlets(instance: Any, attribute: Any, value: Any) -> None:
    """Exactly one way out, and no option of another one."""
    given = [way for way in _OUTLETS if getattr(instance, way) is not None]
    if len(given) != 1:
        found = "there is none" if not given else f"there are {' and '.join(given)}"
        raise ValueError(f"a route has one way out of {', '.join(_OUTLETS)}, and {found}")
    for name, fitting in _ONLY_WITH.items():
        if getattr(instance, name) not in (None, False, {}, Tls()) and given[0] not in fitting:
            raise ValueError(f"{name} is for {' and '.join(fitting)}, and this route has {given[0]}")
    if instance.bearer is not None and instance.basic is not None:
        raise ValueError("bearer and basic both say who may read or write; give one of them")
    _check_times(instance, given[0])
    if given[0] == "pushgateway":
        _check_group_labels(instance)


def _check_times(instance: PrometheusOptions, way: str) -> None:
    for name, metric in instance.metrics.items():
        if metric.timestamp is not None and way in ("textfile", "pushgateway"):
            raise ValueError(f"metrics: {name!r} has a timestamp, which {way} cannot carry; leave it out")


def _check_group_labels(instance: PrometheusOptions) -> None:
    group = {"job", "route", *instance.grouping, *([] if instance.stream_label else ["stream"])}
    for name, metric in instance.metrics.items():
        if clash := min(group & columns_by_label(metric.labels).keys(), default=None):
            raise ValueError(
                f"metrics: the label {clash!r} of {name!r} would be overwritten, for it is in the group of the "
                "Pushgateway; write labels as a mapping with another name for it"
            )


class Metric(muxly.Options):
    """A metric and the columns that it is made from."""

    column: str | None = muxly.option(
        "Column with its values: numbers, booleans, times or durations (in seconds); a counter without one counts "
        "the records.",
        default=None,
    )
    labels: list[str] | dict[str, str] = muxly.option(
        "Columns that become labels: a list of columns, or a mapping of label to column.",
        factory=list,
        validator=check_labels,
    )
    type: Literal["gauge", "counter"] = muxly.option(
        "gauge shows the newest value of each label set; counter adds the values up.", default="gauge"
    )
    cumulative: bool = muxly.option(
        "For a counter: whether the column holds totals already, which are not added up.", default=False
    )
    help: str = muxly.option("One line that says what it is; default: which column it is made from.", default="")
    unit: str = muxly.option(
        "Unit, such as seconds or bytes; the metric's name must end in it.", default="", validator=check_unit
    )
    timestamp: str | None = muxly.option(
        "Column with the times of the values, for listen and remote_write; default: they are of now.", default=None
    )


class PrometheusOptions(muxly.Router):
    """The options of the router ``prometheus``."""

    metrics: dict[str, Metric] = muxly.option("Metrics by name, each made from a column.", validator=check_metrics)
    textfile: Path | None = muxly.option(
        "Folder that the node exporter's textfile collector reads; each stream gets a file there.", default=None
    )
    listen: str | None = muxly.option(
        "HOST:PORT of a scrape endpoint in this process, such as 127.0.0.1:9464; the metrics are at /metrics.",
        default=None,
        validator=check_listen,
    )
    pushgateway: muxly.Secret | None = muxly.option(
        "URL of a Pushgateway; each stream is a group there, replaced as a whole.", default=None
    )
    remote_write: muxly.Secret | None = muxly.option(
        "URL that takes remote write, such as http://127.0.0.1:9090/api/v1/write.",
        default=None,
        validator=check_outlets,
    )
    keep: Path | None = muxly.option(
        "Folder where the series are kept between runs, for more of them than the ledger holds and for mode replace; "
        "default: the ledger, for textfile the folder .muxly in it.",
        default=None,
    )
    stream_label: str = muxly.option(
        "Label that tells the streams of a route apart, with the stream's name; empty = none.",
        default="stream",
        validator=check_stream_label,
    )
    max_series: int = muxly.option(
        "Most series of one stream; further ones are left out and counted.",
        default=10_000,
        validator=attrs.validators.ge(1),
    )
    expire_seconds: float | None = muxly.option(
        "How long a series that no record reports any more is still shown; default: forever.",
        default=None,
        validator=attrs.validators.optional(attrs.validators.gt(0)),
    )

    operations: bool = muxly.option(
        "For listen: whether Muxly's own metrics are shown too, of all runs of this process.", default=False
    )
    job: str | None = muxly.option("For pushgateway: the job; default: the pipeline's name.", default=None)
    grouping: dict[str, str] = muxly.option(
        "For pushgateway: more labels of the groups, beside job, route and stream.",
        factory=dict,
        validator=check_grouping,
    )
    bearer: muxly.Secret | None = muxly.option(
        "Token to send to pushgateway or remote_write, or to ask of who reads at listen.", default=None
    )
    basic: Basic | None = muxly.option("User and password, used like bearer.", default=None)
    tls: Tls = muxly.option("Certificates for pushgateway and remote_write.", factory=Tls)
    timeout_seconds: float = muxly.option(
        "Longest time of one request to pushgateway or remote_write.",
        default=30.0,
        validator=attrs.validators.gt(0),
    )


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
        return family_name(self.name, counter=self.is_counter)

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
    """The metrics that are made of the records of every stream.

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


_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_SUFFIXES = ("_bucket", "_sum", "_count", "_created", "_info", "_gcount", "_gsum")
OWN = "muxly_series_dropped"


def metric_problem(name: str, *, counter: bool, unit: str) -> str | None:
    """The problem with the name of a metric; None if there is none.

    Args:
        name: As the user wrote it.
        counter: Whether it is a counter.
        unit: The metric's unit, or nothing.
    """
    if not _METRIC.fullmatch(name):
        return f"{name!r} cannot be a metric: use letters, digits, '_' and ':', and no digit first"
    if name.startswith("muxly_"):
        return f"{name!r} begins with muxly_, as Muxly's own metrics do; choose another name"
    if not counter and name.endswith("_total"):
        return f"{name!r} ends in _total, which only a counter may; write `type: counter` or leave the ending out"
    if wrong := next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None):
        return f"{name!r} ends in {wrong}, which Prometheus keeps for histograms and the like; choose another name"
    if unit and not family_name(name, counter=counter).endswith(f"_{unit}"):
        ending = f"_{unit}_total" if counter else f"_{unit}"
        return f"a metric with the unit {unit!r} has a name that ends in {ending}, and {name!r} does not"
    return None


def family_name(name: str, *, counter: bool) -> str:
    """The name of a metric's family: that of a counter has no ``_total``."""
    return name.removesuffix("_total") if counter else name


def label_problem(name: str) -> str | None:
    """The problem with a label's name that the user chose; None if there is none."""
    if not _LABEL.fullmatch(name):
        return f"{name!r} cannot be a label: use letters, digits and '_', and no digit first"
    if name.startswith("__"):
        return f"{name!r} cannot be a label: those that begin with '__' are Prometheus' own"
    return None


def label_name(column: str) -> str:
    """The label that a column becomes: its name, or one like it with a hash that keeps it apart from others."""
    if label_problem(column) is None:
        return column
    clean = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_")[:80]
    digest = hashlib.blake2b(column.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"column_{clean}_{digest}" if clean[:1].isdigit() or not clean else f"{clean}_{digest}"


def columns_by_label(labels: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Columns by label; columns that are only listed are labels themselves."""
    if isinstance(labels, Mapping):
        return dict(labels)
    return {label_name(column): column for column in labels}


def parse_address(text: str) -> tuple[str, int]:
    """Read ``"127.0.0.1:9464"``, ``"[::1]:9464"`` or ``"localhost:9464"`` as host and port.

    Raises:
        ValueError: It is none of these.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{text!r} is not an address to listen at; write HOST:PORT, such as 127.0.0.1:9464")
    return found["six"] or found["host"], int(found["port"])
