"""What the router and the databases' dialects speak of: places, columns, forms, merges, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

__all__ = ["CHANGE_IT", "SEQUENCE", "Column", "Fault", "FaultKind", "Form", "Merge", "Place"]

SEQUENCE = "_muxly_sequence"
"""The hidden column: where in its stream's log a record stood."""

CHANGE_IT = "change the table, or rename it, and a new one is made"

FaultKind = Literal["retry", "value", "stale", "table", "denied", "wrong"]


@frozen
class Place:
    """Where a table is; ``schema`` None = wherever the connection looks first."""

    schema: str | None
    table: str


@frozen
class Column:
    """A column of a table: its name, and its type as ``Session.columns`` would give it back."""

    name: str
    type: str


def _unchanged(array: pa.Array) -> pa.Array:
    return array


@frozen
class Form:
    """How values of one Arrow type are kept in a database.

    Args:
        type: The SQL type of a column for them, spelled as ``Session.columns`` gives it back.
        wire: The Arrow type that ``Session.load`` is given.
        convert: Makes an array of ``wire`` out of one of the Arrow type; a value that the database
            cannot hold is a ``ValueError`` or an ``ArrowException``.
    """

    type: str
    wire: pa.DataType
    convert: Callable[[pa.Array], pa.Array] = field(default=_unchanged)


@frozen
class Fault:
    """An error of the database, by what is to be done about it.

    Args:
        kind: ``retry``: trying again may help (connection, locks, a full disk, a server that starts).
            ``value``: some record is bad. ``stale``: a table or column is not as we believed: look once
            more. ``table``: a table is such that a person has to change it. ``denied``: a password or a
            right is missing. ``wrong``: anything else.
        message: What the database said, without values and without credentials.
        column: The column it named, if it did.
        advice: For ``table``: what the person can do.
    """

    kind: FaultKind
    message: str
    column: str | None = None
    advice: str = CHANGE_IT


@frozen(kw_only=True)
class Merge:
    """An upsert of what stands in a staging table.

    Args:
        target: The table.
        stage: The staging table: ``columns`` and ``SEQUENCE``.
        columns: All columns of the delivery, the key's among them, each with its type in the target.
        key: The names of the key's columns.
        cursor: The cursor's column, if the stream has one in its records.
        deleted: The column of tombstones where rows stay and are marked; a record with it set changes
            that mark, the cursor and the position of a row that is there, and nothing else.
    """

    target: Place
    stage: Place
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    cursor: str | None = None
    deleted: str | None = None
