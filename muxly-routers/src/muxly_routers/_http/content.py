"""The content of an answer without its coding, up to a limit that a bomb cannot pass."""

from __future__ import annotations

import zlib

__all__ = ["UnreadableContentError", "decoded"]

_PIECE = 64 * 1024
# Nobody compresses more than twice; each layer multiplies what a bomb can do.
_MOST_LAYERS = 2


class UnreadableContentError(Exception):
    """The content is not in the coding that its header names, or in one that is not known."""


def decoded(raw: bytes, codings: str, limit: int) -> tuple[bytes, bool]:
    """What was sent, before it was compressed.

    Args:
        raw: The content as it came.
        codings: The header ``Content-Encoding``; empty = none.
        limit: Most bytes to return, and to hold at any time beside a small piece.

    Returns:
        The content, and whether it was cut, at the limit or by whoever sent it.

    Raises:
        UnreadableAnswerError: It cannot be decoded.
    """
    names = [name for part in codings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > _MOST_LAYERS:
        raise UnreadableContentError(f"it is compressed {len(names)} times")
    cut = len(raw) > limit and not names
    content = raw[:limit] if cut else raw
    for name in reversed(names):
        content, more = _without(content, name, limit)
        cut = cut or more
    return content, cut


def _without(content: bytes, name: str, limit: int) -> tuple[bytes, bool]:
    if name in ("gzip", "x-gzip"):
        return _inflated(content, limit, zlib.MAX_WBITS | 16)
    if name == "deflate":
        # Some servers leave the zlib header away; a zlib header's first two bytes are a multiple of 31.
        has_header = len(content) > 1 and content[0] & 15 == 8 and (content[0] << 8 | content[1]) % 31 == 0
        return _inflated(content, limit, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
    if name in ("br", "zstd"):
        return _by_arrow(content, {"br": "brotli"}.get(name, name), limit)
    raise UnreadableContentError(f"its coding {name[:40]!r} is not known")


def _inflated(content: bytes, limit: int, window: int) -> tuple[bytes, bool]:
    inflating = zlib.decompressobj(window)
    try:
        found = inflating.decompress(content, limit + 1)
    except zlib.error as error:
        raise UnreadableContentError(f"it is not compressed as it says: {error}") from error
    return found[:limit], len(found) > limit or not inflating.eof


def _by_arrow(content: bytes, codec: str, limit: int) -> tuple[bytes, bool]:
    import pyarrow as pa

    pieces, size = [], 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
            while size <= limit and (piece := stream.read(min(_PIECE, limit + 1 - size))):
                pieces.append(piece)
                size += len(piece)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableContentError(f"it is not compressed as it says: {error}") from error
    return b"".join(pieces)[:limit], size > limit
