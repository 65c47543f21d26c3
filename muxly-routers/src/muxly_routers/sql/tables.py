"""Tables that follow the records: made, given new columns, widened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

import muxly
from muxly_routers.sql import names, values
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.quoting import SEQUENCE, Column, Form, Place
from muxly_routers.sql.row_slices import Mapped
from muxly_routers.sql.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["Shape", "Tables"]


# Every whole number up to this is a floating point number of 64 bits too.
_EXACT = 2**53


class Shape:
    """What a table of a stream is made with.

    Args:
        key: Its primary key, in names of the records.
        sequenced: Whether rows remember where in the stream's log they stood.
        indexes: Columns of each index, in names of the records.
    """

    def __init__(
        self,
        *,
        key: Sequence[str] = (),
        sequenced: bool = False,
        indexes: Iterable[Sequence[str]] = (),
    ) -> None:
        self.key, self.sequenced = tuple(key), sequenced
        self.indexes = tuple(tuple(one) for one in indexes)

    @property
    def keyed(self) -> tuple[str, ...]:
        """All columns of the key and the indexes."""
        return tuple(dict.fromkeys([*self.key, *(name for index in self.indexes for name in index)]))


class Tables:
    """What one session knows of the tables it writes to.

    Args:
        session: Asked once about each table, until ``forget``.
        dialect: Of that session.
    """

    def __init__(self, session: Session, dialect: Dialect) -> None:
        self._session, self._dialect = session, dialect
        self._columns: dict[Place, dict[str, str]] = {}
        self._named: dict[tuple[str | None, str], str] = {}
        self._changed = False

    def change(self, *statements: str) -> None:
        """Run statements that make or change tables that stay."""
        for statement in statements:
            self._session.execute(statement)
            self._changed = True

    def take_changed(self) -> bool:
        """Whether a table was made or changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed

    def forget(self) -> None:
        """Somebody changed a table, or a change of ours was taken back."""
        self._columns.clear()
        self._named.clear()

    def columns(self, place: Place) -> dict[str, str]:
        """Its columns with their types; empty if it is not there."""
        if not self._columns.get(place):
            self._columns[place] = self._session.columns(place)
        return self._columns[place]

    def look_again(self, place: Place) -> None:
        """Read the columns of a table anew, which stay as they are for the rest of the transaction."""
        if self.columns(place):
            self._session.hold(place)
            del self._columns[place]

    def place(self, schema: str | None, name: str) -> Place:
        """Where the table of that name is, or will be."""
        known = self._named.get((schema, name))
        if known is None:
            known = self._named[schema, name] = self._name(schema, name)
        return Place(schema, known)

    def _name(self, schema: str | None, name: str) -> str:
        if self._session.small_letters and name != name.lower():
            # It would not be found again as it is, and be taken for that of a stream in small letters.
            return names.hashed(name, self._dialect, table=True).lower()
        folds = self._dialect.folded("A", table=True) == self._dialect.folded("a", table=True)
        there = self._session.tables(schema) if folds else ()
        return names.assigned([name], there, self._dialect, table=True)[name]

    def make_schema(self, schema: str | None) -> None:
        """Make the schema, if it is not there."""
        if schema is not None and not self._session.has_schema(schema):
            self.change(self._dialect.create_schema(schema))

    def mapped(self, place: Place, schema: pa.Schema, keyed: Collection[str] = ()) -> tuple[Mapped, ...]:
        """Where each column of the records goes; one that has only nulls and no column yet goes nowhere.

        Args:
            place: The table.
            schema: Of the records.
            keyed: Columns of the records that are part of a key or an index.

        Raises:
            StreamError: Two columns have one name, or a type has no form in this database.
        """
        there = self.columns(place)
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise muxly.StreamError(f"column {twice[0]!r} is there more than once; leave one out with columns:")
        chosen = names.assigned(schema.names, there, self._dialect)
        found = []
        for index, source in enumerate(schema.names):
            kind = schema.field(index).type
            form = self._form(source, kind, there.get(chosen[source]), key=source in keyed)
            if form is not None:
                found.append(Mapped(index, source, Column(chosen[source], form.type), form))
        return tuple(found)

    def _form(self, source: str, kind: pa.DataType, there: str | None, *, key: bool) -> Form | None:
        plain = values.plain_type(kind)
        if pa.types.is_null(plain):
            return None if there is None else Form(there, pa.string(), values.as_text)
        if pa.types.is_integer(plain) and there is not None and there == self._double():
            # A number that would be rounded is refused.
            return Form(there, pa.float64(), values.cast_to(pa.float64()))
        form = self._dialect.form(plain, key=key)
        if form is None:
            raise muxly.StreamError(
                f"column {source!r}: {self._dialect.name} has no type for {kind}; "
                f"leave the column out with columns: {{exclude: [{source}]}}"
            )
        return form

    def ensure(self, place: Place, wanted: Sequence[Mapped], shape: Shape) -> tuple[Mapped, ...]:
        """Make the table, or give it the columns and types it lacks.

        Returns:
            ``wanted`` with the types that the columns have in the table.

        Raises:
            StreamError: A column holds another kind of values.
        """
        there = self.columns(place)
        if not there:
            self._create(place, wanted, shape)
            return tuple(wanted)
        for one in wanted:
            self._fit(place, one, there)
        if shape.sequenced and SEQUENCE not in there:
            self._adopt(place, wanted, shape)
        return tuple(
            Mapped(one.index, one.source, Column(one.column.name, there[one.column.name]), one.form) for one in wanted
        )

    def _create(self, place: Place, wanted: Sequence[Mapped], shape: Shape) -> None:
        columns = [one.column for one in wanted]
        if not columns:
            raise muxly.StreamError(f"table {place.table!r} cannot be made: no column of the records has a value yet")
        keyed = self._named_in(wanted, shape.keyed)
        if shape.sequenced:
            columns.append(self.sequence())
        self.make_schema(place.schema)
        self.change(self._dialect.create_table(place, columns, [keyed[name] for name in shape.key]))
        self._columns[place] = {one.name: one.type for one in columns}
        self._index(place, keyed, shape)

    def sequence(self) -> Column:
        """The hidden column of sequence numbers."""
        form = self._dialect.form(pa.int64())
        assert form is not None
        return Column(SEQUENCE, form.type)

    def _index(self, place: Place, keyed: dict[str, str], shape: Shape) -> None:
        for index in shape.indexes:
            columns = [keyed[name] for name in index]
            name = names.own("ix", place.schema or "", place.table, *columns)
            self.change(self._dialect.create_index(name, place, columns))

    def _named_in(self, wanted: Sequence[Mapped], sources: Iterable[str]) -> dict[str, str]:
        """The columns of the table for columns of the records."""
        known = {one.source: one.column.name for one in wanted}
        for source in sources:
            if source not in known:
                raise muxly.StreamError(
                    f"column {source!r} is to be a key or an index, but no record has a value in it"
                )
        return {source: known[source] for source in sources}

    def _fit(self, place: Place, one: Mapped, there: dict[str, str]) -> None:
        name, wanted = one.column.name, one.column.type
        if name not in there:
            self.change(self._dialect.add_column(place, one.column))
            there[name] = wanted
            return
        wider = self._dialect.widened(there[name], wanted)
        if wider is None:
            raise muxly.StreamError(
                f"column {one.source!r}: {place.table}.{name} is {there[name]} and cannot hold {wanted}; change its "
                f"type, rename it in the table, or leave it out with columns: {{exclude: [{one.source}]}}"
            )
        if wider != there[name]:
            self._refuse_rounding(place, one, there[name], wider)
            self.change(*self._dialect.change_type(place, Column(name, wider)))
            there[name] = wider

    def _double(self) -> str | None:
        form = self._dialect.form(pa.float64())
        return None if form is None else form.type

    def _refuse_rounding(self, place: Place, one: Mapped, there: str, wider: str) -> None:
        """Leave whole numbers as they are that a floating point number does not hold."""
        if wider != self._double() or "int" not in there.lower():
            return
        name = self._dialect.quoted(one.column.name)
        large = f"{name} > {_EXACT} OR {name} < -{_EXACT}"
        if self._session.query(f"SELECT 1 FROM {self._dialect.at(place)} WHERE {large} LIMIT 1"):
            raise muxly.StreamError(
                f"column {one.source!r}: {place.table}.{one.column.name} is {there} and holds numbers that {wider} "
                f"would round; rename it in the table, and a new one is made, or leave it out with columns: "
                f"{{exclude: [{one.source}]}}"
            )

    def _adopt(self, place: Place, wanted: Sequence[Mapped], shape: Shape) -> None:
        """Let rows of a table that was not made for upserts be found by key."""
        keyed = self._named_in(wanted, shape.key)
        name = names.own("key", place.schema or "", place.table)
        # The column comes last: where rows are in the way of the index, the next attempt has to see that again.
        self.change(
            self._dialect.create_index(name, place, list(keyed.values()), unique=True),
            self._dialect.add_column(place, self.sequence()),
        )
        self._columns[place][SEQUENCE] = self.sequence().type
