"""The plugins' classes behind ``type:``, and the schemas of their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import define, field

from muxly import _plugins
from muxly.config._fields import fields
from muxly.config._schema import Schema, SchemaWriter
from muxly.errors import PluginError

if TYPE_CHECKING:
    from pathlib import Path

    from muxly.component import Component

ComponentKind = Literal["connector", "router"]


@define
class Components:
    """Classes and schemas by kind and ``type:``; a plugin is imported when it is first asked for.

    Args:
        folder: Where modules of the user's own are looked for: beside the configuration file.
        documented: Whether schemas carry descriptions and defaults.
    """

    folder: Path | None = None
    documented: bool = False
    _found: dict[tuple[str, str], type[Component] | PluginError] = field(factory=dict)
    _schemas: dict[tuple[type, bool], tuple[Schema, dict[str, Schema]]] = field(factory=dict)

    def model(self, kind: ComponentKind, name: str) -> type[Component]:
        """The class.

        Raises:
            PluginError: It cannot be found, imported, or its options cannot be described.
        """
        if (kind, name) not in self._found:
            self._found[kind, name] = self._load(kind, name)
        found = self._found[kind, name]
        if isinstance(found, PluginError):
            raise found
        return found

    def with_words(self) -> Components:
        """The same with descriptions and defaults, for messages and explanations."""
        return attrs.evolve(self, documented=True)

    def _load(self, kind: ComponentKind, name: str) -> type[Component] | PluginError:
        if ":" in name and self.folder is not None:
            _make_importable(self.folder)
        try:
            return _plugins.load(kind, name)
        except PluginError as error:
            return error

    def schema(self, kind: ComponentKind, name: str) -> tuple[Schema, dict[str, Schema]]:
        """What the configuration of the component must fit, ``type`` included, and its ``$defs``.

        Raises:
            PluginError: As ``model``.
        """
        model = self.model(kind, name)
        key = (model, self.documented)
        if key not in self._schemas:
            writer = SchemaWriter(documented=self.documented)
            self._schemas[key] = component_schema(writer, model), writer.defs
        schema, defs = self._schemas[key]
        return {**schema, "properties": {**schema["properties"], "type": {"const": name}}}, defs


class CoreOnly(Components):
    """Knows no plugin: for what can be told without importing one."""

    def schema(self, kind: ComponentKind, name: str) -> tuple[Schema, dict[str, Schema]]:
        """Nothing is known.

        Raises:
            PluginError: Always.
        """
        raise PluginError(f"the {kind} {name!r} was not looked at")


def component_schema(writer: SchemaWriter, model: type) -> Schema:
    """The options of a component as an object that also takes ``type``.

    Raises:
        PluginError: It has an option named ``type``, or one of a type that no file can hold.
    """
    if any(one.name == "type" for one in fields(model)):
        name = f"{model.__module__}.{model.__qualname__}"
        raise PluginError(f'{name} has an option named "type", which chooses the plugin; give it another name')
    schema = writer.mapping(model)
    properties: dict[str, Any] = {"type": {"type": "string"}, **schema["properties"]}
    return {**schema, "properties": properties, "required": ["type", *schema.get("required", ())]}


def _make_importable(folder: Path) -> None:
    """Let ``type: my_app:Countries`` find ``my_app.py`` beside the file; after all that is installed."""
    import sys

    if str(folder) not in sys.path:
        sys.path.append(str(folder))
