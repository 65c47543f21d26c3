"""How the records of a delivery are applied, inside the transaction that remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from attrs import evolve, frozen

import muxly
from muxly_routers._sql import names, values
from muxly_routers._sql.dialect import ORDER, POSITION, Column, Merge, Place
from muxly_routers._sql.feed import Feed, Mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from muxly_routers._sql.dialect import Dialect, Session
    from muxly_routers._sql.tables import Tables

__all__ = ["DELETED", "Work", "append", "dig", "overwrite", "upsert"]

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

    def deleted(self) -> str | None:
        """The column of tombstones, if the records have one."""
        return next((one.column.name for one in self.columns if one.source == DELETED), None)


def append(work: Work) -> None:
    """Add the records; they go straight into the table where its types allow it."""
    direct = all(work.dialect.loads_into(one.column.type, one.form.type) for one in work.columns)
    if direct:
        work.session.load(work.target, work.feed(work.columns).reader())
        return
    stage = _staged(work, hidden=False)
    work.session.execute(work.dialect.copy_rows(work.target, [one.column for one in work.columns], stage))
    work.session.execute(work.dialect.drop_table(stage, temporary=True))


def _staged(work: Work, *, hidden: bool, required: Sequence[str] = ()) -> Place:
    """A staging table with the records in their own types."""
    stage = Place(None, work.stage)
    columns = [Column(one.column.name, one.form.type) for one in work.columns]
    if hidden:
        number = work.tables.position().type
        columns += [Column(POSITION, number), Column(ORDER, number)]
    work.session.execute(work.dialect.create_table(stage, columns, temporary=True))
    reader = work.feed(work.columns, required=required, hidden=hidden).reader()
    work.session.load(stage, reader, temporary=True)
    return stage


def upsert(work: Work) -> None:
    """Of each key keep the newest record, whatever came first."""
    key = work.delivery.stream.primary_key
    stage = _staged(work, hidden=True, required=key)
    merge = _merge(work, stage)
    graves = _graves(work, merge) if work.hard else None
    if graves is not None:
        _exhume(work, merge, graves)
    for statement in work.dialect.merge(merge):
        work.session.execute(statement)
    if graves is not None:
        _bury(work, merge, graves)
    work.session.execute(work.dialect.drop_table(stage, temporary=True))


def _merge(work: Work, stage: Place) -> Merge:
    stream = work.delivery.stream
    return Merge(
        target=work.target,
        stage=stage,
        columns=tuple(one.column for one in work.columns),
        key=tuple(one.name for one in work.named(stream.primary_key)),
        cursor=next((one.column.name for one in work.columns if one.source == stream.cursor_field), None),
        deleted=work.deleted(),
    )


def dig(work: Work) -> None:
    """Make the table of deleted records beforehand, where that cannot be part of the transaction."""
    place, deleted = _graves_place(work), work.deleted()
    if not work.hard or work.delivery.mode != "upsert" or deleted is None or work.tables.columns(place):
        return
    merge = _merge(work, Place(None, work.stage))
    columns = grave_columns(merge, work.tables.position())
    work.session.execute(work.dialect.create_table(place, columns, merge.key))
    work.tables.forget()


def _graves_place(work: Work) -> Place:
    return Place(work.target.schema, names.own("deleted", work.target.table))


def _graves(work: Work, merge: Merge) -> Place | None:
    """Where the keys, cursors and positions of deleted records are kept, so that older ones stay deleted."""
    place = _graves_place(work)
    if work.tables.columns(place):
        return place
    if merge.deleted is None:
        return None
    found = work.session.query(
        f"SELECT COUNT(*) FROM {work.dialect.at(merge.stage)} WHERE {work.dialect.quoted(merge.deleted)} IS NOT NULL"
    )
    return place if found[0][0] else None


def grave_columns(merge: Merge, position: Column) -> list[Column]:
    """The columns that decide which record is the newest."""
    kept = [one for one in merge.columns if one.name in merge.key or one.name in (merge.cursor, merge.deleted)]
    return [*kept, position]


def _exhume(work: Work, merge: Merge, graves: Place) -> None:
    """Put the deleted records that are concerned back as marked rows, for the merge to compare with."""
    columns = grave_columns(merge, work.tables.position())
    if not work.tables.columns(graves):
        work.session.execute(work.dialect.create_table(graves, columns, merge.key))
        work.tables.forget()
        return
    there = work.tables.columns(graves)
    listed = work.dialect.listed([one.name for one in columns if one.name in there])
    concerned = work.dialect.staged(graves, merge.stage, merge.key)
    work.session.execute(
        f"INSERT INTO {work.dialect.at(merge.target)} ({listed}) "
        f"SELECT {listed} FROM {work.dialect.at(graves)} WHERE {concerned}"
    )
    work.session.execute(f"DELETE FROM {work.dialect.at(graves)} WHERE {concerned}")


def _bury(work: Work, merge: Merge, graves: Place) -> None:
    """Move marked rows away from where people look."""
    there = work.tables.columns(graves)
    columns = [one.name for one in grave_columns(merge, work.tables.position()) if one.name in there]
    listed, target = work.dialect.listed(columns), work.dialect.at(merge.target)
    deleted = work.dialect.quoted(DELETED)
    marked = f"{deleted} IS NOT NULL AND {work.dialect.staged(merge.target, merge.stage, merge.key)}"
    work.session.execute(
        f"INSERT INTO {work.dialect.at(graves)} ({listed}) SELECT {listed} FROM {target} WHERE {marked}"
    )
    work.session.execute(f"DELETE FROM {target} WHERE {marked}")


def overwrite(work: Work) -> None:
    """Delete the rows of all values that the delivery replaces or has records of, and add its records."""
    keys = work.named(work.delivery.stream.overwrite_key)
    mapped = tuple(one for one in work.columns if one.column in keys)
    table = _replaced(work, mapped)
    if table.num_rows:
        place = Place(None, work.stage)
        columns = [Column(one.column.name, one.form.type) for one in mapped]
        nulls = any(column.null_count for column in table.columns)
        work.session.execute(work.dialect.create_table(place, columns, temporary=True))
        work.session.load(place, table.to_reader(), temporary=True)
        for with_nulls in (False, True)[: 1 + nulls]:
            work.session.execute(work.dialect.delete_matching(work.target, place, keys, nulls=with_nulls))
        work.session.execute(work.dialect.drop_table(place, temporary=True))
    append(evolve(work, stage=f"{work.stage}_rows"))


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
    arrays = [one.form.convert(found.column(one.source).combine_chunks()) for one in mapped]
    return pa.table(arrays, names=[one.column.name for one in mapped])
