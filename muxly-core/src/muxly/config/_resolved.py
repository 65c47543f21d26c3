"""References in a document replaced by their values; what came from outside is never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from attrs import define, field

from muxly import _references
from muxly.config._location import KeyPath, Problem
from muxly.config._schema_cursor import Shape, shape_at
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from muxly.config._nodes import Document
    from muxly.config._overrides import Override


# They were read before there was a document to resolve.
_AS_WRITTEN = {("include",), ("profiles",)}


class FromOutside(str):
    """Text whose value the file does not hold.

    Args:
        text: The value.
        reference: How another process finds it again; None if it cannot.
    """

    __slots__ = ("reference",)
    reference: str | None

    def __new__(cls, text: str, reference: str | None) -> Self:
        made = super().__new__(cls, text)
        made.reference = reference
        return made


@define
class Resolved:
    """A document's values with references replaced.

    Args:
        value: The values.
        outside: Paths whose values came from references, the environment or the command line.
        problems: References that cannot be resolved, by path; their text stands in the value.
    """

    value: Any = None
    outside: set[KeyPath] = field(factory=set)
    problems: dict[KeyPath, Problem] = field(factory=dict)

    def is_outside(self, path: KeyPath) -> bool:
        """Whether a value, or something around it, came from outside."""
        return any(path[:length] in self.outside for length in range(len(path) + 1))

    def is_broken(self, path: KeyPath) -> bool:
        """Whether a value, or something around it, is a reference that cannot be resolved."""
        return any(path[:length] in self.problems for length in range(len(path) + 1))


def resolve_references(
    document: Document, overrides: Iterable[Override], environ: Mapping[str, str], folder: Path
) -> Resolved:
    """Replace the references in all text values, not in keys; what they stand for is not looked at again.

    Args:
        document: The values as written.
        overrides: Those that were laid over it; values of variables are taken as they are.
        environ: Where names are looked up.
        folder: What a relative ``${file:...}`` starts from.
    """
    resolver = _Resolver(document, environ, folder, {one.path: one for one in overrides})
    resolver.made.value = resolver.resolve(document.value, ())
    return resolver.made


class _Resolver:
    def __init__(
        self, document: Document, environ: Mapping[str, str], folder: Path, overrides: dict[KeyPath, Override]
    ) -> None:
        self.document, self.environ, self.folder, self.overrides = document, environ, folder, overrides
        self.made = Resolved()

    def resolve(self, value: Any, path: KeyPath) -> Any:
        if path in _AS_WRITTEN:
            return value
        override = self.overrides.get(path) if self.overrides else None
        if override is not None:
            self.made.outside.add(path)
            if override.layer == "environment":
                return FromOutside(value, override.reference) if isinstance(value, str) else value
        if isinstance(value, dict):
            return {key: self.resolve(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*path, number)) for number, item in enumerate(value)]
        if isinstance(value, str) and _references.has_reference(value):
            return self.text(value, path)
        return value

    def text(self, text: str, path: KeyPath) -> str:
        try:
            value = _references.resolve(text, self.environ, folder=self.folder)
        except ConfigurationError as error:
            self.made.problems[path] = Problem(self.document.place(path), path, error.message)
            return text
        self.made.outside.add(path)
        return FromOutside(value, _references.anchored(text, self.folder))


def read_types(resolved: Resolved, root: Shape, under: KeyPath = ()) -> None:
    """Turn text from outside into numbers and the like, where the schema wants them; ``resolved`` is changed.

    Args:
        resolved: Values with references replaced.
        root: The shape of the whole.
        under: Only values below this path.
    """
    for path in resolved.outside:
        if path[: len(under)] == under:
            _read_type(resolved.value, root, path)


def _read_type(value: Any, root: Shape, path: KeyPath) -> None:
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    text = parent[path[-1]] if path else None
    if isinstance(text, FromOutside) and text.reference is not None:
        shape = shape_at(root, path)
        read = shape.read(text) if shape is not None else text
        if not isinstance(read, str):
            parent[path[-1]] = read
