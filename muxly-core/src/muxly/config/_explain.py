"""What a configuration says, for people: all of it with secrets masked, and where one value comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly import _references
from muxly._annotations import nearest, quoted
from muxly.config._build import plain
from muxly.config._envelope import COMPONENT_REFS
from muxly.config._layers import MISSING, lookup
from muxly.config._location import KeyPath, Place, path_text
from muxly.config._resolved import FromOutside
from muxly.config._schema_cursor import Shape, root_shape, shape_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly.config._source import Source

MASK = "***"
_SECRET_NAME = re.compile(r"secret|token|passw|passphrase|credential|api_?key|private", re.IGNORECASE)


@frozen
class Given:
    """One layer's value of a key.

    Args:
        layer: ``default``, ``include``, ``file``, ``profile NAME``, ``environment`` or ``command line``.
        value: The value, secrets masked.
        place: Where it was given; None for a default.
        wins: Whether this is the value that counts. Of mappings all layers count.
    """

    layer: str
    value: Any
    place: Place | None
    wins: bool

    def __str__(self) -> str:
        mark = "*" if self.wins else " "
        where = f"  ({self.place})" if self.place else ""
        return f"{mark} {self.layer}: {quoted(self.value) if self.value != MASK else MASK}{where}"


@frozen
class Explanation:
    """Every layer that gave a key a value, the lowest first.

    Args:
        path: The key.
        given: The layers; none if nobody gives a value and there is no default.
        hint: What was meant, if the key is not one that is known; else empty.
    """

    path: KeyPath
    given: tuple[Given, ...]
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"  {one}" for one in self.given] or [f"  {self.hint or 'not given, and without a default'}"]
        return "\n".join([path_text(self.path), *lines])


def shown(source: Source, *, resolved: bool) -> dict[str, Any]:
    """The whole configuration with secrets masked.

    Args:
        source: What was read.
        resolved: Whether to show values in place of references.
    """
    value = source.value if resolved else source.document.value
    kept = {key: item for key, item in value.items() if key not in {"include", "profiles"}}
    masked: dict[str, Any] = plain(_masked(kept, source.shape))
    return masked


def _masked(value: Any, shape: Shape | None) -> Any:
    """A copy without secrets; inside a component whose plugin is unknown, all text may be one."""
    if shape is not None:
        shape = shape._replace(value=value)
    if isinstance(value, dict):
        return {key: _masked(item, _child(shape, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, _child(shape, number)) for number, item in enumerate(value)]
    hidden = shape is None or shape.is_secret() or (isinstance(value, FromOutside) and not shape.schema)
    return _mask(value) if hidden else value


def _mask(value: Any) -> Any:
    """References say where a secret is, not what it is."""
    if type(value) is str:
        return _references.masked(value)
    return value if value is None or isinstance(value, bool) else MASK


def _child(shape: Shape | None, key: str | int) -> Shape | None:
    if shape is None:
        return None
    refs = {one.get("$ref") for one in shape.schema.get("anyOf", [shape.schema])}
    if key == "type" and not refs.isdisjoint(COMPONENT_REFS):
        return shape._replace(schema={"type": "string"})
    child = shape.child(key)
    # Where anything may stand (a trigger's options), only the name can tell that a value is secret.
    suspect = child is not None and not child.schema and isinstance(key, str) and _SECRET_NAME.search(key)
    return None if suspect else child


def explained(source: Source, path: KeyPath) -> Explanation:
    """Where the value of a key comes from.

    Args:
        source: What was read.
        path: The key.
    """
    shape = shape_at(source.shape, path)
    found: list[tuple[str, Any, Place | None]] = []
    for layer in source.layers:
        value = lookup(layer.document.value, path)
        if value is not MISSING:
            found.append((layer.name, value, layer.document.place(path)))
    for override in source.overrides:
        value = _inside(override.path, override.value, path)
        if value is not MISSING:
            found.append((override.layer, value, override.place))
    hint = "" if found else _unknown(source, path)
    found[:0] = [] if hint else _default(source, path)
    last = len(found) - 1
    joined = bool(found) and isinstance(found[-1][1], dict)
    given = [
        Given(layer, plain(_masked(value, shape)), place, joined or number == last)
        for number, (layer, value, place) in enumerate(found)
    ]
    return Explanation(path, tuple(given), hint)


def _unknown(source: Source, path: KeyPath) -> str:
    """What to say of the first part of a path that no schema knows and nobody wrote; empty = all are known."""
    shape = root_shape(source.value, source.components)
    for number, part in enumerate(path):
        names = shape.names()
        if isinstance(part, str) and part not in names and (names or shape.mapping() is not None):
            close = nearest(part, names)
            hint = f'did you mean "{close}"?' if close else f"known: {', '.join(names) or 'none'}"
            return f'{path_text(path[:number]) or "the configuration"} has no "{part}"; {hint}'
        inner = shape.child(part)
        if inner is None:
            return ""
        shape = inner
    return ""


def _inside(base: KeyPath, value: Any, path: KeyPath) -> Any:
    """What a value at ``base`` gives to a path at or below it."""
    return lookup(value, path[len(base) :]) if path[: len(base)] == base else MISSING


def _default(source: Source, path: KeyPath) -> Iterator[tuple[str, Any, Place | None]]:
    """The default that the schema documents."""
    around = shape_at(root_shape(source.value, source.components.with_words()), path[:-1])
    shape = around.child(path[-1]) if around is not None and path else None
    if shape is not None and "default" in shape.schema:
        yield "default", shape.schema["default"], None
