"""JSON values to Arrow arrays one by one: the exact way for lines that the fast way refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from attrs import frozen

_EXACT_FLOAT = 2**53
_MOST_DIGITS = 76


class JsonKind:
    """The type of a JSON value; ``join`` finds the one that holds two kinds, or None."""


@frozen
class ScalarKind(JsonKind):
    """``null``, ``bool``, ``string``, ``float``, or an integer by what holds it.

    ``int`` fits a float exactly, ``long`` only 64 bits, ``wide`` and ``huge`` only a decimal.
    """

    name: str


@frozen
class ListKind(JsonKind):
    """A list, with the kind of its items."""

    item: JsonKind


@frozen
class ObjectKind(JsonKind):
    """An object, with the kinds of its values by key."""

    keys: tuple[tuple[str, JsonKind], ...]


NULL = ScalarKind("null")
_INTEGERS = ("int", "long", "wide", "huge")


def join(left: JsonKind, right: JsonKind) -> JsonKind | None:
    """The kind that holds values of both exactly; None if no Arrow type does."""
    if NULL in (left, right):
        return right if left == NULL else left
    if left == right:
        return left
    if isinstance(left, ScalarKind) and isinstance(right, ScalarKind):
        return _join_plain(left.name, right.name)
    if isinstance(left, ListKind) and isinstance(right, ListKind):
        return _listed(join(left.item, right.item))
    if isinstance(left, ObjectKind) and isinstance(right, ObjectKind):
        return join_keyed(left, right)
    return None


def _join_plain(left: str, right: str) -> ScalarKind | None:
    names = {left, right}
    if names <= set(_INTEGERS):
        return ScalarKind(max(names, key=_INTEGERS.index))
    return ScalarKind("float") if names == {"int", "float"} else None


def join_keyed(left: ObjectKind, right: ObjectKind) -> ObjectKind | None:
    """The object kind that has the keys of both."""
    keys = dict(left.keys)
    for key, kind in right.keys:
        joined = join(keys.get(key, NULL), kind)
        if joined is None:
            return None
        keys[key] = joined
    return ObjectKind(tuple(keys.items()))


def kind_of(value: Any) -> JsonKind | None:
    """The kind of one value; None if its parts do not go together, such as ``[1, "a"]``."""
    if value is None:
        return NULL
    if isinstance(value, dict):
        kinds = {key: kind_of(part) for key, part in value.items()}
        return None if None in kinds.values() else ObjectKind(tuple(kinds.items()))  # type: ignore[arg-type]
    if isinstance(value, list):
        return _listed(_kind_of_all(value))
    if isinstance(value, bool):
        return ScalarKind("bool")
    if isinstance(value, int):
        return ScalarKind(_integer(value))
    return ScalarKind("float" if isinstance(value, float) else "string")


def _listed(item: JsonKind | None) -> JsonKind | None:
    return None if item is None else ListKind(item)


def _kind_of_all(values: list[Any]) -> JsonKind | None:
    """The kind that holds all items of a list."""
    common: JsonKind = NULL
    for value in values:
        kind = kind_of(value)
        joined = None if kind is None else join(common, kind)
        if joined is None:
            return None
        common = joined
    return common


def _integer(value: int) -> str:
    if -_EXACT_FLOAT <= value <= _EXACT_FLOAT:
        return "int"
    if -(2**63) <= value < 2**63:
        return "long"
    return "wide" if abs(value) < 10**38 else "huge"


def arrow_type(kind: JsonKind) -> pa.DataType:
    """The Arrow type for a kind."""
    if isinstance(kind, ListKind):
        return pa.list_(arrow_type(kind.item))
    if isinstance(kind, ObjectKind):
        return pa.struct([pa.field(key, arrow_type(part)) for key, part in kind.keys])
    assert isinstance(kind, ScalarKind)
    return {
        "null": pa.null(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "long": pa.int64(),
        "wide": pa.decimal128(38, 0),
        "huge": pa.decimal256(_MOST_DIGITS, 0),
        "float": pa.float64(),
        "string": pa.string(),
    }[kind.name]


def parse(line: bytes) -> dict[str, Any]:
    """One line as an object, strictly.

    Raises:
        ValueError: Says what is wrong with the line.
    """
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at letter {error.pos + 1}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {_word(value)}, not an object; JSON Lines have an object in each line")
    if b"\\u" in line:
        _whole_letters(value)
    return value


def _whole_letters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (a letter that UTF-8 cannot hold)") from None


def _word(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {ascii(twice)[:60]} stands twice in one object")
    return members


def _float(text: str) -> WrittenFloat:
    value = WrittenFloat(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    value.text = text
    return value


def _int(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"an integer of more than {_MOST_DIGITS} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int)


class WrittenFloat(float):
    """A float that remembers how it was written, for columns whose given type is a decimal."""

    __slots__ = ("text",)
    text: str


def runs(records: Sequence[Mapping[str, Any]], most: int) -> list[tuple[ObjectKind, list[Mapping[str, Any]]]]:
    """Consecutive records whose columns go together, with their kinds.

    Where there would be more than ``most`` parts, columns whose values do not go together
    become JSON text in all records; so do values that fit no Arrow type, such as ``[1, "a"]``.
    """
    records = [_plain(record) for record in records]
    groups = _runs(records)
    if len(groups) <= most:
        return groups
    mixed = _mixed(records)
    texts = [{key: as_text(value) if key in mixed else value for key, value in record.items()} for record in records]
    return _runs(texts)


def _runs(records: Sequence[Mapping[str, Any]]) -> list[tuple[ObjectKind, list[Mapping[str, Any]]]]:
    groups: list[tuple[ObjectKind, list[Mapping[str, Any]]]] = []
    for record in records:
        kind = kind_of(record)
        assert isinstance(kind, ObjectKind)
        joined = join_keyed(groups[-1][0], kind) if groups else None
        if joined is None:
            groups.append((kind, [record]))
        else:
            groups[-1][1].append(record)
            groups[-1] = (joined, groups[-1][1])
    return groups


def _plain(record: Mapping[str, Any]) -> Mapping[str, Any]:
    if kind_of(record) is not None:
        return record
    return {key: as_text(value) if kind_of(value) is None else value for key, value in record.items()}


def _mixed(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Columns whose values do not go together."""
    kinds: dict[str, JsonKind | None] = {}
    for record in records:
        for key, value in record.items():
            known = kinds.get(key, NULL)
            new = kind_of(value)
            kinds[key] = None if known is None or new is None else join(known, new)
    return {key for key, kind in kinds.items() if kind is None}


def as_text(value: Any) -> str | None:
    """A value as text: strings and null as they are, everything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, WrittenFloat):
        return value.text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
