"""Names of metrics and labels, as Prometheus allows them.

https://prometheus.io/docs/concepts/data_model/ and OpenMetrics 1.0: a metric's name is made of letters,
digits, ``_`` and ``:``, a label's of letters, digits and ``_``; labels that begin with ``__`` are Prometheus' own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

__all__ = ["OWN", "address", "columns_by_label", "family", "label_name", "label_problem", "metric_problem"]

_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_SUFFIXES = ("_bucket", "_sum", "_count", "_created", "_info", "_gcount", "_gsum")
OWN = "muxly_series_dropped"


def metric_problem(name: str, *, counter: bool, unit: str) -> str | None:
    """What is wrong with the name of a metric, in words; None if nothing is.

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
    if wrong := next((one for one in _SUFFIXES if name.endswith(one)), None):
        return f"{name!r} ends in {wrong}, which Prometheus keeps for histograms and the like; choose another name"
    if unit and not family(name, counter=counter).endswith(f"_{unit}"):
        ending = f"_{unit}_total" if counter else f"_{unit}"
        return f"a metric with the unit {unit!r} has a name that ends in {ending}, and {name!r} does not"
    return None


def family(name: str, *, counter: bool) -> str:
    """The name of a metric's family: that of a counter has no ``_total``."""
    return name.removesuffix("_total") if counter else name


def label_problem(name: str) -> str | None:
    """What is wrong with a label's name that the user chose, in words; None if nothing is."""
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


def address(text: str) -> tuple[str, int]:
    """Read ``"127.0.0.1:9464"``, ``"[::1]:9464"`` or ``"localhost:9464"`` as host and port.

    Raises:
        ValueError: It is none of these.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{text!r} is no address to listen at; write HOST:PORT, such as 127.0.0.1:9464")
    return found["six"] or found["host"], int(found["port"])
