"""JSON Schema of a whole configuration file: the core's own keys, and the options of each plugin behind ``type``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import define, field, frozen

from muxly import _plugins
from muxly.component import Component
from muxly.config._schema import EXPECTED, Schema, SchemaWriter, fields
from muxly.errors import PluginError
from muxly.options import Secret
from muxly.pipeline import Columns, Pipeline, Route, StreamRules


def _as_in_pipeline(name: str) -> Any:
    """The same default and limits as the pipeline's own option."""
    attribute = attrs.fields_dict(Pipeline)[name]
    return field(default=attribute.default, validator=attribute.validator)


@frozen(kw_only=True)
class Spool:
    """Limits of the spool for all pipelines; a pipeline may set its own.

    Args:
        budget_bytes: What pending segments may take on disk before reading waits.
        retention_seconds: How long delivered segments are kept for replay.
        retention_bytes: How much of them is kept at most.
        segment_bytes: Size at which a segment ends.
        segment_seconds: Age at which a group ends at the next cursor.
    """

    budget_bytes: int = _as_in_pipeline("spool_bytes")
    retention_seconds: float = _as_in_pipeline("retention_seconds")
    retention_bytes: int = _as_in_pipeline("retention_bytes")
    segment_bytes: int = _as_in_pipeline("segment_bytes")
    segment_seconds: float = _as_in_pipeline("segment_seconds")


SPOOL_OPTIONS = {
    "budget_bytes": "spool_bytes",
    **{name: name for name in ("retention_seconds", "retention_bytes", "segment_bytes", "segment_seconds")},
}
"""The option of a pipeline that each option of the spool is the default of."""


@frozen(kw_only=True)
class Store:
    """Where jobs, runs and positions are kept.

    Args:
        url: SQLAlchemy URL of the database; default a SQLite file in the home folder.
    """

    url: Secret | None = None


@frozen(kw_only=True)
class Job:
    """A stored pipeline and what starts it.

    Args:
        name: Its identity.
        pipeline: Name of the pipeline that it runs.
        triggers: Each a mapping with a ``type``; its other keys are the scheduler's.
        params: Parameters of its runs, JSON values.
        options: All other keys, for the schedulers.
    """

    name: str
    pipeline: str
    triggers: tuple[Mapping[str, Any], ...] = ()
    params: Mapping[str, Any] = field(factory=dict)
    options: Mapping[str, Any] = field(factory=dict)


_NAMES: Schema = {
    "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
    EXPECTED: 'letters, digits, "_", ".", "-", at most 63, beginning with a letter or digit',
}
_TEXTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_TEXTS_OR_NULL: Schema = {"anyOf": [*_TEXTS["anyOf"], {"type": "null"}]}
_TYPE: Schema = {"type": "string", "minLength": 1}
ANY_COMPONENT: Schema = {"type": "object", "required": ["type"], "properties": {"type": _TYPE}}
COMPONENT_REFS = {"#/$defs/connector": "connector", "#/$defs/router": "router"}

OPTION_SCHEMAS: dict[tuple[type, str], Schema | None] = {
    (Columns, "exclude"): _TEXTS,
    (Columns, "include"): _TEXTS_OR_NULL,
    (Pipeline, "connector"): {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/connector"}]},
    (Pipeline, "name"): None,
    (Pipeline, "routes"): {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _NAMES,
        "additionalProperties": {"$ref": "#/$defs/Route"},
    },
    (Pipeline, "streams"): {
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/StreamRules"}, {"type": "null"}]},
    },
    (Route, "name"): None,
    (Route, "router"): {"$ref": "#/$defs/router"},
    (Route, "streams"): _TEXTS,
    (StreamRules, "primary_key"): _TEXTS_OR_NULL,
}
"""Options that a file writes differently from Python: names are keys, one text may stand for a list."""

_JOB: Schema = {
    "type": "object",
    "required": ["pipeline"],
    "properties": {
        "pipeline": {"type": "string", "description": "Name of the pipeline that it runs."},
        "triggers": {"type": "array", "items": ANY_COMPONENT, "description": "What starts it."},
        "params": {"type": "object", "description": "What its runs are given."},
    },
}
_MAPPING_OR_NULL = ["object", "null"]


def file_schema(writer: SchemaWriter) -> Schema:
    """The schema of a whole configuration; classes and components are in the writer's ``defs``.

    Args:
        writer: Made with ``special=OPTION_SCHEMAS``; ``connector`` and ``router`` are left to the caller.
    """
    pipeline, route = writer.model(Pipeline), writer.model(Route)
    writer.model(StreamRules)
    return {
        "type": "object",
        "properties": {
            "version": {"const": 1, "description": "Version of this format."},
            "home": {"type": "string", "minLength": 1, "description": "Folder of state and spool; default .muxly."},
            "include": {**_TEXTS, "description": "Files that are read before this one, from this folder."},
            "connectors": {**_named({"$ref": "#/$defs/connector"}), "description": "Connectors to use by name."},
            "pipelines": {**_named(pipeline), "description": "What is read, and where it is delivered."},
            "jobs": {**_named(_JOB), "description": "Pipelines with triggers."},
            "events": {
                "type": _MAPPING_OR_NULL,
                "properties": {"routes": _named(route)},
                "additionalProperties": False,
                "description": "Routes of the stream run_events.",
            },
            "store": {**writer.model(Store), "description": "The database of jobs, runs and positions."},
            "spool": {**writer.model(Spool), "description": "Limits for all pipelines."},
            "profiles": {**_named({"type": _MAPPING_OR_NULL}), "description": "Changes to this file, chosen by name."},
        },
        "additionalProperties": False,
    }


def _named(value: Schema) -> Schema:
    return {"type": _MAPPING_OR_NULL, "propertyNames": _NAMES, "additionalProperties": value}


@lru_cache(maxsize=2)
def core_schema(documented: bool = False) -> tuple[Schema, dict[str, Schema]]:
    """The schema of the core's own keys, whatever plugins are used, and its ``$defs``.

    Args:
        documented: Whether it contains descriptions and defaults.
    """
    writer = SchemaWriter(documented=documented, special=OPTION_SCHEMAS)
    schema = file_schema(writer)
    components = {"connector": ANY_COMPONENT, "router": ANY_COMPONENT}
    return schema, {**writer.defs, **components}


ComponentKind = Literal["connector", "router"]


@define
class Components:
    """Plugin classes and their schemas, by kind and ``type:``; a plugin is imported when it is first needed.

    Args:
        folder: Where the user's own modules are looked for: beside the configuration file.
        documented: Whether schemas contain descriptions and defaults.
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

    def with_descriptions(self) -> Components:
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
        """The schema of a component's configuration, ``type`` included, and its ``$defs``.

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


class NoComponents(Components):
    """No component is known: for what can be found out without importing a plugin."""

    def schema(self, kind: ComponentKind, name: str) -> tuple[Schema, dict[str, Schema]]:
        """Nothing is known.

        Raises:
            PluginError: Always.
        """
        raise PluginError(f"the {kind} {name!r} is not imported here")


def component_schema(writer: SchemaWriter, model: type) -> Schema:
    """The options of a component as an object that also takes ``type``.

    Raises:
        PluginError: It has an option named ``type``, or one of a type that no file can hold.
    """
    if any(field.name == "type" for field in fields(model)):
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


_KINDS: tuple[ComponentKind, ...] = ("connector", "router")
_OWN_CLASS: Schema = {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", EXPECTED: "module:Class"}


def published_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a configuration file as it is written, references included.

    Every plugin is imported; one that cannot be is named in ``$comment`` and takes any option.
    """
    writer = SchemaWriter(references=True, documented=True, special=OPTION_SCHEMAS)
    schema = file_schema(writer)
    unusable: list[str] = []
    for kind in _KINDS:
        writer.defs[kind] = _component_by_type(kind, writer, unusable)
    schema["properties"]["$schema"] = {"description": "Where editors find this schema."}
    comment = {"$comment": "; ".join(unusable)} if unusable else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muxly configuration",
        **comment,
        **schema,
        "patternProperties": {"^x-": True},
        "$defs": dict(sorted(writer.defs.items())),
    }


def _component_by_type(kind: ComponentKind, writer: SchemaWriter, unusable: list[str]) -> Schema:
    """A component of a kind: ``type`` determines which options it takes."""
    components = Components()
    names = _plugins.names(_plugin_kind(kind))
    branches = []
    for name in names:
        try:
            written = component_schema(writer, components.model(kind, name))
        except PluginError as error:
            unusable.append(error.message)
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
