"""Fingerprints: short names for options and contents, without secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import attrs

from muxly.options import Options, Secret
from muxly.store import json_codec


def of_options(component: Options) -> str:
    """Names the options of a component; a secret counts by where it is kept, not by its value."""
    return json_codec.digest([type(component).__qualname__, _plain(component)])


def of_plan(component: Options, read: str) -> str:
    """Names what a plan is made under: the connector's options, and whether all of the stream is read."""
    return of_parts([of_options(component), read])


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reference
    if isinstance(value, Options) or attrs.has(type(value)):
        return {field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item)) for item in value)
    if isinstance(value, (PurePath, complex)) or callable(value) or not _storable(value):
        return str(value)
    return value


def _storable(value: Any) -> bool:
    try:
        json_codec.encode(value)
    except Exception:  # noqa: BLE001 - whatever an option holds, it only has to have a name
        return False
    return True


def of_parts(parts: Iterable[str]) -> str:
    """SHA-256 over texts, each ended by a zero byte."""
    digest = hashlib.sha256(usedforsecurity=False)
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()
