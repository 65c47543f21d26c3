"""Full reads that become visible as a whole: a generation fills a hidden table, which then replaces the target.

A generation is hidden in ``_muxly_<owner>_g<number>``. Where renaming a table is part of a transaction, the exchange
and the row in ``_muxly_generations`` are committed together. Where it is not, the exchange is made in steps, and the
table before, put aside as ``..._before``, tells a repeat after a crash how far the last attempt came.
"""

from __future__ import annotations

import re

from attrs import frozen

import muxly
from muxly_routers.sql import names
from muxly_routers.sql.deliveries import DeliveryLog, RecordOwner
from muxly_routers.sql.dialect import Column, SqlDialect, SqlSession
from muxly_routers.sql.names import TableName
from muxly_routers.sql.tables import KnownTables

__all__ = ["TableGenerations"]


@frozen(kw_only=True)
class TableGenerations:
    """The generations of one stream of one route.

    Args:
        session: The connection.
        dialect: Of the session.
        tables: What the session knows.
        log: Records which generation is visible.
        owner: The stream; part of the names of the hidden tables.
        target: The table that people read.
    """

    session: SqlSession
    dialect: SqlDialect
    tables: KnownTables
    log: DeliveryLog
    owner: RecordOwner
    target: TableName

    def table_of(self, generation: int) -> TableName:
        """The hidden table that a generation fills."""
        return TableName(self.target.schema, f"{self._prefix()}{generation}")

    def _prefix(self) -> str:
        return f"{names.OWN_PREFIX}{self.owner.digest()}_g"

    def _aside(self, generation: int) -> TableName:
        """The name of the table before while this generation replaces it."""
        return TableName(self.target.schema, f"{self._prefix()}{generation}_before")

    def refuse_old(self, generation: int, *, filling: bool = False) -> bool:
        """Whether the generation is visible already.

        Args:
            generation: The one to look at.
            filling: Whether records are to be added, for which a visible one is too late.

        Raises:
            ConflictError: A newer one is visible.
        """
        visible = self.log.visible_generation(self.owner)
        if visible is not None and (visible > generation or (filling and visible == generation)):
            raise muxly.ConflictError(
                f"generation {visible} of stream {self.owner.stream!r} is visible in {self.target.name}, so "
                f"generation {generation} comes too late; if the store was restored or made anew, delete the "
                "stream's row from _muxly_generations in the database"
            )
        return visible == generation

    def begin(self, generation: int) -> None:
        """Drop the tables of older generations that were never complete."""
        hidden = re.compile(re.escape(self._prefix()) + r"(\d+)(_before)?")
        for name in self.session.tables(self.target.schema):
            match = hidden.fullmatch(name)
            if match and int(match[1]) < generation:
                self.session.execute(self.dialect.drop_table(TableName(self.target.schema, name)))

    def prepare(self, generation: int) -> bool:
        """Make what is needed to record the generation; false if it is visible, so there is nothing to do.

        Raises:
            ConflictError: A newer one is visible.
        """
        if self.refuse_old(generation):
            return False
        self.log.prepare_generations()
        return True

    def show(self, generation: int) -> None:
        """Let the generation replace the one before; one without records leaves an empty table."""
        filled = self.table_of(generation)
        if self.tables.columns(filled):
            for statement in self.dialect.swap(filled, self.target):
                self.session.execute(statement)
        elif self.tables.columns(self.target):
            self._empty_target()
        self.log.record_generation(self.owner, generation)

    def show_in_steps(self, generation: int) -> None:
        """The same as ``show`` where a table's name is not part of a transaction.

        A crash may come after any step, and the repeat continues there: as long as the table before
        stands aside, the generation has its name already and only has to be recorded.
        """
        filled, aside = self.table_of(generation), self._aside(generation)
        if self.tables.columns(filled):
            for statement in self._exchange(filled, aside):
                self.session.execute(statement)
            self.tables.invalidate()
        self.session.begin()
        if not self.tables.columns(aside) and self.tables.columns(self.target):
            self._empty_target()
        self.log.record_generation(self.owner, generation)
        self.session.commit()
        self.session.execute(self.dialect.drop_table(aside))

    def _exchange(self, filled: TableName, aside: TableName) -> list[str]:
        """The statements that let ``filled`` take the name of the target; afterwards there is a table ``aside``.

        Where there was no target, an empty table stands aside instead: without one, a repeat would take the new
        target for the one before, and empty it.
        """
        if self.tables.columns(self.target):
            return self.dialect.exchange(filled, self.target, aside)
        renaming = [self.dialect.rename_table(filled, self.target.name)]
        if self.tables.columns(aside):
            return renaming
        columns = [Column(name, type) for name, type in self.tables.columns(filled).items()]
        return [self.dialect.create_table(aside, columns), *renaming]

    def _empty_target(self) -> None:
        self.session.execute(f"DELETE FROM {self.dialect.qualified(self.target)}")
