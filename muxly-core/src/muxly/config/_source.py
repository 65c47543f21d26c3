"""All that a configuration is made from: files, profile, environment and command line in one document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.config._components import Components, CoreOnly
from muxly.config._layers import Layer, merge, read_layers
from muxly.config._nodes import Document
from muxly.config._overrides import Override, apply_overrides, command_line_overrides, environment_overrides
from muxly.config._resolved import Resolved, read_types, resolve_references
from muxly.config._schema_cursor import Shape, root_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from muxly.config._location import Problems


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
