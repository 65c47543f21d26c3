"""Whether the options of the router can be; each check raises ``ValueError`` with what is wrong.

They are given to ``muxly.option`` as validators: the router, the option, its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxly_routers._http.tls import Tls
from muxly_routers.prometheus import names

if TYPE_CHECKING:
    from muxly_routers.prometheus import Metric, Prometheus

__all__ = ["grouping", "labels", "listen", "metrics", "stream_label", "unit", "ways"]

_WAYS = ("textfile", "listen", "pushgateway", "remote_write")
_ONLY_WITH = {
    "job": ("pushgateway",),
    "grouping": ("pushgateway",),
    "keep": ("textfile", "listen", "pushgateway"),
    "operations": ("listen",),
    "bearer": ("listen", "pushgateway", "remote_write"),
    "basic": ("listen", "pushgateway", "remote_write"),
    "tls": ("pushgateway", "remote_write"),
}


def labels(instance: Any, attribute: Any, value: list[str] | dict[str, str]) -> None:
    """A label's name is one, and none comes twice."""
    if isinstance(value, dict):
        for label in value:
            if problem := names.label_problem(label):
                raise ValueError(f"labels: {problem}")
    elif twice := [one for one in value if value.count(one) > 1]:
        raise ValueError(f"labels has {twice[0]!r} twice")


def unit(instance: Any, attribute: Any, value: str) -> None:
    """A unit can end a metric's name."""
    if value and names.label_problem(value):
        raise ValueError(f"unit: {value!r} is not a unit like seconds or bytes: use letters, digits and '_'")


def metrics(instance: Any, attribute: Any, value: dict[str, Metric]) -> None:
    """Each metric can be, alone and beside the others."""
    if not value:
        raise ValueError("metrics: name one or more metrics, such as `temperature: {column: temp, labels: [city]}`")
    families: dict[str, str] = {}
    for name, metric in value.items():
        counter = metric.type == "counter"
        if problem := names.metric_problem(name, counter=counter, unit=metric.unit):
            raise ValueError(f"metrics: {problem}")
        _check_kind(name, metric)
        family = names.family(name, counter=counter)
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


def stream_label(instance: Any, attribute: Any, value: str) -> None:
    """No column takes the place of the stream's name."""
    if value and (problem := names.label_problem(value)):
        raise ValueError(f"stream_label: {problem}")
    for name, metric in instance.metrics.items():
        if value in names.columns_by_label(metric.labels):
            raise ValueError(
                f"stream_label: {value!r} is a label of metric {name!r} too; choose another one, or "
                '`stream_label: ""` if all of the route\'s streams have different label sets'
            )


def listen(instance: Any, attribute: Any, value: str | None) -> None:
    """It is an address."""
    if value is not None:
        names.address(value)


def grouping(instance: Any, attribute: Any, value: dict[str, str]) -> None:
    """The labels of a group are labels, and each its own."""
    taken = {"job", "route", instance.stream_label or "stream"}
    for label in value:
        if problem := names.label_problem(label):
            raise ValueError(f"grouping: {problem}")
        if label in taken:
            raise ValueError(f"grouping: {label!r} is in every group already; choose another label")


def ways(instance: Any, attribute: Any, value: Any) -> None:
    """Exactly one way out, and no option of another one."""
    given = [way for way in _WAYS if getattr(instance, way) is not None]
    if len(given) != 1:
        found = "there is none" if not given else f"there are {' and '.join(given)}"
        raise ValueError(f"a route has one way out of {', '.join(_WAYS)}, and {found}")
    for name, fitting in _ONLY_WITH.items():
        if getattr(instance, name) not in (None, False, {}, Tls()) and given[0] not in fitting:
            raise ValueError(f"{name} is for {' and '.join(fitting)}, and this route has {given[0]}")
    if instance.bearer is not None and instance.basic is not None:
        raise ValueError("bearer and basic say both who may read or write; give one of them")
    _check_times(instance, given[0])
    if given[0] == "pushgateway":
        _check_group_labels(instance)


def _check_times(instance: Prometheus, way: str) -> None:
    for name, metric in instance.metrics.items():
        if metric.timestamp is not None and way in ("textfile", "pushgateway"):
            raise ValueError(f"metrics: {name!r} has a timestamp, which {way} cannot carry; leave it out")


def _check_group_labels(instance: Prometheus) -> None:
    group = {"job", "route", *instance.grouping, *([] if instance.stream_label else ["stream"])}
    for name, metric in instance.metrics.items():
        if clash := min(group & names.columns_by_label(metric.labels).keys(), default=None):
            raise ValueError(
                f"metrics: the label {clash!r} of {name!r} would be overwritten, for it is in the group of the "
                "Pushgateway; write labels as a mapping with another name for it"
            )
