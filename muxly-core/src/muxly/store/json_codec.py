"""Cursors and other small values as JSON text, and back, equal and of the same type.

Types that JSON does not have are written as an object with one key that begins with ``$``::

    date        {"$date": "2026-11-23"}
    datetime    {"$datetime": ["2026-11-23T01:02:03.000004+01:00", 0]}                (fold)
                {"$datetime": ["2026-10-25T02:30:00", 1, "Europe/Berlin"]}            (zone)
    Decimal     {"$decimal": "1.50"}
    bytes       {"$bytes": "00ff"}
    tuple       {"$tuple": [1, 2]}
    a dict that looks like one of these     {"$dict": {...}}

The text is ASCII and canonical: keys are sorted and nothing is optional, so equal values
of equal types give equal text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from muxly.errors import PluginError, StoreError

__all__ = ["decode", "decode_optional", "digest", "encode", "encode_optional"]

# What the readers below raise for content that `encode` never writes.
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, OSError)
_DEPTH = 100
_QUOTE = '"'
_SHOWN = 80
_TINY_OFFSET = re.compile(r"[+-]00:00:00\.(\d{6})$")
_ALLOWED = "None, bool, int, float, str, bytes, date, datetime, Decimal, and list, tuple or dict of these"


def encode(value: Any, name: str = "cursor") -> str:
    """The value as canonical JSON text.

    Args:
        value: JSON values plus date, datetime, Decimal, bytes and tuple, at most 100 deep.
            Subclasses (a pandas ``Timestamp``, a numpy float, an enum) are refused, for
            they would not come back as what they were.
        name: What an error calls the value.

    Returns:
        ASCII text without spaces. A datetime whose zone is neither a ``ZoneInfo`` with a
        key nor a ``timezone`` comes back at the same instant with a fixed offset.

    Raises:
        PluginError: The value holds something else, a number that is not finite, or a
            key that is not text; the message says where.
    """
    try:
        return json.dumps(_tagged(value, name, _DEPTH), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as cause:  # an int of more digits than CPython writes (4,300)
        raise PluginError(f"{name}: {cause}; use a smaller number or text") from cause


def decode(text: str) -> Any:
    """The value that `encode` was given.

    Raises:
        StoreError: The text is not what `encode` writes, or names a time zone that this
            machine does not know.
    """
    try:
        return _untagged(json.loads(text))
    except ZoneInfoNotFoundError as cause:
        raise StoreError(
            f"the stored value {_shown(text)} needs a time zone that this machine does not have ({cause}); "
            "install its definitions: pip install tzdata"
        ) from cause
    except _UNREADABLE as cause:
        raise StoreError(
            f"the stored value {_shown(text)} was not written by Muxly ({type(cause).__name__}: {cause}); "
            "the store was changed by something else or is damaged: run `muxly db check`"
        ) from cause


def encode_optional(value: Any) -> str | None:
    """As `encode`; None is no text."""
    return None if value is None else encode(value)


def decode_optional(text: str | None) -> Any:
    """As `decode`; no text is None."""
    return None if text is None else decode(text)


def digest(value: Any, name: str = "value") -> str:
    """A digest that is the same in every process, on every machine, for equal values of equal types.

    Args:
        value: What `encode` takes.
        name: What an error calls the value.

    Returns:
        128 bits of BLAKE2b over the canonical text, as 32 hexadecimal digits.

    Raises:
        PluginError: As `encode`.
    """
    return blake2b(encode(value, name).encode("ascii"), digest_size=16).hexdigest()


def _shown(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _tagged(value: Any, name: str, depth: int) -> Any:
    if depth == 0:
        raise PluginError(f"{name[:_SHOWN]}: nested more than {_DEPTH} levels deep, or contains itself; flatten it")
    write = _WRITERS.get(type(value))
    if write is None:
        kind = type(value)
        raise PluginError(
            f"{name}: a {kind.__module__}.{kind.__qualname__} cannot be stored and restored unchanged; use {_ALLOWED}"
        )
    return write(value, name, depth - 1)


def _plain(value: Any, _name: str, _depth: int) -> Any:
    return value


def _write_float(value: float, name: str, _depth: int) -> float:
    if not math.isfinite(value):
        raise PluginError(f"{name}: {value} is not a finite number; leave it out or use None")
    return value


def _write_decimal(value: Decimal, name: str, _depth: int) -> dict[str, str]:
    if not value.is_finite():
        raise PluginError(f"{name}: Decimal {value} is not a finite number; leave it out or use None")
    return {"$decimal": str(value)}


def _write_datetime(value: datetime, _name: str, _depth: int) -> dict[str, list[Any]]:
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        # Two zones never compare equal in a repeated hour (PEP 495), so the zone itself is kept.
        return {"$datetime": [value.replace(tzinfo=None).isoformat(), value.fold, zone.key]}
    offset = value.utcoffset()
    if offset is not None:
        value = value.replace(tzinfo=timezone(offset))
    return {"$datetime": [value.isoformat(), value.fold]}


def _write_list(value: list[Any], name: str, depth: int) -> list[Any]:
    return [_tagged(item, f"{name}[{index}]", depth) for index, item in enumerate(value)]


def _write_tuple(value: tuple[Any, ...], name: str, depth: int) -> dict[str, list[Any]]:
    return {"$tuple": _write_list(list(value), name, depth)}


def _write_dict(value: dict[Any, Any], name: str, depth: int) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str:
            raise PluginError(f"{name}: the key {key!r} is not text; use str keys")
        written[key] = _tagged(item, f"{name}[{key!r}]", depth)
    return {"$dict": written} if _looks_tagged(written) else written


def _looks_tagged(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


_WRITERS: dict[type, Callable[[Any, str, int], Any]] = {
    type(None): _plain,
    bool: _plain,
    int: _plain,
    str: _plain,
    float: _write_float,
    Decimal: _write_decimal,
    bytes: lambda value, _name, _depth: {"$bytes": value.hex()},
    date: lambda value, _name, _depth: {"$date": value.isoformat()},
    datetime: _write_datetime,
    list: _write_list,
    tuple: _write_tuple,
    dict: _write_dict,
}


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _looks_tagged(value):
        ((tag, content),) = value.items()
        return _READERS[tag](content)
    return _read_dict(value)


def _read_dict(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _untagged(item) for key, item in value.items()}


def _read_datetime(content: list[Any]) -> datetime:
    text, fold, *zone = content
    value = datetime.fromisoformat(text).replace(fold=fold)
    if (tiny := _TINY_OFFSET.search(text)) is not None:  # Python 3.11 reads it as no offset at all
        micros = timedelta(microseconds=int(tiny[1]))
        value = value.replace(tzinfo=timezone(-micros if tiny[0].startswith("-") else micros))
    return value.replace(tzinfo=ZoneInfo(zone[0])) if zone else value


_READERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": bytes.fromhex,
    "$date": date.fromisoformat,
    "$datetime": _read_datetime,
    "$decimal": Decimal,
    "$dict": _read_dict,
    "$tuple": lambda content: tuple(_untagged(item) for item in content),
}


def readable(text: str) -> str:
    """The text for people to read; what no database takes is written as an escape."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def encode_name(name: str) -> str:
    """A name of any characters as text that ``decode_name`` turns back into the same name."""
    return name if readable(name) == name and not name.startswith(_QUOTE) else json.dumps(name)


def decode_name(text: str) -> str:
    """The name that ``encode_name`` was given."""
    return str(json.loads(text)) if text.startswith(_QUOTE) else text
