"""Records that follow from a seed, a stream's name and a number alone."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_START = datetime(2024, 1, 1, tzinfo=UTC)
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


def chance(seed: int, stream: str, number: int) -> int:
    """64 even bits for the number; the same on every machine and in every version."""
    key = f"{seed}:{stream}:{number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def record(seed: int, stream: str, number: int, *, wide: bool, per_day: int) -> dict[str, Any]:
    """One record; ``id`` is its number, and all else follows from it.

    Args:
        seed: Another seed, other values.
        stream: The stream's name.
        number: 0 or more.
        wide: Whether it has a column of every type rather than five usual ones.
        per_day: So many records share one ``day``.
    """
    bits = chance(seed, stream, number)
    few = {
        "id": number,
        "name": f"{stream}-{number}",
        "amount": (bits % 1_000_000) / 100,
        "day": (_START + timedelta(days=number // per_day)).date(),
        "changed_at": _START + timedelta(seconds=number),
    }
    return {**few, **_more(bits, number)} if wide else few


def _more(bits: int, number: int) -> dict[str, Any]:
    word = _WORDS[bits % len(_WORDS)]
    return {
        "flag": None if number % 7 == 3 else bits % 2 == 0,
        "tiny": bits % 256 - 128,
        "big": bits,
        "price": Decimal(bits % 10**18) / Decimal(10**9),
        "ratio": float("inf") if number % 97 == 5 else (bits % 4096) / 64,
        "text": None if number % 11 == 7 else word,
        "bytes": bits.to_bytes(8, "big"),
        "clock": (_START + timedelta(microseconds=bits % 86_400_000_000)).time(),
        "lasted": timedelta(microseconds=bits % 10**12),
        "naive_at": datetime(1970, 1, 1) + timedelta(seconds=bits % 10**9),  # noqa: DTZ001 (a column without zone)
        "tags": None if number % 5 == 4 else [word, str(bits % 10)][: bits % 3],
        "place": {"lat": (bits % 180) - 90.0, "city": word} if number % 6 else None,
        "nothing": None,
        "kind": ("red", "green", "blue")[bits % 3],
        "old": date(1, 1, 1) + timedelta(days=bits % 3_000_000),
        "noon": time(12, 0),
    }


def schema(*, wide: bool) -> pa.Schema:
    """The Arrow schema of the records."""
    import pyarrow as pa

    few = [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.float64()),
        ("day", pa.date32()),
        ("changed_at", pa.timestamp("us", "UTC")),
    ]
    more = [
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
    return pa.schema(few + more if wide else few)
