"""One opening of ``read`` on one partition: what it yields becomes groups for the committer."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from attrs import Factory, define, field

from tests.core.model.ledger import Group, PartitionState, PlanState, Ties
from tests.core.model.places import Piece, Record, Source

if TYPE_CHECKING:
    from tests.core.model.run import Run
    from tests.core.model.world import World

__all__ = ["Reading", "Waiting", "unreadable"]


def unreadable(record: Record) -> bool:
    """A bad line: the extraction makes it a dead letter."""
    return record.id % 13 == 6


@define(eq=False)
class Waiting:
    """A group that waits for the committer; the verdict is None until it was sealed or refused."""

    group: Group
    content: tuple[tuple[Record, ...], ...]
    verdict: bool | None = None


@define
class Open:
    """The group that is being read."""

    segments: list[list[Record]] = field(factory=lambda: [[]])
    letters: list[int] = field(factory=list)
    replaces: list[int] = field(factory=list)


@define(eq=False)
class Reading:
    """Its groups follow each other; an error drops the unfinished one."""

    run: Run
    name: str
    plan: PlanState
    part: int
    key: str
    groups: list[Waiting] = field(factory=list)
    state: PartitionState = Factory(lambda self: self.plan.partitions[self.part], takes_self=True)
    known: Ties = Factory(lambda self: self.state.ties, takes_self=True)
    ties: Ties = Factory(lambda self: self.state.ties, takes_self=True)
    start: int = Factory(lambda self: self.state.cursor, takes_self=True)
    follows: tuple[str, int] = Factory(lambda self: (self.state.last, self.state.cursor), takes_self=True)
    open: Open = field(factory=Open)

    @property
    def world(self) -> World:
        return self.run.world

    @property
    def source(self) -> Source:
        return self.world.sources[self.name]

    def steps(self) -> Generator[None, None, bool]:
        """Read to the end; true = the spool is full, and reading stops here in this run."""
        world, pieces, greatest = self.world, self.pieces(), self.start
        for number, piece in enumerate(pieces, 1):
            if world.chance(12):
                yield
            if world.fault(15):
                return False  # a RetryableError: what follows the last cursor is read again
            self.take(piece)
            greatest = max(greatest, piece.cursor)
            last = number == len(pieces)
            cursor = self.cursor_after(greatest, last=last)
            if cursor is not None:
                self.hand_over(cursor, done=last)
                if (yield from self.run.wait_for_room(self.name)) and not last:
                    return True
            elif world.chance(4):
                self.open.segments.append([])
        if not pieces:
            self.open.segments = []
            self.hand_over(0 if world.chance(2) else self.start, done=True)
        return False

    def pieces(self) -> list[Piece]:
        inclusive = self.world.rules.ties_are_read_again
        found = self.source.read(self.part, self.start, self.plan.since, self.plan.until, inclusive=inclusive)
        if self.source.unsorted and self.source.kind == "log":
            self.world.shuffle(found)
        return found

    def take(self, piece: Piece) -> None:
        """Add records to the open group, but those that were sealed at the boundary, and bad lines."""
        rules = self.world.rules
        for record in piece.records:
            if self.source.kind != "log":
                self.open.segments[-1].append(record)
            elif (record.tick, record.id) in self.known and rules.ties_are_remembered:
                continue
            elif unreadable(record):
                self.open.letters.append(record.id)
            else:
                self.open.segments[-1].append(record)
        self.open.replaces += [] if piece.day is None else [piece.day]
        if self.source.kind == "log":
            both = self.ties | {(record.tick, record.id) for record in piece.records}
            greatest = max((tick for tick, _ in both), default=0)
            self.ties = frozenset(tie for tie in both if tie[0] == greatest)

    def cursor_after(self, greatest: int, *, last: bool) -> int | None:
        """The cursor that the open group reaches if it ends here; None = it does not."""
        world, rules = self.world, self.world.rules
        if last:  # where nothing was new, a connector may end without a cursor
            return 0 if greatest == self.start and world.chance(2) else greatest
        if self.source.unsorted and rules.unsorted_is_one_group:
            return None
        resumable = world.chance(2) or self.source.kind == "days"
        anywhere = not rules.groups_end_at_cursors and self.source.kind == "log"
        if not (resumable or anywhere) or not world.chance(3):
            return None
        return greatest if resumable else self.follows[1]

    def hand_over(self, cursor: int, *, done: bool) -> None:
        """The open group goes to the committer; days are sealed also without records, for what they empty."""
        done_with, self.open = self.open, Open()
        kept = [one for one in done_with.segments if one]
        if not kept and done_with.segments and self.source.kind == "days":
            kept = [[]]
        group = Group(
            self.name,
            self.plan.number,
            self.part,
            f"{self.key}-{len(self.groups)}",
            self.follows,
            cursor,
            done,
            tuple(tuple(record.id for record in one) for one in kept),
            frozenset(column for one in kept for record in one for column in record.columns),
            tuple(done_with.replaces),
            tuple(done_with.letters),
            self.ties,
        )
        self.follows = (group.key, cursor)
        self.groups.append(Waiting(group, tuple(tuple(one) for one in kept)))
        self.run.waiting.append(self.groups[-1])
