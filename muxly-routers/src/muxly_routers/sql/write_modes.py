"""How the records of a delivery are applied, inside the transaction that remembers it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
from attrs import evolve, frozen

import muxly
from muxly_routers.sql import names, values
from muxly_routers.sql.quoting import Column, Merge, Place
from muxly_routers.sql.row_slices import Feed, Mapped, converted
from muxly_routers.sql.tables import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from muxly_routers.sql.dialect import Dialect
    from muxly_routers.sql.session import Session
    from muxly_routers.sql.tables import Tables

__all__ = ["DELETED", "Work", "append", "clear_stages", "open_stages", "overwrite", "prepare", "upsert"]

DELETED = "_deleted_at"


@frozen(kw_only=True)
class Work:
    """One attempt at one delivery.

    Args:
        session: With its transaction begun.
        dialect: Of the session.
        tables: What the session knows.
        target: The table that the records go to; made, with all their columns.
        columns: Where each column of the records goes, with the types of the target.
        delivery: The records.
        feed: Makes a feed and keeps it, so that its error can be told from the database's.
        hard: Whether records with a tombstone are deleted rather than marked.
        stage: Name for a staging table.
    """

    session: Session
    dialect: Dialect
    tables: Tables
    target: Place
    columns: tuple[Mapped, ...]
    delivery: muxly.Delivery
    feed: Callable[..., Feed]
    hard: bool
    stage: str

    def named(self, sources: Sequence[str]) -> tuple[Column, ...]:
        """The columns of the target for columns of the records."""
        known = {one.source: one.column for one in self.columns}
        missing = [name for name in sources if name not in known]
        if missing:
            raise muxly.StreamError(f"column {missing[0]!r} is a key of this mode, but the records do not have it")
        return tuple(known[name] for name in sources)


def prepare(work: Work, shape: Shape) -> None:
    """Make the table beside the target that applying the delivery takes."""
    if work.hard and work.delivery.mode == "upsert":
        _make_graves(work, shape)


def open_stages(work: Work) -> None:
    """Make the staging tables."""
    _sweep_stages(work)
    for place, columns in _stages(work).items():
        work.session.execute(work.dialect.create_table(place, columns, temporary=True))


def clear_stages(work: Work) -> None:
    """Take the staging tables away again; the last statements of the transaction."""
    for place in _stages(work):
        work.session.execute(work.dialect.drop_table(place, temporary=True))


def _sweep_stages(work: Work) -> None:
    """Drop what earlier attempts left, where neither the session nor the transaction took it with it."""
    if work.dialect.temporary or work.dialect.transactional:
        return
    left = re.compile(re.escape(work.stage.rstrip("0123456789")) + r"\d+(_rows)?")
    for name in filter(left.fullmatch, work.session.tables(None)):
        work.session.execute(work.dialect.drop_table(Place(None, name)))


def _stages(work: Work) -> dict[Place, list[Column]]:
    """The staging tables, with their columns."""
    place, mode = Place(None, work.stage), work.delivery.mode
    plain = [Column(one.column.name, one.form.type) for one in work.columns]
    if mode == "upsert":
        return {place: [*plain, work.tables.sequence()]}
    found = {} if _is_direct(work) else {_rows(work): plain}
    if mode == "overwrite":
        keys = {one.name for one in work.named(work.delivery.stream.overwrite_key)}
        found[place] = [one for one in plain if one.name in keys]
    return found


def _is_direct(work: Work) -> bool:
    """Whether the table's types allow the records to go straight into it."""
    return all(work.dialect.loads_into(one.column.type, one.form.type) for one in work.columns)


def _rows(work: Work) -> Place:
    return Place(None, f"{work.stage}_rows")


def _graves(work: Work) -> Place:
    """Where the keys, cursors and sequence numbers of deleted records are kept, so that older ones stay deleted."""
    return Place(work.target.schema, names.own("deleted", work.target.table))


def _make_graves(work: Work, shape: Shape) -> None:
    """Make room for deleted records, once there can be some, with the types that the target has."""
    stream = work.delivery.stream
    kept = [one for one in work.columns if one.source in (*stream.primary_key, stream.cursor_field, DELETED)]
    if work.tables.columns(_graves(work)) or any(one.source == DELETED for one in kept):
        wanted = [evolve(one, form=evolve(one.form, type=one.column.type)) for one in kept]
        work.tables.ensure(_graves(work), wanted, Shape(key=shape.key, sequenced=True))


def append(work: Work) -> None:
    """Add the records; they go straight into the table where its types allow it."""
    if _is_direct(work):
        work.session.load(work.target, work.feed(work.columns).reader())
        return
    work.session.load(_rows(work), work.feed(work.columns).reader(), temporary=True)
    work.session.execute(work.dialect.copy_rows(work.target, [one.column for one in work.columns], _rows(work)))


def upsert(work: Work) -> None:
    """Of each key keep the newest record, whatever came first."""
    key, cursor = work.delivery.stream.primary_key, work.delivery.stream.cursor_field
    merge = Merge(
        target=work.target,
        stage=Place(None, work.stage),
        columns=tuple(one.column for one in work.columns),
        key=tuple(one.name for one in work.named(key)),
        cursor=next((one.column.name for one in work.columns if one.source == cursor), None),
        deleted=next((one.column.name for one in work.columns if one.source == DELETED), None),
    )
    work.session.load(merge.stage, work.feed(work.columns, required=key, sequenced=True).reader(), temporary=True)
    buried = work.hard and list(work.tables.columns(_graves(work)))
    if buried:
        _exhume(work, merge, buried)
    for statement in work.dialect.merge(merge):
        work.session.execute(statement)
    if buried:
        _bury(work, merge, buried)


def _exhume(work: Work, merge: Merge, columns: list[str]) -> None:
    """Put the deleted records that are concerned back as marked rows, for the merge to compare with."""
    place, listed = _graves(work), work.dialect.listed(columns)
    concerned = work.dialect.staged(place, merge.stage, merge.key)
    work.session.execute(
        f"INSERT INTO {work.dialect.at(merge.target)} ({listed}) "
        f"SELECT {listed} FROM {work.dialect.at(place)} WHERE {concerned}"
    )
    work.session.execute(f"DELETE FROM {work.dialect.at(place)} WHERE {concerned}")


def _bury(work: Work, merge: Merge, columns: list[str]) -> None:
    """Move marked rows away from where people look."""
    place, listed, target = _graves(work), work.dialect.listed(columns), work.dialect.at(merge.target)
    mark = work.dialect.quoted(DELETED)
    marked = f"{mark} IS NOT NULL AND {work.dialect.staged(merge.target, merge.stage, merge.key)}"
    work.session.execute(
        f"INSERT INTO {work.dialect.at(place)} ({listed}) SELECT {listed} FROM {target} WHERE {marked}"
    )
    work.session.execute(f"DELETE FROM {target} WHERE {marked}")


def overwrite(work: Work) -> None:
    """Delete the rows of all values that the delivery replaces or has records of, and add its records."""
    keys = work.named(work.delivery.stream.overwrite_key)
    table = _replaced(work, tuple(one for one in work.columns if one.column in keys))
    if table.num_rows:
        place = Place(None, work.stage)
        nulls = any(column.null_count for column in table.columns)
        work.session.load(place, table.to_reader(), temporary=True)
        for with_nulls in (False, True)[: 1 + nulls]:
            work.session.execute(work.dialect.delete_matching(work.target, place, keys, nulls=with_nulls))
    append(work)


def _replaced(work: Work, mapped: Sequence[Mapped]) -> pa.Table:
    """The values to replace, each once, in the database's types."""
    schema = work.delivery.schema
    kinds = {one.source: values.plain_type(schema.field(one.index).type) for one in mapped}
    order = work.delivery.stream.overwrite_key
    named = [pa.array([value[order.index(name)] for value in work.delivery.replaces], kinds[name]) for name in kinds]
    found = pa.table(named, names=list(kinds))
    for batch in work.delivery.batches():
        part = pa.table([values.plain(batch.column(one.index)) for one in mapped], names=list(kinds))
        found = pa.concat_tables([found, part]).group_by(list(kinds)).aggregate([])
    arrays = [converted(found.column(one.source).combine_chunks(), one) for one in mapped]
    return pa.table(arrays, names=[one.column.name for one in mapped])
