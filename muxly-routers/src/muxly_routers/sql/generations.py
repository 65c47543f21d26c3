"""Full reads that become visible as a whole: each generation fills a table out of sight."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen

import muxly
from muxly_routers.sql import names
from muxly_routers.sql.quoting import Column, Place

if TYPE_CHECKING:
    from muxly_routers.sql.deliveries import Deliveries, Owner
    from muxly_routers.sql.dialect import Dialect
    from muxly_routers.sql.session import Session
    from muxly_routers.sql.tables import Tables

__all__ = ["Generations"]


@frozen(kw_only=True)
class Generations:
    """The generations of one stream of one route.

    Args:
        session: Does the work.
        dialect: Of the session.
        tables: What the session knows.
        memory: Remembers which generation is visible.
        owner: Whose they are; part of the names of the tables out of sight.
        target: The table that people read.
    """

    session: Session
    dialect: Dialect
    tables: Tables
    memory: Deliveries
    owner: Owner
    target: Place

    def place(self, generation: int) -> Place:
        """Where a generation is filled."""
        return Place(self.target.schema, f"{self._prefix()}{generation}")

    def _prefix(self) -> str:
        return f"{names.OWN}{self.owner.digest()}_g"

    def _aside(self, generation: int) -> Place:
        """Where the table before is put while this generation takes its place."""
        return Place(self.target.schema, f"{self._prefix()}{generation}_before")

    def refuse_old(self, generation: int, *, filling: bool = False) -> bool:
        """Whether the generation is visible already.

        Args:
            generation: The one to look at.
            filling: Whether records are to be added, for which a visible one is too late.

        Raises:
            ConflictError: A newer one is visible.
        """
        visible = self.memory.visible(self.owner)
        if visible is not None and (visible > generation or (filling and visible == generation)):
            raise muxly.ConflictError(
                f"generation {visible} of stream {self.owner.stream!r} is visible in {self.target.table}, so "
                f"generation {generation} comes too late; if the store was restored or made anew, delete the "
                "stream's row from _muxly_generations in the database"
            )
        return visible == generation

    def begin(self, generation: int) -> None:
        """Drop what older generations left that were never complete."""
        left = re.compile(re.escape(self._prefix()) + r"(\d+)(_before)?")
        for name in self.session.tables(self.target.schema):
            found = left.fullmatch(name)
            if found and int(found[1]) < generation:
                self.session.execute(self.dialect.drop_table(Place(self.target.schema, name)))

    def prepare(self, generation: int) -> bool:
        """Make what is needed to remember the generation; false if there is nothing to do, for it is visible.

        Raises:
            ConflictError: A newer one is visible.
        """
        if self.refuse_old(generation):
            return False
        self.memory.prepare_generations()
        return True

    def show_in_steps(self, generation: int) -> None:
        """The same as ``show`` where a table's name is not part of a transaction.

        A crash may come behind any step, and the repeat goes on there: as long as the table before
        stands aside, the generation has its place already and only has to be remembered.
        """
        filled, aside = self.place(generation), self._aside(generation)
        if self.tables.columns(filled):
            for statement in self._exchange(filled, aside):
                self.session.execute(statement)
            self.tables.forget()
        self.session.begin()
        if not self.tables.columns(aside) and self.tables.columns(self.target):
            self.session.execute(f"DELETE FROM {self.dialect.at(self.target)}")
        self.memory.show(self.owner, generation)
        self.session.commit()
        self.session.execute(self.dialect.drop_table(aside))

    def _exchange(self, filled: Place, aside: Place) -> list[str]:
        if self.tables.columns(self.target):
            return self.dialect.exchange(filled, self.target, aside)
        taking = [self.dialect.rename_table(filled, self.target.table)]
        if self.tables.columns(aside):
            return taking
        columns = [Column(name, kind) for name, kind in self.tables.columns(filled).items()]
        return [self.dialect.create_table(aside, columns), *taking]

    def show(self, generation: int) -> None:
        """Let the generation take the place of the one before; one without records leaves an empty table."""
        filled = self.place(generation)
        if self.tables.columns(filled):
            for statement in self.dialect.swap(filled, self.target):
                self.session.execute(statement)
        elif self.tables.columns(self.target):
            self.session.execute(f"DELETE FROM {self.dialect.at(self.target)}")
        self.memory.show(self.owner, generation)
