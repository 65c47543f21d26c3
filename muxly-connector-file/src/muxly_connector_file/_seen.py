"""Which files have been read: the stream's cursor, kept small."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

READABLE = 1_000
"""Up to so many files the cursor is a mapping that people can read; beyond, one digest a file."""
_DIGEST_BYTES = 12


@frozen(kw_only=True)
class FoundFile:
    """One file as it was when it was looked at.

    Args:
        id: Its path below the root, with ``/``; names the partition.
        path: Where it is: an absolute path, or a path inside a remote file system.
        size: In bytes.
        version: Its modification time in nanoseconds, or what the remote store calls a version.
    """

    id: str
    path: str
    size: int
    version: int | str


def cursor_of(files: Iterable[FoundFile]) -> dict[str, Any]:
    """The cursor that says: exactly these files, as they are, have been read."""
    known = sorted(files, key=lambda one: one.id)
    if len(known) <= READABLE:
        return {"files": {one.id: [one.size, one.version] for one in known}}
    digests = sorted(map(_digest, known))
    return {"digests": base64.b64encode(b"".join(digests)).decode()}


def unread(files: Iterable[FoundFile], cursor: Any) -> list[FoundFile]:
    """Those files that are new or changed since the cursor, in the order of their ids."""
    ordered = sorted(files, key=lambda one: one.id)
    if not cursor:
        return ordered
    if "files" in cursor:
        known = cursor["files"]
        return [one for one in ordered if known.get(one.id) != [one.size, one.version]]
    raw = base64.b64decode(cursor["digests"])
    digests = {raw[at : at + _DIGEST_BYTES] for at in range(0, len(raw), _DIGEST_BYTES)}
    return [one for one in ordered if _digest(one) not in digests]


def _digest(file: FoundFile) -> bytes:
    text = f"{file.size}\0{file.version}\0{file.id}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).digest()
