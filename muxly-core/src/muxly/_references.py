"""References to values kept elsewhere: ``${NAME}``, ``${NAME:-default}``, ``${file:/path}``, ``$$``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from muxly.errors import ConfigurationError
from muxly.suggest import suggest

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<file>file:)?(?P<name>[^{}]*?)(?::-(?P<default>[^{}]*))?\}|(?P<broken>\{))"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LIMIT_BYTES = 1 << 20
_FORMS = "write ${NAME}, ${NAME:-default}, ${file:/path}, or $$ for a dollar sign"


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
        The text with the values in place; values are not looked at again. As in a shell, the
        default of ``${NAME:-default}`` also stands for an empty value.

    Raises:
        ConfigurationError: A name is not set, a file cannot be read, or a reference is malformed.
    """
    environ = os.environ if environ is None else environ
    return _REFERENCE.sub(lambda match: _value(match, environ, folder), text)


def anchored(text: str, folder: Path) -> str:
    """The text with relative ``${file:...}`` made absolute, so that it means the same in any working folder."""
    return _REFERENCE.sub(lambda match: _anchored(match, folder), text)


def masked(text: str) -> str:
    """The text's references, with all that is written out, defaults too, replaced by ``***``."""
    parts, end = [], 0
    for match in _REFERENCE.finditer(text):
        parts.append("***" if match.start() > end else "")
        plain = match["dollar"] or match["broken"]
        parts.append("***" if plain else _without_default(match))
        end = match.end()
    return "".join(parts) + ("***" if end < len(text) else "")


def _without_default(match: re.Match[str]) -> str:
    default = "" if match["default"] is None else ":-***"
    return f"${{{match['file'] or ''}{match['name']}{default}}}"


def _anchored(match: re.Match[str], folder: Path) -> str:
    if not match["file"]:
        return match[0]
    default = "" if match["default"] is None else f":-{match['default']}"
    return f"${{file:{folder.absolute() / match['name']}{default}}}"


def _value(match: re.Match[str], environ: Mapping[str, str], folder: Path | None) -> str:
    if match["dollar"]:
        return "$"
    if match["broken"]:
        raise ConfigurationError(f'"${{" begins a reference that is not closed, or that contains another one; {_FORMS}')
    if match["file"]:
        return _file((folder or Path()) / match["name"], match["default"])
    return _variable(match["name"], match["default"], environ)


def _variable(name: str, default: str | None, environ: Mapping[str, str]) -> str:
    if not _NAME.match(name):
        raise ConfigurationError(f'"${{{name}}}" is not a reference; {_FORMS}')
    value = environ.get(name)
    if default is not None:
        return value or default
    if value is not None:
        return value
    raise ConfigurationError(f"environment variable {name} is not set{_nearest(name, environ)}")


def _nearest(name: str, environ: Mapping[str, str]) -> str:
    close = suggest(name, environ, cutoff=0.8)
    return f"; did you mean {close}?" if close else f"; set it, or write ${{{name}:-default}}"


def _file(path: Path, default: str | None) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        if default is not None:
            return default
        raise ConfigurationError(f"there is no file {path}; create it, or write ${{file:{path}:-default}}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    if len(content) > _LIMIT_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB; a secret file must contain a single value")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
