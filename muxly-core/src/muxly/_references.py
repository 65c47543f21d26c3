"""References to values kept elsewhere: ``${NAME}``, ``${NAME:-default}``, ``${file:/path}``, ``$$``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<file>file:)?(?P<name>[^{}]*?)(?::-(?P<default>[^{}]*))?\})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LIMIT_BYTES = 1 << 20


def has_reference(text: str) -> bool:
    """Whether ``resolve`` would change the text."""
    return "$" in text and _REFERENCE.search(text) is not None


def resolve(text: str, environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> str:
    """Replace every reference in the text.

    Args:
        text: Any text; ``$$`` becomes ``$``; a lone ``$`` stays.
        environ: Where names are looked up; default the process's environment.
        folder: What a relative ``${file:...}`` starts from; default the working folder.

    Returns:
        The text with the values in place; values are not looked at again.

    Raises:
        ConfigurationError: A name is not set, a file cannot be read, or a name is malformed.
    """
    environ = os.environ if environ is None else environ
    return _REFERENCE.sub(lambda match: _value(match, environ, folder), text)


def _value(match: re.Match[str], environ: Mapping[str, str], folder: Path | None) -> str:
    if match["name"] is None:
        return "$"
    if match["file"]:
        return _file((folder or Path()) / match["name"], match["default"])
    return _variable(match["name"], match["default"], environ)


def _variable(name: str, default: str | None, environ: Mapping[str, str]) -> str:
    if not _NAME.match(name):
        raise ConfigurationError(
            f'"${{{name}}}" is not a reference; write ${{NAME}}, ${{NAME:-default}}, ${{file:/path}}, '
            "or $$ for a dollar sign"
        )
    if name in environ:
        return environ[name]
    if default is not None:
        return default
    raise ConfigurationError(f"environment variable {name} is not set{_nearest(name, environ)}")


def _nearest(name: str, environ: Mapping[str, str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, environ, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else f"; set it, or write ${{{name}:-default}}"


def _file(path: Path, default: str | None) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        if default is not None:
            return default
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _LIMIT_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB; a secret file holds one value")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
