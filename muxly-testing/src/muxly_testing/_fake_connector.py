"""A connector without a source system, whose records and faults are scripted."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs.validators import ge, in_

from muxly.batch import Batch, Cursor, Rejected
from muxly.component import Run
from muxly.connector import Connector, Partition, Plan
from muxly.errors import StreamUnavailableError
from muxly.options import option
from muxly.stream import Stream
from muxly_testing._destination import SharedState, new_token
from muxly_testing._faults import Call, Calls, Fault, scripted

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["FakeConnector"]


FIRST_INSTANT = datetime(2024, 1, 1, tzinfo=UTC)
_WORDS = (
    "",
    "plain",
    'quo"te',
    "com,ma",
    "new\nline",
    "tab\t",
    "=1+1",
    "naïve",
    "日本語",
    "👩‍💻",
    "O'Neil",
    "null",
    "\\N",
)


CURSOR_KINDS = ("number", "text", "datetime", "decimal", "mapping")


class FakeConnector(Connector):
    """A connector of deterministic records: each follows from the seed, the stream's name and its ``id``.

    A stream holds the ids from 0 up to ``records``; increase that between two runs, and the second one
    finds the new records. ``calls`` lists the calls of a connector and of all its copies.
    """

    names: list[str] = option("Names of the streams.", factory=lambda: ["numbers"])
    records: int = option("Number of records of each stream.", default=1000, validator=ge(0))
    records_of: dict[str, int] = option("Number of records of single streams, by name.", factory=dict)
    partitions: int = option("Number of partitions of each plan.", default=1, validator=ge(1))
    batch_records: int = option("Number of records of each batch.", default=100, validator=ge(1))
    cursor_every: int = option("Every n-th batch carries a cursor; 0 = no batch does.", default=1, validator=ge(0))
    cursor_kind: str = option(
        "number, text, datetime, decimal or mapping.", default="number", validator=in_(CURSOR_KINDS)
    )
    seed: int = option("Another seed gives other values.", default=0)
    wide: bool = option("A column of every type, rather than five usual ones.", default=False)
    arrow: bool = option("Whether batches are Arrow, or lists of dicts.", default=True)
    keyed: bool = option("Whether streams have a primary key and a cursor field.", default=True)
    in_order: bool = option("Whether streams say that they are sorted.", default=True)
    endless: bool = option("Reading goes on until the run stops.", default=False)
    batch_seconds: float = option("Seconds that each batch takes.", default=0.0, validator=ge(0))
    children: bool = option("Each stream has a child, NAME.parts, with up to two records a record.", default=False)
    by_day: bool = option("Streams have the overwrite key day, and a day is one group.", default=False)
    per_day: int = option("Number of records that share a day.", default=100, validator=ge(1))
    gone: list[int] = option("Ids that the source no longer has.", factory=list)
    deleted: list[int] = option("Ids that come as tombstones.", factory=list)
    bad: list[int] = option("Ids that cannot be read; they come as rejected records.", factory=list)
    missing: list[str] = option("Streams that are shown, but not there when they are read.", factory=list)
    extra_from: int | None = option("From this id on there is a column extra.", default=None)
    text_from: int | None = option("From this id on amount is text.", default=None)
    faults: list[Fault] = option("Scripted faults.", factory=list)
    folder: Path | None = option("Folder in which calls are noted, so that other processes see them.", default=None)
    token: str = option("Connectors with the same token share their calls.", default="")

    _run: Run | None = None

    def __attrs_post_init__(self) -> None:
        self._own = new_token()

    @property
    def calls(self) -> Sequence[Call]:
        """Every call of this connector and of its copies, in order."""
        return self._call_log().all()

    def expected(self, name: str = "numbers") -> list[dict[str, Any]]:
        """The records that a stream holds, as dicts."""
        if name.endswith(".parts"):
            return [part for number in self._numbers(name[:-6]) for part in _children_of(number)]
        return [self._record(name, number) for number in self._numbers(name)]

    def open(self, run: Run) -> None:
        """Note the call, and let its faults happen."""
        self._run = run
        with self._scripted(Call("open")):
            pass

    def close(self) -> None:
        """Note the call, and let its faults happen."""
        with self._scripted(Call("close")):
            self._run = None

    def streams(self) -> list[Stream]:
        """One for each name, and one for its children."""
        with self._scripted(Call("streams")):
            return [stream for name in self.names for stream in self._family(name)]

    def _family(self, name: str) -> Iterator[Stream]:
        yield Stream(
            name,
            ("id",) if self.keyed else (),
            overwrite_key=("day",) if self.by_day else (),
            cursor_field="changed_at" if self.keyed else None,
            sorted=self.in_order,
        )
        if self.children:
            yield Stream(f"{name}.parts", ("id", "part"), parent=name)

    def plan(self, stream: Stream, cursor: Cursor) -> Plan:
        """The ids from the cursor on, in even partitions."""
        with self._scripted(Call("plan", stream=stream.name)):
            return self._plan(stream, cursor)

    def _plan(self, stream: Stream, cursor: Cursor) -> Plan:
        if stream.name in self.missing:
            raise StreamUnavailableError(f"the stream {stream.name} is not there; it is listed in `missing`")
        first, end = decode_cursor(cursor), self._end(stream.name)
        if self.endless:
            return Plan((self._partition(first, None),))
        if first >= end:
            return Plan((), cursor)
        edges = self._edges(first, end)
        parts = [self._partition(low, high) for low, high in itertools.pairwise(edges)]
        return Plan(parts, encode_cursor(self.cursor_kind, end))

    def _edges(self, first: int, end: int) -> list[int]:
        unit = self.per_day if self.by_day else 1
        inner = {first + (end - first) * part // self.partitions // unit * unit for part in range(self.partitions)}
        return [first, *sorted(edge for edge in inner if first < edge < end), end]

    def _partition(self, low: int, high: int | None) -> Partition:
        records = None if high is None else high - low
        cursor = encode_cursor(self.cursor_kind, low)
        return Partition(f"from-{low}", cursor, payload={"from": low, "to": high}, records=records)

    def read(self, stream: Stream, partition: Partition, cursor: Cursor) -> Iterator[Batch]:
        """The records of the partition from the cursor on."""
        start, end = partition.payload["from"], partition.payload["to"]
        low = decode_cursor(cursor)
        while end is None or low < end:
            number, high = self._cut(start, low, end)
            with self._scripted(Call("read", stream=stream.name, key=partition.id, number=number)):
                self._wait()
                yield from self._batches(stream, range(low, high), self._cursor(number, high, end))
            low = high

    def _cut(self, start: int, low: int, end: int | None) -> tuple[int, int]:
        """The number of the batch that begins there, and where it ends."""
        number = (low - start) // self.batch_records
        high = start + (number + 1) * self.batch_records
        if self.by_day:
            number, high = low // self.per_day, (low // self.per_day + 1) * self.per_day
        return number, high if end is None else min(high, end)

    def _cursor(self, number: int, high: int, end: int | None) -> Cursor:
        if self.cursor_every == 0 or ((number + 1) % self.cursor_every and high != end):
            return None
        return encode_cursor(self.cursor_kind, high)

    def _batches(self, stream: Stream, numbers: range, cursor: Cursor) -> Iterator[Batch]:
        there = self._there(numbers)
        if self.children:
            yield Batch([part for number in there for part in _children_of(number)], stream=f"{stream.name}.parts")
        records = [self._record(stream.name, number) for number in there]
        yield Batch(
            self._as_arrow(records) if self.arrow else records,
            cursor,
            replaces=[(self._record(stream.name, numbers[0])["day"],)] if self.by_day else (),
            rejected=[
                Rejected("a scripted bad record", record={"id": number}, place=f"{stream.name}:{number}")
                for number in self.bad
                if number in numbers
            ],
        )

    def _record(self, name: str, number: int) -> dict[str, Any]:
        record = fake_record(self.seed, name, number, wide=self.wide, per_day=self.per_day)
        if self.deleted:
            record["_deleted_at"] = record["changed_at"] if number in self.deleted else None
        if self.extra_from is not None and number >= self.extra_from:
            record["extra"] = f"extra-{number}"
        if self.text_from is not None and number >= self.text_from:
            record["amount"] = f"about {record['amount']}"
        return record

    def _as_arrow(self, records: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        schema = fake_schema(wide=self.wide)
        names = dict.fromkeys(name for record in records for name in record) or dict.fromkeys(schema.names)
        columns = {name: [record.get(name) for record in records] for name in names}
        return pa.table({name: _array(schema, name, values) for name, values in columns.items()})

    def _numbers(self, name: str) -> list[int]:
        return self._there(range(self._end(name)))

    def _there(self, numbers: range) -> list[int]:
        absent = {*self.gone, *self.bad}
        return [number for number in numbers if number not in absent]

    def _end(self, name: str) -> int:
        return self.records_of.get(name, self.records)

    def _wait(self) -> None:
        if self._run is not None and (self.batch_seconds or self.endless):
            self._run.sleep(self.batch_seconds)

    def _call_log(self) -> Calls:
        return SharedState.of(self.token or self._own, self.folder).calls

    def _scripted(self, call: Call) -> AbstractContextManager[None]:
        return scripted(self.faults, self._call_log(), call, self._run)


def _children_of(number: int) -> list[dict[str, Any]]:
    return [{"id": number, "part": part, "text": f"part {part} of {number}"} for part in range(number % 3)]


def _array(schema: Any, name: str, values: list[Any]) -> Any:
    """A column, of the type in the schema unless options of the connector change it."""
    import pyarrow as pa

    if name == "amount" and any(isinstance(value, str) for value in values):
        return pa.array([None if value is None else str(value) for value in values])
    if name == "_deleted_at":
        return pa.array(values, type=pa.timestamp("us", "UTC"))
    index = schema.get_field_index(name)
    kind = None if index < 0 else schema.field(index).type
    if kind is not None and pa.types.is_dictionary(kind):
        return pa.array(values).dictionary_encode().cast(kind)
    return pa.array(values, type=kind)


def fake_record(seed: int, stream: str, number: int, *, wide: bool, per_day: int) -> dict[str, Any]:
    """A record whose ``id`` is its number; all other values follow from the arguments.

    Args:
        seed: Another seed gives other values.
        stream: The stream's name.
        number: 0 or more.
        wide: Whether it has a column of every type rather than five usual ones.
        per_day: Number of consecutive records that share a ``day``, 1 or more.
    """
    bits = _random_bits(seed, stream, number)
    usual = {
        "id": number,
        "name": f"{stream}-{number}",
        "amount": (bits % 1_000_000) / 100,
        "day": (FIRST_INSTANT + timedelta(days=number // per_day)).date(),
        "changed_at": FIRST_INSTANT + timedelta(seconds=number),
    }
    return {**usual, **_wide_values(bits, number)} if wide else usual


def _random_bits(seed: int, stream: str, number: int) -> int:
    """64 evenly distributed bits; the same on every machine and in every version."""
    key = f"{seed}:{stream}:{number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def _wide_values(bits: int, number: int) -> dict[str, Any]:
    word = _WORDS[bits % len(_WORDS)]
    return {
        "flag": None if number % 7 == 3 else bits % 2 == 0,
        "tiny": bits % 256 - 128,
        "big": bits,
        "price": Decimal(bits % 10**18) / Decimal(10**9),
        "ratio": float("inf") if number % 97 == 5 else (bits % 4096) / 64,
        "text": None if number % 11 == 7 else word,
        "bytes": bits.to_bytes(8, "big"),
        "clock": (FIRST_INSTANT + timedelta(microseconds=bits % 86_400_000_000)).time(),
        "lasted": timedelta(microseconds=bits % 10**12),
        "naive_at": datetime(1970, 1, 1) + timedelta(seconds=bits % 10**9),  # noqa: DTZ001 (a column without zone)
        "tags": None if number % 5 == 4 else [word, str(bits % 10)][: bits % 3],
        "place": {"lat": (bits % 180) - 90.0, "city": word} if number % 6 else None,
        "nothing": None,
        "kind": ("red", "green", "blue")[bits % 3],
        "old": date(1, 1, 1) + timedelta(days=bits % 3_000_000),
        "noon": time(12, 0),
    }


def fake_schema(*, wide: bool) -> pa.Schema:
    """The Arrow schema of the records."""
    import pyarrow as pa

    usual = [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.float64()),
        ("day", pa.date32()),
        ("changed_at", pa.timestamp("us", "UTC")),
    ]
    others = [
        ("flag", pa.bool_()),
        ("tiny", pa.int8()),
        ("big", pa.uint64()),
        ("price", pa.decimal128(24, 9)),
        ("ratio", pa.float32()),
        ("text", pa.large_string()),
        ("bytes", pa.binary()),
        ("clock", pa.time64("us")),
        ("lasted", pa.duration("us")),
        ("naive_at", pa.timestamp("ms")),
        ("tags", pa.list_(pa.string())),
        ("place", pa.struct([("lat", pa.float64()), ("city", pa.string())])),
        ("nothing", pa.null()),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("old", pa.date32()),
        ("noon", pa.time32("s")),
    ]
    return pa.schema(usual + others if wide else usual)


def encode_cursor(kind: str, number: int) -> Any:
    """A cursor that says that all records before this number were read."""
    at = FIRST_INSTANT + timedelta(seconds=number)
    return {
        "number": number,
        "text": f"{number:012}",
        "datetime": at,
        "decimal": Decimal(number).scaleb(-2),
        "mapping": {"at": at, "ids": [number], "none": None},
    }[kind]


def decode_cursor(cursor: Any) -> int:
    """The number in a cursor; None = 0."""
    if cursor is None:
        return 0
    if isinstance(cursor, dict):
        return int(cursor["ids"][0])
    if isinstance(cursor, datetime):
        return int((cursor - FIRST_INSTANT).total_seconds())
    return int(cursor.scaleb(2)) if isinstance(cursor, Decimal) else int(cursor)
