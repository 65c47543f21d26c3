"""The text of a configuration file: read with a limit, decoded, with its lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

from attrs import frozen

from muxly.config._location import Place, Problem, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

_BREAK = re.compile(r"\r\n|\n|\r")
# Tab, line feed and carriage return are the only control characters a configuration needs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


@frozen
class Limits:
    """What a configuration file may cost; beyond is an error, met in well under a second.

    Args:
        file_bytes: Size of one file.
        nodes: Keys, items and values of one file, aliases counted as often as they are used.
        depth: How deep mappings and lists may nest.
        files: Files of one configuration, includes counted.
    """

    file_bytes: int = 4 << 20
    nodes: int = 100_000
    depth: int = 100
    files: int = 100


LIMITS = Limits()


class Text:
    """A file's text and where its lines begin.

    Args:
        file: The file's name for messages.
        text: All of it.
    """

    __slots__ = ("_starts", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self._starts = [0, *(match.end() for match in _BREAK.finditer(text))]

    def place(self, index: int) -> Place:
        """The place of the character with this index."""
        line = bisect_right(self._starts, index)
        return Place(self.file, line, index - self._starts[line - 1] + 1)

    def unreadable(self, index: int, message: str) -> UnreadableError:
        """The error that stops reading at this character."""
        return UnreadableError(Problem(self.place(index), (), message))


def read_text(path: Path, file: str, limits: Limits = LIMITS) -> Text:
    """Read a file as UTF-8.

    Args:
        path: The file.
        file: Its name for messages.
        limits: How big it may be.

    Raises:
        UnreadableError: It is missing, too big, or no UTF-8 text.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(limits.file_bytes + 1)
    except FileNotFoundError:
        message = "there is no such file; muxly init writes one to begin with"
        raise UnreadableError(Problem(Place(file), (), message)) from None
    except OSError as error:
        raise UnreadableError(Problem(Place(file), (), f"cannot read the file: {error.strerror}")) from error
    if len(content) > limits.file_bytes:
        message = f"the file is larger than {limits.file_bytes >> 20} MiB; split it with include"
        raise UnreadableError(Problem(Place(file), (), message))
    return decoded(content, file)


def decoded(content: bytes, file: str) -> Text:
    """The bytes as text, without a byte order mark.

    Raises:
        UnreadableError: The bytes are no UTF-8 text, or hold control characters.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[1:2] == b"\0" or content[:1] == b"\0":
        raise UnreadableError(Problem(Place(file, 1, 1), (), "the file is UTF-16 or binary; save it as UTF-8"))
    try:
        text = Text(file, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = Text(file, error.object[: error.start].decode("utf-8-sig"))
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise before.unreadable(len(before.text), message) from None
    control = _CONTROL.search(text.text)
    if control:
        code = f"U+{ord(control[0]):04X}"
        raise text.unreadable(control.start(), f"the control character {code} may not stand in a configuration")
    return text
