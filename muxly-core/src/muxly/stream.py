"""Streams: named sets of records, each with one schema."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Stream"]


def _keys(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)  # type: ignore[arg-type]


def _lookback(value: timedelta | float | None) -> timedelta | None:
    return value if value is None or isinstance(value, timedelta) else timedelta(seconds=value)


@frozen
class Stream:
    """A named set of records with one schema, as a connector describes it.

    Args:
        name: Unique in the connector; any text, ``"contacts"`` or ``"associations:deals"``.
        primary_key: Columns whose values name one record; empty = none.
        overwrite_key: Columns whose values name a group of records that is always
            read as a whole, such as a report's date; used by routes in ``overwrite`` mode.
        cursor_field: Column that grows with changes; used for ties and for ``upsert``.
        lookback: How far behind its cursor the connector reads again, as a timedelta or
            seconds; the runner drops the unchanged repeats.
        sorted: Whether ``read`` yields records in the order of its cursor, so that reading
            can resume in the middle of a partition. An unsorted partition is one group.
        parent: Name of the stream whose ``read`` also yields this stream's batches.
        schema: Arrow schema, if it is known before reading.
        metadata: Facts for people and routers: a title, a unit. JSON values.
        columns: Names of the columns to read, if fewer than all; set by the runner when
            every route excludes some. A connector may ignore it.
    """

    name: str
    primary_key: tuple[str, ...] = field(default=(), converter=_keys)
    overwrite_key: tuple[str, ...] = field(default=(), converter=_keys, kw_only=True)
    cursor_field: str | None = field(default=None, kw_only=True)
    lookback: timedelta | None = field(default=None, converter=_lookback, kw_only=True)
    sorted: bool = field(default=False, kw_only=True)
    parent: str | None = field(default=None, kw_only=True)
    schema: pa.Schema | None = field(default=None, kw_only=True, eq=False)
    metadata: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False)
    columns: tuple[str, ...] | None = field(default=None, kw_only=True)
