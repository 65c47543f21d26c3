"""A cursor over a schema: the part of it that applies at a path of a document, and conversion of text there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from muxly.config._conformance import is_type
from muxly.config._document import LIMITS, FileText, KeyPath, Problems, UnreadableError, build_document
from muxly.config._file_schema import COMPONENT_REFS, Components, core_schema
from muxly.config._schema import Schema, kinds_of
from muxly.errors import PluginError

_WHOLE = re.compile(r"[-+]?[0-9]{1,1000}")
_REAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False}


class SchemaCursor(NamedTuple):
    """The schema at one path of a document, and everything that is needed to step further into it.

    Args:
        schema: What applies here.
        defs: Where ``$ref`` finds ``#/$defs/NAME``.
        value: The value here; None if there is none.
        components: Has the schemas of connectors and routers.
    """

    schema: Schema
    defs: Mapping[str, Schema]
    value: Any
    components: Components

    def branches(self) -> Iterator[SchemaCursor]:
        """The schemas that may apply here, with references and choices expanded."""
        schema = self.schema
        if schema.get("$ref") in COMPONENT_REFS:
            yield from self._component(schema["$ref"])
        elif "$ref" in schema:
            yield from self._replace(schema=self.defs[schema["$ref"].removeprefix("#/$defs/")]).branches()
        elif "anyOf" in schema:
            for branch in schema["anyOf"]:
                yield from self._replace(schema=branch).branches()
        else:
            yield self

    def _component(self, ref: str) -> Iterator[SchemaCursor]:
        """The options of the plugin that ``type`` names; nothing is known if it cannot be used."""
        name = self.value.get("type") if isinstance(self.value, dict) else None
        if isinstance(name, str):
            try:
                schema, defs = self.components.schema("connector" if ref.endswith("connector") else "router", name)
            except PluginError:
                return
            yield self._replace(schema=schema, defs=defs)

    def mapping(self) -> SchemaCursor | None:
        """The branch that is a mapping."""
        return next((branch for branch in self.branches() if _takes(branch.schema, "object")), None)

    def is_secret(self) -> bool:
        """Whether the value here must not be shown; true also where no schema is known."""
        branches = list(self.branches())
        return not branches or any(branch.schema.get("writeOnly") for branch in branches)

    def names(self) -> list[str]:
        """The keys that are known here: those that are written, and those that have a schema."""
        written = self.value if isinstance(self.value, dict) else {}
        mapping = self.mapping()
        return list(dict.fromkeys([*written, *(mapping.schema.get("properties", ()) if mapping else ())]))

    def child(self, key: str | int) -> SchemaCursor | None:
        """The cursor one step further; None if nothing is known there."""
        value = _item(self.value, key)
        for branch in self.branches():
            inner = _inner(branch.schema, key)
            if inner is not None:
                return branch._replace(schema=inner, value=value)
        return None

    def read(self, text: str) -> Any:
        """Convert text from outside (the environment, a reference) to the type here; text if it fits no other."""
        kinds = {kind for branch in self.branches() for kind in _kinds(branch.schema)}
        if "boolean" in kinds and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if kinds & {"integer", "number"} and _WHOLE.fullmatch(text):
            return int(text)
        if "number" in kinds and _REAL.fullmatch(text):
            return float(text)
        if "null" in kinds and "string" not in kinds and text in {"", "null"}:
            return None
        if kinds & {"array", "object"} and text[:1] in {"[", "{"}:
            return _flow(text)
        return self._listed(text) if "array" in kinds and "string" not in kinds else text

    def _listed(self, text: str) -> list[Any]:
        """A list written with commas."""
        item = self._replace(value=[None]).child(0)
        parts = [part.strip() for part in text.split(",")] if text else []
        return [item.read(part) if item else part for part in parts]


def root_cursor(value: Any, components: Components) -> SchemaCursor:
    """The cursor at the root of a configuration."""
    schema, defs = core_schema(components.documented)
    return SchemaCursor(schema, defs, value, components)


def cursor_at(root: SchemaCursor, path: KeyPath) -> SchemaCursor | None:
    """The cursor at a path; None if nothing is known of it."""
    cursor: SchemaCursor | None = root
    for key in path:
        cursor = cursor.child(key) if cursor is not None else None
    return cursor


def _item(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else None


def _inner(schema: Schema, key: str | int) -> Schema | None:
    if isinstance(key, int):
        first = schema.get("prefixItems", [])
        inner = first[key] if key < len(first) else schema.get("items", {})
        return inner if _takes(schema, "array") else None
    if not _takes(schema, "object"):
        return None
    inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return inner if isinstance(inner, dict) else None


def _kinds(schema: Schema) -> list[str]:
    if "enum" in schema and "type" not in schema:
        known = ("null", "boolean", "integer", "number", "string")
        return [kind for kind in known if any(is_type(choice, kind) for choice in schema["enum"])]
    return kinds_of(schema) or (["integer"] if "const" in schema else [])


def _takes(schema: Schema, kind: str) -> bool:
    return not schema or kind in _kinds(schema)


def _flow(text: str) -> Any:
    """A list or mapping in YAML's (and so JSON's) short form."""
    from muxly.config._yaml import read_yaml

    source, problems = FileText("", f"value: {text}"), Problems()
    try:
        value = build_document(read_yaml(source, LIMITS, problems), source, LIMITS).value
    except UnreadableError:
        return text
    return value["value"] if len(value) == 1 and not problems.found else text
