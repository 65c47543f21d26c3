"""Checks of options, and of files before they are read."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

from muxly.component import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muxly_connector_file._layout import Files
    from muxly_connector_file._seen import FoundFile

_SHOWN = 10


def one_letter(_instance: Any, attribute: Any, value: str) -> None:
    """A single ASCII letter that does not end a line, for attrs."""
    if len(value.encode()) != 1 or value in "\r\n":
        raise ValueError(f"{attribute.name} is one ASCII letter, not {value!r}")


def one_letter_or_none(instance: Any, attribute: Any, value: str) -> None:
    """The same, or empty text."""
    if value:
        one_letter(instance, attribute, value)


def known_encoding(_instance: Any, attribute: Any, value: str) -> None:
    """An encoding of text that Python has, for attrs."""
    try:
        if codecs.lookup(value)._is_text_encoding:
            return
    except LookupError:
        pass
    raise ValueError(f"{attribute.name}: there is no encoding {value!r}; try utf-8, cp1252 or utf-16")


def unreadable(files: Files, found: Sequence[FoundFile], stream: str) -> Iterator[Notice]:
    """An error for each of the first files that cannot be opened."""
    shown = 0
    for one in found:
        try:
            files.open(one.path).close()
        except OSError as error:
            message = f"{one.path} cannot be opened: {error.strerror or error}; grant read access to it"
            yield Notice("unreadable_file", message, level="error", stream=stream)
            shown += 1
        if shown == _SHOWN:
            return
