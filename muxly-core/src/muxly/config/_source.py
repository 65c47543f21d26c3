"""Everything that a configuration is made from, in one document, and its values with references resolved.

Values from outside the files are marked as ``ExternalText``, and are never shown in a message: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from attrs import define, field, frozen

from muxly import _references
from muxly.config._document import Document, KeyPath, Problem, Problems
from muxly.config._file_schema import Components, NoComponents
from muxly.config._layers import (
    Layer,
    Override,
    apply_overrides,
    command_line_overrides,
    environment_overrides,
    merge,
    read_layers,
)
from muxly.config._schema_cursor import SchemaCursor, cursor_at, root_cursor
from muxly.errors import ConfigurationError


@frozen
class ConfigurationSource:
    """A configuration as it was given, and its values with references replaced.

    Args:
        path: The main file.
        layers: Included files, the main file and its profile, the last one on top.
        overrides: Values from the environment and the command line, the last one on top.
        document: Everything merged, as written.
        resolved: Its values with references replaced.
        components: The plugins' classes.
    """

    path: Path
    layers: tuple[Layer, ...]
    overrides: tuple[Override, ...]
    document: Document
    resolved: ResolvedValues
    components: Components

    @property
    def folder(self) -> Path:
        """The folder of the main file; relative paths start here."""
        return self.path.absolute().parent

    @property
    def value(self) -> Any:
        """The values with references replaced."""
        return self.resolved.value

    @property
    def cursor(self) -> SchemaCursor:
        """The schema of the values, at their root."""
        return root_cursor(self.value, self.components)


def read_source(
    path: Path, *, profile: str | None, sets: Iterable[str], environ: Mapping[str, str], problems: Problems
) -> ConfigurationSource:
    """Read a configuration.

    Args:
        path: The main file.
        profile: Name of a profile; None = none.
        sets: Texts ``KEY=VALUE`` of the command line.
        environ: The environment.
        problems: What is wrong is added here, except references that cannot be resolved.
    """
    layers = read_layers(path, profile, problems)
    document = _without_editor_keys(merge([layer.document for layer in layers]))
    components = Components(path.absolute().parent)
    overrides = environment_overrides(environ, document, components, problems)
    apply_overrides(document, overrides)
    given = command_line_overrides(sets, document, components, problems)
    apply_overrides(document, given)
    overrides += given
    resolved = resolve_references(document, overrides, environ, path.absolute().parent)
    source = ConfigurationSource(path, tuple(layers), tuple(overrides), document, resolved, components)
    # The core's own keys only: a plugin is not imported before its pipeline is needed.
    convert_types(resolved, root_cursor(resolved.value, NoComponents()))
    return source


def _without_editor_keys(document: Document) -> Document:
    """Leave out ``$schema`` and keys that begin with ``x-``: they are for editors and for YAML anchors."""
    for key in [name for name in document.value if name == "$schema" or name.startswith("x-")]:
        del document.value[key]
    return document


# They were read before there was a document to resolve, so references in them stay text.
_NOT_RESOLVED = {("include",), ("profiles",)}


class ExternalText(str):
    """Text whose value is not in the file.

    Args:
        text: The value.
        reference: How another process finds it again; None if it cannot.
    """

    __slots__ = ("reference",)
    reference: str | None

    def __new__(cls, text: str, reference: str | None) -> Self:
        instance = super().__new__(cls, text)
        instance.reference = reference
        return instance


@define
class ResolvedValues:
    """A document's values with references replaced.

    Args:
        value: The values.
        external: Paths whose values came from references, the environment or the command line.
        problems: References that cannot be resolved, by path; their text stays in the value.
    """

    value: Any = None
    external: set[KeyPath] = field(factory=set)
    problems: dict[KeyPath, Problem] = field(factory=dict)

    def is_external(self, path: KeyPath) -> bool:
        """Whether a value, or something around it, is not in the file."""
        return any(path[:length] in self.external for length in range(len(path) + 1))

    def is_unresolved(self, path: KeyPath) -> bool:
        """Whether a value, or something around it, is a reference that cannot be resolved."""
        return any(path[:length] in self.problems for length in range(len(path) + 1))


def resolve_references(
    document: Document, overrides: Iterable[Override], environ: Mapping[str, str], folder: Path
) -> ResolvedValues:
    """Replace the references in all text values, not in keys; what they stand for is not resolved again.

    Args:
        document: The values as written.
        overrides: Those that were applied to it; values of variables are taken as they are.
        environ: Where names are looked up.
        folder: What a relative ``${file:...}`` starts from.
    """
    resolver = _ReferenceResolver(document, environ, folder, {override.path: override for override in overrides})
    resolver.result.value = resolver.resolve(document.value, ())
    return resolver.result


class _ReferenceResolver:
    def __init__(
        self, document: Document, environ: Mapping[str, str], folder: Path, overrides: dict[KeyPath, Override]
    ) -> None:
        self.document, self.environ, self.folder, self.overrides = document, environ, folder, overrides
        self.result = ResolvedValues()

    def resolve(self, value: Any, path: KeyPath) -> Any:
        if path in _NOT_RESOLVED:
            return value
        override = self.overrides.get(path) if self.overrides else None
        if override is not None:
            self.result.external.add(path)
            if override.layer == "environment":
                return ExternalText(value, override.reference) if isinstance(value, str) else value
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
            self.result.problems[path] = Problem(self.document.location(path), path, error.message)
            return text
        self.result.external.add(path)
        return ExternalText(value, _references.anchored(text, self.folder))


def convert_types(resolved: ResolvedValues, root: SchemaCursor, under: KeyPath = ()) -> None:
    """Turn text from outside into numbers and the like, where the schema requires them; ``resolved`` is changed.

    Args:
        resolved: Values with references replaced.
        root: The schema of the whole.
        under: Only values below this path.
    """
    for path in resolved.external:
        if path[: len(under)] == under:
            _convert_type(resolved.value, root, path)


def _convert_type(value: Any, root: SchemaCursor, path: KeyPath) -> None:
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    text = parent[path[-1]] if path else None
    if isinstance(text, ExternalText) and text.reference is not None:
        cursor = cursor_at(root, path)
        read = cursor.read(text) if cursor is not None else text
        if not isinstance(read, str):
            parent[path[-1]] = read
