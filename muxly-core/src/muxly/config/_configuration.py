"""A loaded configuration: its pipelines and settings, its masked values, and the origin of each value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from muxly import _references
from muxly._annotations import quoted
from muxly.config._build import plain
from muxly.config._document import KeyPath, Location, Problem, Problems, known_names_hint, parse_path, path_text
from muxly.config._file_schema import COMPONENT_REFS, Job, Spool
from muxly.config._layers import MISSING, lookup
from muxly.config._schema_cursor import SchemaCursor, cursor_at, root_cursor
from muxly.config._source import ConfigurationSource, ExternalText
from muxly.config._validate import ConfigurationValidator
from muxly.errors import ConfigurationError
from muxly.options import Secret
from muxly.pipeline import Pipeline, Route

T = TypeVar("T")


class PipelineMapping(Mapping[str, "Pipeline"]):
    """Pipelines by name; the plugins of each are imported when it is asked for."""

    def __init__(self, names: list[str], build: Callable[[str], Pipeline]) -> None:
        self._names, self._build = names, build

    def __getitem__(self, name: str) -> Pipeline:
        if name not in self._names:
            raise KeyError(name)
        return self._build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Pipelines({', '.join(self._names)})"


class Configuration:
    """A configuration whose files could be read and whose own keys are right.

    Made by ``muxly.config.load``. What a plugin reads is checked when a pipeline is asked for,
    or by ``validate``; an error has every problem of what was checked, one a line.

    Args:
        source: What was read.
        files: The files that were read, the main file first.
        profile: The profile that was chosen; None = none.
    """

    def __init__(self, source: ConfigurationSource, files: list[str], profile: str | None = None) -> None:
        self._source = source
        self._built: dict[str, Pipeline] = {}
        self._files = files
        self.profile = profile

    @property
    def path(self) -> Path:
        """The main file."""
        return self._source.path

    @property
    def folder(self) -> Path:
        """The folder of the main file, absolute; relative paths in a configuration start here."""
        return self._source.folder

    @property
    def home(self) -> Path:
        """The folder of state and spool: ``home``, or ``.muxly`` beside the main file."""
        given = lookup(self._source.value, ("home",))
        self._checked(lambda validator: validator.is_unresolved(("home",)))
        return self.folder / Path(".muxly" if given is MISSING else given).expanduser()

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """All pipelines by name, each built when it is asked for as ``pipeline`` does."""
        return PipelineMapping(self._names("pipelines"), self.pipeline)

    def pipeline(self, name: str) -> Pipeline:
        """One pipeline; imports the plugins that it uses and no others.

        Args:
            name: Its key under ``pipelines``.

        Raises:
            ConfigurationError: There is none of that name, or something in it is wrong.
        """
        if name not in self._names("pipelines"):
            raise self._no_pipeline(name)
        if name not in self._built:
            pipeline = self._checked(lambda validator: validator.pipeline(name))
            assert pipeline is not None
            self._built[name] = pipeline
        return self._built[name]

    @property
    def events(self) -> Mapping[str, Route]:
        """The routes of the stream ``run_events`` by name."""
        return self._checked(lambda validator: validator.events())

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name; their triggers hold references as they are written."""
        return self._checked(lambda validator: validator.jobs())

    @property
    def spool(self) -> Spool:
        """The limits that pipelines have if they set none of their own."""
        spool = self._checked(lambda validator: validator.spool())
        assert spool is not None
        return spool

    @property
    def store_url(self) -> Secret | None:
        """The URL of the store; None = the SQLite file in the home folder."""
        store = self._checked(lambda validator: validator.store())
        assert store is not None
        return store.url

    def validate(self) -> None:
        """Check everything, whatever is used; imports every plugin that the configuration names.

        Raises:
            ConfigurationError: Something is wrong; all of it, one problem a line, in the order of the file.
        """
        self._checked(lambda validator: validator.everything())

    def show(self, *, resolved: bool = False) -> dict[str, Any]:
        """The configuration as plain values, layers merged and secrets masked.

        Args:
            resolved: Whether to show what references stand for; secrets stay masked.
        """
        return masked_values(self._source, resolved=resolved)

    def explain(self, key: str) -> Explanation:
        """Every layer that gave a key a value, with its location, and which of them counts.

        Args:
            key: Such as ``pipelines.daily.routes.lake.mode``.

        Raises:
            ConfigurationError: The text is no key.
        """
        try:
            return explain_key(self._source, parse_path(key))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def with_location(
        self, error: ConfigurationError, *, pipeline: str, route: str | None = None
    ) -> ConfigurationError:
        """An error of a component, with the location in the file that its path stands for.

        Args:
            error: What ``open`` or ``check`` of a component raised; ``error.path`` is the option's.
                A path that begins with ``routes`` or ``streams`` is one of the pipeline itself.
            pipeline: The component's pipeline.
            route: Its route, if it is a router; None = the connector.
        """
        pipeline_conflicts = route is None and error.path[:1] in {("routes",), ("streams",)}
        around = ("pipelines", pipeline) if pipeline_conflicts else self._component_path(pipeline, route)
        path = (*around, *error.path)
        return ConfigurationError(str(Problem(self._source.document.location(path), path, error.message)), path=path)

    def _component_path(self, pipeline: str, route: str | None) -> KeyPath:
        path: KeyPath = ("pipelines", pipeline)
        if route is not None:
            return (*path, "routes", route, "router")
        named = lookup(self._source.value, (*path, "connector"))
        return ("connectors", str(named)) if isinstance(named, str) else (*path, "connector")

    def _names(self, section: str) -> list[str]:
        return list(self._source.value.get(section) or {})

    def _checked(self, ask: Callable[[ConfigurationValidator], T]) -> T:
        """The result of a check, if it finds nothing wrong."""
        problems = Problems(files=self._files)
        result = ask(ConfigurationValidator(self._source, problems))
        problems.raise_any()
        return result

    def _no_pipeline(self, name: str) -> ConfigurationError:
        known = self._names("pipelines")
        hint = known_names_hint(name, known)
        return ConfigurationError(f"{self.path}: there is no pipeline {quoted(name)}; {hint}", path=("pipelines",))


MASK = "***"
_SECRET_NAME = re.compile(r"secret|token|passw|passphrase|credential|api_?key|private", re.IGNORECASE)


@frozen
class LayerValue:
    """One layer's value of a key.

    Args:
        layer: ``default``, ``include``, ``file``, ``profile NAME``, ``environment`` or ``command line``.
        value: The value, secrets masked.
        location: Where it was given; None for a default.
        wins: Whether this is the value that counts. Of mappings all layers count.
    """

    layer: str
    value: Any
    location: Location | None
    wins: bool

    def __str__(self) -> str:
        mark = "*" if self.wins else " "
        where = f"  ({self.location})" if self.location else ""
        return f"{mark} {self.layer}: {quoted(self.value) if self.value != MASK else MASK}{where}"


@frozen
class Explanation:
    """Every layer that gave a key a value, the lowest first.

    Args:
        path: The key.
        given: The layers; none if no layer gives a value and there is no default.
        hint: What was meant, if the key is not one that is known; else empty.
    """

    path: KeyPath
    given: tuple[LayerValue, ...]
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"  {value}" for value in self.given] or [f"  {self.hint or 'not given, and without a default'}"]
        return "\n".join([path_text(self.path), *lines])


def masked_values(source: ConfigurationSource, *, resolved: bool) -> dict[str, Any]:
    """The whole configuration with secrets masked.

    Args:
        source: What was read.
        resolved: Whether to show the values of references.
    """
    value = source.value if resolved else source.document.value
    kept = {key: item for key, item in value.items() if key not in {"include", "profiles"}}
    masked: dict[str, Any] = plain(_masked(kept, source.cursor))
    return masked


def _masked(value: Any, cursor: SchemaCursor | None) -> Any:
    """A copy without secrets; inside a component whose plugin is unknown, all text may be one."""
    if cursor is not None:
        cursor = cursor._replace(value=value)
    if isinstance(value, dict):
        return {key: _masked(item, _child(cursor, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, _child(cursor, number)) for number, item in enumerate(value)]
    hidden = cursor is None or cursor.is_secret() or (isinstance(value, ExternalText) and not cursor.schema)
    return _mask(value) if hidden else value


def _mask(value: Any) -> Any:
    """A masked value; references stay, because they tell where a secret is and not what it is."""
    if type(value) is str:
        return _references.masked(value)
    return value if value is None or isinstance(value, bool) else MASK


def _child(cursor: SchemaCursor | None, key: str | int) -> SchemaCursor | None:
    if cursor is None:
        return None
    refs = {branch.get("$ref") for branch in cursor.schema.get("anyOf", [cursor.schema])}
    if key == "type" and not refs.isdisjoint(COMPONENT_REFS):
        return cursor._replace(schema={"type": "string"})
    child = cursor.child(key)
    # Where anything is allowed (a trigger's options), only the name can show that a value is secret.
    suspect = child is not None and not child.schema and isinstance(key, str) and _SECRET_NAME.search(key)
    return None if suspect else child


def explain_key(source: ConfigurationSource, path: KeyPath) -> Explanation:
    """Where the value of a key comes from.

    Args:
        source: What was read.
        path: The key.
    """
    cursor = cursor_at(source.cursor, path)
    layers: list[tuple[str, Any, Location | None]] = []
    for layer in source.layers:
        value = lookup(layer.document.value, path)
        if value is not MISSING:
            layers.append((layer.name, value, layer.document.location(path)))
    for override in source.overrides:
        value = _value_below(override.path, override.value, path)
        if value is not MISSING:
            layers.append((override.layer, value, override.location))
    hint = "" if layers else _unknown(source, path)
    layers[:0] = [] if hint else _default(source, path)
    last = len(layers) - 1
    merged = bool(layers) and isinstance(layers[-1][1], dict)
    given = [
        LayerValue(layer, plain(_masked(value, cursor)), location, merged or number == last)
        for number, (layer, value, location) in enumerate(layers)
    ]
    return Explanation(path, tuple(given), hint)


def _unknown(source: ConfigurationSource, path: KeyPath) -> str:
    """The hint about the first part of a path that is neither written nor in a schema; empty = all are known."""
    cursor = root_cursor(source.value, source.components)
    for number, part in enumerate(path):
        names = cursor.names()
        if isinstance(part, str) and part not in names and (names or cursor.mapping() is not None):
            hint = known_names_hint(part, names)
            return f'{path_text(path[:number]) or "the configuration"} has no "{part}"; {hint}'
        inner = cursor.child(part)
        if inner is None:
            return ""
        cursor = inner
    return ""


def _value_below(base: KeyPath, value: Any, path: KeyPath) -> Any:
    """The part of a value at ``base`` that is at a path at or below it."""
    return lookup(value, path[len(base) :]) if path[: len(base)] == base else MISSING


def _default(source: ConfigurationSource, path: KeyPath) -> Iterator[tuple[str, Any, Location | None]]:
    """The default that the schema documents."""
    around = cursor_at(root_cursor(source.value, source.components.with_descriptions()), path[:-1])
    cursor = around.child(path[-1]) if around is not None and path else None
    if cursor is not None and "default" in cursor.schema:
        yield "default", cursor.schema["default"], None
