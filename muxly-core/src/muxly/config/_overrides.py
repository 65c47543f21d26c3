"""Values from outside the files: environment variables, and ``--set`` on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly._annotations import nearest
from muxly.config._layers import MISSING, lookup, overlay
from muxly.config._location import KeyPath, Place, Problems, parse_path, path_text
from muxly.config._nodes import Document
from muxly.config._schema_cursor import Shape, root_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muxly.config._components import Components

PREFIX = "MUXLY__"
_NOT_A_NAME = re.compile(r"[^a-z0-9]")


@frozen
class Override:
    """A value from outside.

    Args:
        layer: ``environment`` or ``command line``.
        path: Where it goes.
        value: Of the type that the schema wants there.
        place: The variable or the flag; a value from outside is never shown in a message.
        reference: How another process finds the value again; None if it cannot.
    """

    layer: str
    path: KeyPath
    value: Any
    place: Place
    reference: str | None = None


def environment_overrides(
    environ: Mapping[str, str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in ``MUXLY__PIPELINES__DAILY__PARALLEL=8`` and its like, in the order of their names.

    Args:
        environ: Variables by name; those without the prefix are nobody's business here.
        document: The files, for the names that users chose.
        components: Knows the options of plugins.
        problems: Unknown names are noted here.
    """
    found = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        place = Place(f"environment variable {name}")
        parts = name.removeprefix(PREFIX).split("__")
        target = _find(root_shape(document.value, components), parts, (), place, problems)
        if target is not None:
            path, shape = target
            found.append(Override("environment", path, shape.read(environ[name]), place, f"${{{name}}}"))
    return found


def command_line_overrides(
    sets: Iterable[str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in ``--set pipelines.daily.parallel=8``.

    Args:
        sets: Texts ``KEY=VALUE``.
        document: The files with the environment laid over.
        components: Knows the options of plugins.
        problems: Unknown keys are noted here.
    """
    found = []
    for text in sets:
        key, equals, value = text.partition("=")
        place = Place(f"--set {key}")
        if not equals:
            problems.add(place, (), "a value is set with KEY=VALUE")
            continue
        shape = _walk(key, root_shape(document.value, components), place, problems)
        if shape is not None:
            found.append(Override("command line", parse_path(key), shape.read(value), place))
    return found


def apply_overrides(document: Document, overrides: Iterable[Override]) -> None:
    """Lay the overrides over a document, which is changed."""
    for one in overrides:
        path, value = one.path, one.value
        while not isinstance(lookup(document.value, path[:-1]), dict | list):
            path, value = path[:-1], {path[-1]: value}
        overlay(document, Document({}, {path: one.place}), path, value)


def _walk(key: str, shape: Shape, place: Place, problems: Problems) -> Shape | None:
    try:
        path = parse_path(key)
    except ValueError as error:
        problems.add(place, (), str(error))
        return None
    for number, part in enumerate(path):
        inner = shape.child(part) if isinstance(part, int) or part in shape.names() else None
        if inner is None or (isinstance(part, int) and lookup(shape.value, (part,)) is MISSING):
            _unknown(shape, str(part), path[:number], place, problems)
            return None
        shape = inner
    return shape


def _find(
    shape: Shape, parts: list[str], path: KeyPath, place: Place, problems: Problems
) -> tuple[KeyPath, Shape] | None:
    """Follow the parts of a variable's name; the name of a key may itself hold ``__``."""
    if not parts:
        return path, shape
    for count in range(len(parts), 0, -1):
        wanted = _folded("__".join(parts[:count]))
        keys = [key for key in _keys(shape) if _folded(str(key)) == wanted]
        if len(keys) > 1:
            both = " and ".join(f'"{key}"' for key in keys)
            problems.add(place, path, f"could mean {both}; use --set, or rename one of them")
            return None
        inner = shape.child(keys[0]) if keys else None
        if inner is not None:
            return _find(inner, parts[count:], (*path, keys[0]), place, problems)
    _unknown(shape, parts[0], path, place, problems)
    return None


def _keys(shape: Shape) -> list[str | int]:
    if isinstance(shape.value, list):
        return list(range(len(shape.value)))
    return [*shape.names()]


def _folded(name: str) -> str:
    """Variables cannot hold dots and dashes, and are often written in capitals."""
    return _NOT_A_NAME.sub("_", name.lower())


def _unknown(shape: Shape, name: str, path: KeyPath, place: Place, problems: Problems) -> None:
    known = [str(key) for key in _keys(shape)]
    where = path_text(path) if path else "the configuration"
    close = nearest(name, known)
    hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
    problems.add(place, path, f'{where} has no "{name.lower()}"; {hint}')
