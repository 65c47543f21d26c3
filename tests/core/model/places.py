"""The outside of the model: a source that grows, destinations that remember, a disk that forgets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator

from attrs import define, field, frozen

from tests.core.model.rules import Rules

__all__ = ["Destination", "Disk", "Down", "LostAnswer", "Piece", "Record", "Refused", "Route", "Source", "Table"]


class Down(Exception):
    """The destination does not work now: a RouteError."""


class LostAnswer(Exception):
    """Nobody knows whether it was applied: a RetryableError."""


class Refused(Exception):
    """Some record of it is bad: a RejectedError."""


@frozen
class Record:
    """``id`` names this state of the record; ``key`` is its primary key, ``day`` its overwrite key."""

    id: int
    key: int
    tick: int
    day: int
    columns: frozenset[str] = frozenset({"id"})


@frozen
class Route:
    """What a route is in the model."""

    name: str
    promise: str = "once"  # once = effectively once | repeats = at least once | marks = with marks
    upsert: bool = False
    filtered: bool = False
    limit: int = 4
    refuses: str = ""  # "" | "raise" | "receipt": how it says that a record is bad
    max_rejected: int = 0
    detaches: bool = False

    def mode(self, kind: str) -> str:
        by_kind = {"days": "overwrite", "full": "replace"}
        return by_kind.get(kind, "upsert" if self.upsert else "append")

    def wants(self, record: Record, rules: Rules) -> bool:
        """``where``: false for every fifth record, null for every seventh."""
        if not self.filtered or record.id % 35 not in {5, 10, 7, 14}:
            return True
        return record.id % 7 == 0 and not rules.null_is_filtered

    def is_bad(self, record: Record, kind: str) -> bool:
        """An overwrite cannot be split below its group, so there the receipt names bad records."""
        splits = self.refuses == "raise" and kind != "days"
        return (splits or self.refuses == "receipt") and record.id % 11 == 3


@frozen
class Piece:
    """Records that the source yields together, the cursor behind them, the day they restate."""

    records: tuple[Record, ...]
    cursor: int
    day: int | None = None


@define
class Source:
    """A stream's records at the source; ticks are given by people, and there are ties."""

    kind: str
    partitions: int
    windowed: bool
    unsorted: bool
    options: int = 0
    records: list[Record] = field(factory=list)
    days: dict[int, list[Record]] = field(factory=dict)
    changes: list[int] = field(factory=list)
    bad_lines: int = 0

    @property
    def tick(self) -> int:
        return self.records[-1].tick if self.records else 0

    def change(self, record: Record, *, restate: bool, empty: bool) -> None:
        """One more record; for ``days`` and ``full`` also records that go away."""
        if self.kind == "days":
            kept = [] if restate or empty else self.days.get(record.day, [])
            self.days[record.day] = [*kept] if empty else [*kept, record]
            self.changes.append(record.day)
        elif self.kind == "full" and restate:
            self.records = [record, *self.records[2:]] if not empty else []
        else:
            self.records.append(record)

    def read(self, partition: int, cursor: int, since: int, until: int | None, *, inclusive: bool) -> list[Piece]:
        """What is left of the partition behind its cursor, in the order in which the source yields it."""
        if self.kind == "days":
            days = sorted(set(self.changes[since:until]))[partition :: self.partitions]
            return [Piece(tuple(self.days[day]), number, day) for number, day in enumerate(days, 1)][cursor:]
        mine = [record for record in self.records if record.id % self.partitions == partition]
        if self.kind == "full":
            return [Piece((one,), one.id) for one in sorted(mine, key=lambda one: one.id) if one.id > cursor]
        low = cursor if inclusive else cursor + 1
        chosen = [one for one in mine if low <= one.tick <= (one.tick if until is None else until)]
        return [Piece((one,), one.tick) for one in chosen]


@define
class Table:
    """One stream of one route at its destination."""

    rows: Counter[int] = field(factory=Counter)
    keys: dict[int, tuple[tuple[int, int], int]] = field(factory=dict)
    days: dict[int, Counter[int]] = field(factory=lambda: defaultdict(Counter))
    staged: dict[int, Counter[int]] = field(factory=dict)
    visible: int = 0
    content: Counter[int] = field(factory=Counter)
    columns: dict[int, frozenset[str]] = field(factory=dict)


@define
class Destination:
    """Where a route delivers; two routes share one, each with its own tables."""

    rules: Rules
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(factory=dict)
    tables: dict[tuple[str, str], Table] = field(factory=lambda: defaultdict(Table))
    down: bool = False
    conflicts: int = 0
    calls: int = 0

    def deliver(
        self,
        route: Route,
        delivery: str,
        key: tuple[str, str],
        apply: Callable[[Table, list[tuple[int, Record]]], None],
        content: list[tuple[int, Record]],
        *,
        skip: int,
        mark: Callable[[int], None],
        kind: str,
    ) -> Generator[None, None, tuple[int, ...]]:
        """Apply it, one durable effect after the other; the value is the receipt: numbers of bad records."""
        self.calls += 1
        if self.down:
            raise Down
        bad = [number for number, (_, record) in enumerate(content) if route.is_bad(record, kind)]
        if bad and route.refuses == "raise":
            raise Refused
        digest = tuple(record.id for _, record in content)
        if route.promise == "once" and delivery in self.seen:
            return self._again(digest, self.seen[delivery])
        good = [item for number, item in enumerate(content) if number not in bad]
        if route.promise == "marks" and kind == "log":
            for number in range(skip, len(content)):
                apply(self.tables[key], [content[number]] if number not in bad else [])
                yield
                mark(number + 1)
        else:
            apply(self.tables[key], good)
            if route.promise == "once":
                self.seen[delivery] = (digest, tuple(bad))
        yield
        return tuple(bad)

    def _again(self, digest: tuple[int, ...], before: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[int, ...]:
        if digest != before[0]:
            self.conflicts += 1
        return before[1] if self.rules.repeat_answers_alike else ()


@define
class Disk:
    """The spool's folder. A kill keeps everything; a power cut forgets what was not fsynced."""

    files: dict[str, tuple[tuple[Record, ...], ...]] = field(factory=dict)
    synced: set[str] = field(factory=set)
    named: set[str] = field(factory=set)

    def write(self, name: str, content: tuple[tuple[Record, ...], ...]) -> None:
        """Put if absent: an existing name is never overwritten."""
        self.files.setdefault(name, content)

    def power_cut(self) -> None:
        self.files = {
            name: content if name in self.synced else () for name, content in self.files.items() if name in self.named
        }

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def segment(self, name: str, place: int) -> tuple[Record, ...] | None:
        segments = self.files.get(name)
        return segments[place] if segments is not None and place < len(segments) else None
