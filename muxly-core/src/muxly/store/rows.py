"""The ledger's rows as values, and one mapping between a row and its value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import AttrsInstance, field, fields, frozen

from muxly.batch import Cursor

if TYPE_CHECKING:
    from sqlalchemy import Row

V = TypeVar("V", bound=AttrsInstance)


def columns_of(value: AttrsInstance, **others: Any) -> dict[str, Any]:
    """A value's fields as columns of the same names.

    Args:
        value: The value.
        **others: Columns that are encoded, or that the value does not have.
    """
    return {name: getattr(value, name) for name in _field_names(type(value)) if name not in others} | others


def value_of(kind: type[V], row: Row[Any], **others: Any) -> V:
    """A row as a value; each field comes from the column of the same name.

    Args:
        kind: The class of the value.
        row: The row, with a column for every field that is not given.
        **others: Fields that are decoded, or that stand in no column.
    """
    columns = row._mapping
    return kind(**{name: columns[name] for name in _field_names(kind) if name not in others}, **others)


@cache
def _field_names(kind: type[AttrsInstance]) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in fields(kind))


@frozen(kw_only=True)
class StoredPartition:
    """One partition of a stored plan.

    Args:
        ordinal: Its number in the plan, from 0.
        id: The connector's name for it.
        start: Where reading began.
        cursor: The cursor that its last sealed group reached; ``start`` before the first.
        payload: What the connector needs to read it.
        records: How many it holds, if known.
        done: Whether it has been read and sealed to its end.
    """

    ordinal: int
    id: str
    start: Cursor = None
    cursor: Cursor = None
    payload: Any = None
    records: int | None = None
    done: bool = False


@frozen(kw_only=True)
class StoredPlan:
    """A plan as it was stored before its first read.

    Args:
        id: A ULID.
        stream: The stream it reads.
        generation: The stream's generation its records belong to.
        cursor: What the stream's cursor becomes when it is done; None = from its partitions.
        boundaries: The tie boundaries of the stream and its children when the plan was made, by stream.
        schema: Arrow IPC bytes of the schema, if the connector knew it.
        partitions: All of them, in order; those still open are read.
    """

    id: str
    stream: str
    generation: int
    cursor: Cursor = None
    boundaries: Mapping[str, Any] = field(factory=dict)
    schema: bytes | None = None
    partitions: tuple[StoredPartition, ...] = ()


@frozen(kw_only=True)
class Letter:
    """A dead letter to be stored: a record that could not be read or delivered.

    Args:
        stream: The stream it belongs to.
        reason: What is wrong with it.
        position: Its segment's position, if it was sealed.
        number: Its number in that segment, from 0.
        place: Where it stands in the source.
        record: The record, encoded as ``format`` says.
        format: ``arrow`` (IPC stream of one record), ``json``, ``text``, ``bytes`` or ``none``.
    """

    stream: str
    reason: str
    position: int | None = None
    number: int | None = None
    place: str | None = None
    record: bytes | None = None
    format: str = "none"


@frozen(kw_only=True)
class SegmentContent:
    """What of a segment is the same before and after it is sealed.

    Args:
        key: ``stream/partition/reading/sequence``: never used twice.
        stream: Whose log it joins.
        schema_version: Which version of the stream's schema its bytes have; 0 = no records.
        records: How many it holds.
        bytes: Their size in memory, in bytes.
        file: The spool's name of its file; None = no records, no file.
        offset: Where it begins in the file, in bytes.
        length: How long it is there, in bytes.
        digest: SHA-256 of those bytes, hex.
        replaces: Values of the overwrite key that it replaces; tuples.
    """

    key: str
    stream: str
    schema_version: int
    records: int
    bytes: int
    file: str | None
    offset: int
    length: int
    digest: str
    replaces: tuple[tuple[Any, ...], ...] = ()


@frozen(kw_only=True)
class WrittenSegment(SegmentContent):
    """A segment that is durable in the spool and waits for its position.

    Args:
        parent: The stream that was being read, if this is a child of it.
    """

    parent: str | None = None


@frozen(kw_only=True)
class WrittenGroup:
    """Segments of one partition between two resumable cursors, sealed together.

    Args:
        plan: The plan's id.
        ordinal: The partition's number in the plan.
        partition: The partition's id.
        cursor_before: The cursor this reading continues from.
        cursor_after: The cursor it reaches; None = unchanged.
        done: Whether the partition ends here.
        segments: In the order they were read.
        letters: Records that could not be read.
        schemas: Schema versions it uses that are not stored yet, as ``(stream, version, IPC bytes)``.
        boundaries: The new tie boundaries by stream, as values the store can encode.
        own_boundaries: What this partition alone has sealed there; needed until it is done.
    """

    plan: str
    ordinal: int
    partition: str
    cursor_before: Cursor
    cursor_after: Cursor
    done: bool
    segments: tuple[WrittenSegment, ...] = ()
    letters: tuple[Letter, ...] = ()
    schemas: tuple[tuple[str, int, bytes], ...] = ()
    boundaries: Mapping[str, Any] = field(factory=dict)
    own_boundaries: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class StoredSegment(SegmentContent):
    """A segment in the log of its stream.

    Args:
        position: Its number there, from 1.
        group: The position of its group's first segment in this stream.
        generation: The full read it belongs to.
        state: ``sealed``, ``quarantined`` or ``dropped``.
    """

    position: int
    group: int
    generation: int
    state: str = "sealed"

    @classmethod
    def of(cls, written: WrittenSegment, *, position: int, group: int, generation: int) -> StoredSegment:
        """The segment as it is sealed at a position."""
        content = {name: getattr(written, name) for name in _field_names(SegmentContent)}
        return cls(**content, position=position, group=group, generation=generation)


@frozen(kw_only=True)
class RoutePosition:
    """How far a route has come in a stream.

    Args:
        route: The route's name.
        stream: The stream's name.
        position: All segments up to here are acknowledged.
        offset: So many records of the next segment are acknowledged too.
        begun: The last generation for which ``begin`` was called.
        completed: The generation that is visible at the destination.
        state: What the last receipt left.
        detached: Whether the route was detached from the stream.
    """

    route: str
    stream: str
    position: int
    offset: int = 0
    begun: int = 0
    completed: int = 0
    state: Any = None
    detached: bool = False


@frozen(kw_only=True)
class LogRange:
    """Consecutive records of a stream's log; a segment may be cut at either end.

    Args:
        first_position: Where it begins: this segment,
        first_offset: from this record on,
        last_position: up to this segment,
        last_offset: up to before this record.
        records: How many that are, before filters.
        generation: The full read they belong to.
    """

    first_position: int
    first_offset: int
    last_position: int
    last_offset: int
    records: int
    generation: int

    def part_of(self, position: int, records: int) -> tuple[int, int]:
        """The first record of one of its segments that belongs to it, and the one before which it ends.

        Args:
            position: The segment's position.
            records: How many records the segment holds.
        """
        first = self.first_offset if position == self.first_position else 0
        return first, self.last_offset if position == self.last_position else records


@frozen(kw_only=True)
class StoredDelivery(LogRange):
    """The records that are delivered under one id.

    Args:
        id: A ULID; never changes until the delivery ends.
        route: The route's name.
        stream: The stream's name.
        options: The route's mode, columns and filter as they were then.
        letters: Ids of the dead letters that are delivered again, if it is such a replay.
        marked: So many records, after filters, are delivered already.
    """

    id: str
    route: str
    stream: str
    options: Mapping[str, Any]
    letters: tuple[str, ...] = ()
    marked: int = 0


@frozen(kw_only=True)
class StreamGenerations:
    """The full reads of a stream.

    Args:
        newest: The one that was begun last.
        sealed: The last one that is wholly sealed.
        head: The last position of the stream's log.
    """

    newest: int
    sealed: int
    head: int
