"""All that a configuration is made from: files, profile, environment and command line in one document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from attrs import define, field, frozen

from muxly import _references
from muxly.config._document import Document, KeyPath, Problem
from muxly.config._file_schema import Components, CoreOnly
from muxly.config._layers import (
    Layer,
    Override,
    apply_overrides,
    command_line_overrides,
    environment_overrides,
    merge,
    read_layers,
)
from muxly.config._schema_cursor import Shape, root_shape, shape_at
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from muxly.config._document import Document, Problems
    from muxly.config._layers import Override


@frozen
class Source:
    """A configuration as it was given, and its values with references replaced.

    Args:
        path: The main file.
        layers: Included files, the file and its profile, the last one on top.
        overrides: Values from the environment and the command line, the last one on top.
        document: All of it in one, as written.
        resolved: Its values with references replaced.
        components: The plugins' classes.
    """

    path: Path
    layers: tuple[Layer, ...]
    overrides: tuple[Override, ...]
    document: Document
    resolved: Resolved
    components: Components

    @property
    def folder(self) -> Path:
        """Where the main file lies; relative paths start here."""
        return self.path.absolute().parent

    @property
    def value(self) -> Any:
        """The values with references replaced."""
        return self.resolved.value

    @property
    def shape(self) -> Shape:
        """What holds at each path of the values."""
        return root_shape(self.value, self.components)


def read_source(
    path: Path, *, profile: str | None, sets: Iterable[str], environ: Mapping[str, str], problems: Problems
) -> Source:
    """Read a configuration.

    Args:
        path: The main file.
        profile: Name of a profile; None = none.
        sets: Texts ``KEY=VALUE`` of the command line.
        environ: The environment.
        problems: What is wrong is noted here, but for references that cannot be resolved.
    """
    layers = read_layers(path, profile, problems)
    document = _without_notes(merge([layer.document for layer in layers]))
    components = Components(path.absolute().parent)
    overrides = environment_overrides(environ, document, components, problems)
    apply_overrides(document, overrides)
    given = command_line_overrides(sets, document, components, problems)
    apply_overrides(document, given)
    overrides += given
    resolved = resolve_references(document, overrides, environ, path.absolute().parent)
    source = Source(path, tuple(layers), tuple(overrides), document, resolved, components)
    # The core's own keys only: a plugin is not imported before somebody asks for its pipeline.
    read_types(resolved, root_shape(resolved.value, CoreOnly()))
    return source


def _without_notes(document: Document) -> Document:
    """Leave out ``$schema`` and keys that begin with ``x-``: they are for editors and for YAML anchors."""
    for key in [one for one in document.value if one == "$schema" or one.startswith("x-")]:
        del document.value[key]
    return document


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
