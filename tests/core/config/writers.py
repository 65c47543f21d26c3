"""Writers of JSON, YAML and TOML that remember where they put every key and value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly.config._document import KeyPath

Spot = tuple[int, int]

_LETTERS = st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp", "Cn", "Co"], blacklist_characters="\ufeff\x85")
TEXTS = st.text(_LETTERS, max_size=8) | st.sampled_from(["on", "no", "012", "1:30", "null", "~", "2020-01-01", "<<"])
KEYS = TEXTS
SCALARS = st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


class Writer:
    """Puts text together and notes the place where each node begins."""

    def __init__(self, gaps: Callable[[], str] = lambda: "") -> None:
        self.text = ""
        self.values: dict[KeyPath, Spot] = {}
        self.keys: dict[KeyPath, Spot] = {}
        self.gaps = gaps

    def spot(self) -> Spot:
        lines = self.text.split("\n")
        return len(lines), len(lines[-1]) + 1

    def put(self, text: str) -> None:
        self.text += text

    def gap(self) -> None:
        self.text += self.gaps()


def write_json(value: Any, writer: Writer, path: KeyPath = ()) -> None:
    writer.gap()
    writer.values[path] = writer.spot()
    if not isinstance(value, dict | list):
        writer.put(_scalar(value))
        writer.gap()
        return
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    writer.put("{" if isinstance(value, dict) else "[")
    for number, (key, item) in enumerate(pairs):
        if number:
            writer.put(",")
        if isinstance(value, dict):
            writer.gap()
            writer.keys[(*path, key)] = writer.spot()
            writer.put(json.dumps(key, ensure_ascii=False) + ": ")
        write_json(item, writer, (*path, key))
    writer.put("}" if isinstance(value, dict) else "]")
    writer.gap()


def write_yaml(value: dict[str, Any], writer: Writer, path: KeyPath = (), indent: int = 0) -> None:
    """Mappings in block style, the rest in flow style."""
    writer.values[path] = (writer.spot()[0], writer.spot()[1] + indent) if value else writer.spot()
    if not value:
        writer.put("{}\n")
        return
    for key, item in value.items():
        writer.put(" " * indent)
        writer.keys[(*path, key)] = writer.spot()
        writer.put(json.dumps(key, ensure_ascii=False) + ":")
        if isinstance(item, dict) and item:
            writer.put("\n")
            write_yaml(item, writer, (*path, key), indent + 2)
        else:
            writer.put(" ")
            write_json(item, writer, (*path, key))
            writer.put("\n")


def write_toml(value: dict[str, Any], writer: Writer, path: KeyPath = ()) -> None:
    """Scalars and lists first, then each mapping as a table of its own."""
    tables = {key: item for key, item in value.items() if isinstance(item, dict)}
    for key, item in value.items():
        if key not in tables:
            writer.keys[(*path, key)] = writer.spot()
            writer.put(_toml_key(key) + " = ")
            _write_toml_value(item, writer, (*path, key))
            writer.put("\n")
    for key, item in tables.items():
        writer.put("[" + "".join(_toml_key(str(one)) + " . " for one in path))
        writer.keys[(*path, key)] = writer.values[(*path, key)] = writer.spot()
        writer.put(_toml_key(key) + "]\n")
        write_toml(item, writer, (*path, key))
    writer.values[()] = (1, 1)


def _write_toml_value(value: Any, writer: Writer, path: KeyPath) -> None:
    writer.values[path] = writer.spot()
    if isinstance(value, list):
        writer.put("[")
        for number, item in enumerate(value):
            writer.put(", " if number else "\n")
            _write_toml_value(item, writer, (*path, number))
        writer.put("]")
    elif isinstance(value, dict):
        writer.put("{")
        for number, (key, item) in enumerate(value.items()):
            writer.put(", " if number else "")
            writer.keys[(*path, key)] = writer.spot()
            writer.put(_toml_key(key) + " = ")
            _write_toml_value(item, writer, (*path, key))
        writer.put("}")
    else:
        writer.put(_scalar(value))


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else json.dumps(key, ensure_ascii=False)


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" in text else f"{text}.0"
    return json.dumps(value, ensure_ascii=False)
