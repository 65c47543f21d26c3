"""Splitting batches: records of one schema each, without repeats, and dead letters of what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from attrs import field, frozen

from muxly._runner.extract import deduplication
from muxly._runner.extract.intake import Intake
from muxly.batch import Batch, Rejected
from muxly.errors import PluginError
from muxly.store import plans
from muxly.store.dead_letters import unread_before
from muxly.store.ledger import Ledger
from muxly.store.rows import Letter, StoredPartition, StoredPlan
from muxly.stream import Stream


@frozen(kw_only=True)
class ConformedBatch:
    """Records of one batch and one schema, ready to be added to a group.

    Args:
        stream: Their stream.
        version: Of its schema; 0 = there are letters only.
        table: The records.
        replaces: Values of the overwrite key that they replace.
        letters: What could not be read of the batch.
    """

    stream: str
    version: int
    table: pa.Table
    replaces: tuple[tuple[Any, ...], ...]
    letters: list[Letter] = field(factory=list)


class BatchSplitter:
    """Takes the batches of one reading apart.

    Args:
        ledger: Knows what was sealed before.
        intake_of: How a stream is taken in, by its name.
        stream: The stream being read.
        plan: The plan.
        partition: The partition.
        allowed: How many of so many more records of a stream are taken.
        on_count: Told stream, records, repeats and rejected records of each batch.
    """

    def __init__(
        self,
        ledger: Ledger,
        intake_of: Callable[[str], Intake],
        *,
        stream: Stream,
        plan: StoredPlan,
        partition: StoredPartition,
        allowed: Callable[[str, int], int],
        on_count: Callable[[str, int, int, int], None],
    ) -> None:
        self._ledger, self._intake_of = ledger, intake_of
        self._stream, self._plan, self._partition = stream, plan, partition
        self._allowed, self._on_count = allowed, on_count
        self._expected: dict[str, list[deduplication.Boundary]] = {}

    def split(self, batch: Batch) -> list[ConformedBatch]:
        """The batch as records of one schema each: nearly always one, more if values have several types."""
        name = batch.stream or self._stream.name
        intake = self._intake_of(name)
        table, unfit = batch.to_arrow(intake.schema.schema)
        if not intake.wanted:
            return []
        letters = [_letter_of(name, rejection) for rejection in batch.rejected]
        if intake.discarded:
            letters += [_letter(name, intake.discarded, record=record) for record in table.to_pylist()]
            letters += [_letter_of(name, rejection) for rejection in unfit]
            self._on_count(name, 0, 0, len(letters))
            return [ConformedBatch(stream=name, version=0, table=table.slice(0, 0), replaces=(), letters=letters)]
        others, unreadable = _by_type(unfit)
        letters += [_letter_of(name, rejection) for rejection in unreadable]
        first = self._conformed(intake, table, named=batch.replaces, letters=letters)
        return [first, *(self._conformed(intake, other, named=(), letters=[]) for other in others)]

    def _conformed(
        self, intake: Intake, table: pa.Table, *, named: Sequence[Any], letters: list[Letter]
    ) -> ConformedBatch:
        """Records in the stream's schema, without repeats; what the contract discards joins the letters."""
        name = intake.stream.name
        table, version, refused = intake.schema.conform(table)
        kept, dropped = self._without_repeats(intake, table)
        table = kept.slice(0, self._allowed(name, kept.num_rows))
        found = [*letters, *(_letter_of(name, rejection) for rejection in refused)]
        letters = self._without_known(intake, found)
        self._on_count(name, table.num_rows, dropped + len(found) - len(letters), len(letters))
        return ConformedBatch(
            stream=name, version=version, table=table, replaces=_replaces(named, intake, table), letters=letters
        )

    def _without_repeats(self, intake: Intake, table: pa.Table) -> tuple[pa.Table, int]:
        """What was not sealed before, and how much was; all of it where values are replaced as a whole."""
        if intake.keyed:
            return table, 0
        records, expected = table.num_rows, self._expected_of(intake.stream)
        for number, boundary in enumerate(expected):
            kept = deduplication.drop_repeats(table, intake.stream, boundary)
            table, expected[number] = kept.table, kept.expected
        return table, records - table.num_rows

    def _without_known(self, intake: Intake, letters: list[Letter]) -> list[Letter]:
        """The letters that no earlier run has kept: what cannot be read comes again with the ties and the lookback."""
        if not letters or not self._expected_of(intake.stream):
            return letters
        contents = [letter.record for letter in letters if letter.record is not None]
        known = unread_before(self._ledger, intake.stream.name, contents)
        return [letter for letter in letters if (letter.place, letter.record) not in known]

    def _expected_of(self, stream: Stream) -> list[deduplication.Boundary]:
        """What this reading may see again: what was sealed before its plan, and what its own partition has sealed.

        Not what other partitions of the plan have sealed: an equal record of theirs is another one.
        """
        if stream.name not in self._expected:
            states = []
            if stream.cursor_field is not None:
                own = plans.own_boundaries(self._ledger, self._plan.id, self._partition.ordinal)
                states = [self._plan.boundaries.get(stream.name), own.get(stream.name)]
            self._expected[stream.name] = [deduplication.Boundary.from_state(state) for state in states if state]
        return self._expected[stream.name]


def _by_type(unfit: list[Rejected]) -> tuple[list[pa.Table], list[Rejected]]:
    """Records whose values have other types than their neighbours' as tables of their own types.

    The contract decides what becomes of them; what no type holds stays rejected.
    """
    tables: list[pa.Table] = []
    while unfit:
        table, left = Batch([rejection.record for rejection in unfit]).to_arrow()
        if not table.num_rows:
            break
        tables.append(table)
        unfit = left
    return tables, unfit


def _replaces(named: Sequence[Any], intake: Intake, table: pa.Table) -> tuple[tuple[Any, ...], ...]:
    """The overwrite key's values that a batch replaces: those it names, and those of its records."""
    key = intake.stream.overwrite_key
    if not key:
        if named:
            raise PluginError(f"a batch of {intake.stream.name!r} replaces values, but the stream has no overwrite_key")
        return ()
    found = [value if isinstance(value, tuple) else (value,) for value in named]
    if intake.keyed and table.num_rows:
        rows = table.select(list(key)).group_by(list(key)).aggregate([]).to_pylist()
        found += [tuple(row[name] for name in key) for row in rows]
    return tuple(dict.fromkeys(found))


def _letter_of(stream: str, rejected: Rejected) -> Letter:
    return _letter(stream, rejected.reason, record=rejected.record, place=rejected.place)


def _letter(stream: str, reason: str, *, record: Any, place: str | None = None) -> Letter:
    content, kind = _encoded(record)
    return Letter(stream=stream, reason=reason, place=place, record=content, format=kind)


def _encoded(record: Any) -> tuple[bytes | None, str]:
    if record is None:
        return None, "none"
    if isinstance(record, bytes):
        return record, "bytes"
    if isinstance(record, str):
        return record.encode(errors="surrogateescape"), "text"
    return json.dumps(record, default=str, ensure_ascii=True).encode(), "json"
