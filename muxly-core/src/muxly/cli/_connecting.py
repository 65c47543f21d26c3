"""A connector made from words of the command line, without a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muxly.connector import Connector


def connector_of(kind: str, given: Sequence[str]) -> Connector:
    """A connector by its type.

    Args:
        kind: What ``type:`` would be.
        given: ``KEY=VALUE``; the value may be JSON, and may hold references.

    Raises:
        PluginError: There is no such connector.
        ConfigurationError: An option is unknown, missing or wrong; all of them are told.
    """
    from muxly import _plugins
    from muxly.config._build import Builder, BuildError
    from muxly.config._location import path_text

    model = _plugins.load("connector", kind)
    options = dict(_option(text) for text in given)
    _refuse_unknown(kind, model, options)
    try:
        made: Connector = Builder(Path.cwd()).build(model, options)
    except BuildError as error:
        lines = [f"connector {kind}: {path_text(path)}: {reason}" for path, reason in error.reasons]
        raise ConfigurationError("\n".join(line.replace(": : ", ": ") for line in lines)) from error
    return made


def _option(text: str) -> tuple[str, Any]:
    import json

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--option {text!r}: write KEY=VALUE")
    try:
        return key, _resolved(json.loads(value))
    except ValueError:
        return key, _resolved(value)


def _resolved(value: Any) -> Any:
    """The value with its references replaced; a secret keeps where it came from."""
    from muxly import _references
    from muxly.config._resolved import FromOutside

    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, str) and _references.has_reference(value):
        return FromOutside(_references.resolve(value), value)
    return value


def _refuse_unknown(kind: str, model: type, options: dict[str, Any]) -> None:
    from muxly.config._fields import fields
    from muxly.suggest import suggest

    known = {one.name: one for one in fields(model)}
    problems = []
    for key in options:
        if key not in known:
            close = suggest(key, known)
            hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
            problems.append(f'connector {kind}: there is no option "{key}"; {hint}')
    missing = [one for name, one in known.items() if one.required and name not in options]
    problems += [f"connector {kind}: -o {one.name}=... is missing: {one.help or 'required'}" for one in missing]
    if problems:
        raise ConfigurationError("\n".join(problems))
