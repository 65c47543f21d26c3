"""Options as Markdown, from the same JSON Schema that checks configurations."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from muxly import _plugins
from muxly.config._file_schema import OPTION_SCHEMAS, Components, component_schema, file_schema
from muxly.config._schema import EXPECTED, SchemaWriter, duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Schema = dict[str, Any]
_TYPES = {
    "array": "list",
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "object": "mapping",
    "string": "text",
}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_LINKS = {"connector": "options.md#connectors", "router": "options.md#routers"}


@cache
def _core() -> tuple[Schema, dict[str, Schema]]:
    writer = SchemaWriter(documented=True, special=OPTION_SCHEMAS)
    return file_schema(writer), writer.defs


def _component(kind: Any, name: str) -> tuple[Schema, dict[str, Schema]]:
    writer = SchemaWriter(documented=True)
    schema = component_schema(writer, Components().model(kind, name))
    return schema, writer.defs


def words(schema: Schema) -> str:
    """What a value may be."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}]({_LINKS.get(name, '#' + name.lower())})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{one}`" for one in schema["enum"])
    if EXPECTED in schema:
        return str(schema[EXPECTED])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(words(one) for one in schema["anyOf"] if one != {"type": "null"}))
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return " or ".join(words({**schema, "type": kind}) for kind in kinds if kind != "null")
    return _plain(schema) + "".join(f", {text} {schema[key]}" for key, text in _LIMITS.items() if key in schema)


def _plain(schema: Schema) -> str:
    kinds = schema.get("type", "anything")
    if kinds == "array":
        return f"list of {words(schema['items'])}"
    if kinds == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of names to {words(schema['additionalProperties'])}"
    if kinds == "string" and (schema.get("writeOnly") or schema.get("format") == "path"):
        return "secret" if schema.get("writeOnly") else "path"
    return _TYPES.get(kinds, str(kinds))


def _default(name: str, value: Any) -> str:
    if value is None or value in ([], {}):
        return "nothing"
    if name.endswith("_bytes"):
        unit, size = next((one for one in (("GiB", 30), ("MiB", 20)) if value % (1 << one[1]) == 0), ("bytes", 0))
        return f"{value >> size} {unit}"
    if name.endswith("_seconds"):
        return duration_text(timedelta(seconds=value))
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def options(schema: Schema, level: int) -> Iterator[str]:
    """A heading for each option, with what it may be and what it is by default."""
    for name, one in schema["properties"].items():
        if name == "type" and "description" not in one:
            continue
        facts = f"{words(one)}; " + _presence(name, one, name in schema.get("required", ()))
        yield f"{'#' * level} `{name}`\n\n{one.get('description', '')}\n\n*{facts}*".replace("\n\n\n\n", "\n\n")


def _presence(name: str, one: Schema, required: bool) -> str:
    if required:
        return "required"
    return f"default {_default(name, one['default'])}" if "default" in one else "optional"


def component(kind: Any, name: str) -> str:
    """All options of a plugin's class, and of the classes that they nest."""
    schema, nested = _component(kind, name)
    parts = list(options(schema, 3))
    for title, one in nested.items():
        if one.get("properties"):
            parts += [f"## {title}", *options(one, 3)]
    return "\n\n".join(["## Options", *parts])


def configuration() -> str:
    """Every key of the core."""
    schema, nested = _core()
    parts = ["## The file", *options(schema, 3)]
    for title, one in nested.items():
        parts += [f"## {title}", *options(one, 3)]
    return "\n\n".join(parts)


def components(kind: Any) -> str:
    """The installed components of a kind."""
    lines = ["| `type` | page | what it does |\n|---|---|---|"]
    for name in _plugins.names(kind):
        purpose = (_plugins.load(kind, name).__doc__ or "").strip().splitlines()[0]
        lines.append(f"| `{name}` | [{kind} `{name}`]({kind}-{name}.md) | {purpose} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "connectors": partial(components, "connector"),
    "routers": partial(components, "router"),
    **{
        f"{kind} {name}": partial(component, kind, name)
        for kind in ("connector", "router")
        for name in _plugins.names(cast("Any", kind))
    },
}
