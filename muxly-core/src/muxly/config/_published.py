"""The JSON Schema that editors read: the core's own keys and the options of every installed plugin."""

from __future__ import annotations

from typing import Any

from muxly import _plugins
from muxly.config._components import ComponentKind, Components, component_schema
from muxly.config._envelope import SPECIAL, envelope
from muxly.config._schema import EXPECTED, Schema, SchemaWriter
from muxly.errors import PluginError

_KINDS: tuple[ComponentKind, ...] = ("connector", "router")
_OWN_CLASS: Schema = {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", EXPECTED: "module:Class"}


def published_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a configuration file as it is written, references included.

    Every plugin is imported; one that cannot be is named in ``$comment`` and takes any option.
    """
    writer = SchemaWriter(references=True, documented=True, special=SPECIAL)
    schema = envelope(writer)
    broken: list[str] = []
    for kind in _KINDS:
        writer.defs[kind] = _tagged(kind, writer, broken)
    schema["properties"]["$schema"] = {"description": "Where editors find this schema."}
    comment = {"$comment": "; ".join(broken)} if broken else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muxly configuration",
        **comment,
        **schema,
        "patternProperties": {"^x-": True},
        "$defs": dict(sorted(writer.defs.items())),
    }


def _tagged(kind: ComponentKind, writer: SchemaWriter, broken: list[str]) -> Schema:
    """A component of a kind: ``type`` says which, and what else it takes."""
    components = Components()
    names = _plugins.names(_plugin_kind(kind))
    branches = []
    for name in names:
        try:
            written = component_schema(writer, components.model(kind, name))
        except PluginError as error:
            broken.append(error.message)
            continue
        writer.defs[f"{kind}.{name}"] = written
        chosen = {"properties": {"type": {"const": name}}, "required": ["type"]}
        branches.append({"if": chosen, "then": {"$ref": f"#/$defs/{kind}.{name}"}})
    known: list[Schema] = [{"enum": names}] if names else []
    tag: Schema = {"anyOf": [*known, _OWN_CLASS], "description": f"Which {kind} it is."}
    schema: Schema = {"type": "object", "required": ["type"], "properties": {"type": tag}}
    return {**schema, "allOf": branches} if branches else schema


def _plugin_kind(kind: ComponentKind) -> _plugins.Kind:
    return kind
