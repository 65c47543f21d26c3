"""A configuration that was loaded: its pipelines, settings, and what it can say about itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from muxly import _references
from muxly._annotations import nearest, quoted
from muxly.config._build import plain
from muxly.config._document import KeyPath, Place, Problem, Problems, parse_path, path_text
from muxly.config._file_schema import COMPONENT_REFS
from muxly.config._layers import MISSING, lookup
from muxly.config._schema_cursor import Shape, root_shape, shape_at
from muxly.config._source import FromOutside
from muxly.config._validate import Examiner
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly.config._file_schema import Job, Spool
    from muxly.config._source import Source
    from muxly.options import Secret
    from muxly.pipeline import Pipeline, Route


T = TypeVar("T")


class Pipelines(Mapping[str, "Pipeline"]):
    """Pipelines by name; the plugins of one are imported when it is asked for."""

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
    or by ``validate``; errors carry every problem of what was asked for, one a line.

    Args:
        source: What was read.
        files: The files that were read, the main file first.
        profile: The profile that was chosen; None = none.
    """

    def __init__(self, source: Source, files: list[str], profile: str | None = None) -> None:
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
        self._asked(lambda examiner: examiner.broken(("home",)))
        return self.folder / Path(".muxly" if given is MISSING else given).expanduser()

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """All pipelines by name, each built when it is asked for as ``pipeline`` does."""
        return Pipelines(self._names("pipelines"), self.pipeline)

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
            pipeline = self._asked(lambda examiner: examiner.pipeline(name))
            assert pipeline is not None
            self._built[name] = pipeline
        return self._built[name]

    @property
    def events(self) -> Mapping[str, Route]:
        """The routes of the stream ``run_events`` by name."""
        return self._asked(lambda examiner: examiner.events())

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name; their triggers hold references as they are written."""
        return self._asked(lambda examiner: examiner.jobs())

    @property
    def spool(self) -> Spool:
        """The limits that pipelines have if they set none of their own."""
        spool = self._asked(lambda examiner: examiner.spool())
        assert spool is not None
        return spool

    @property
    def store_url(self) -> Secret | None:
        """The URL of the store; None = the SQLite file in the home folder."""
        store = self._asked(lambda examiner: examiner.store())
        assert store is not None
        return store.url

    def validate(self) -> None:
        """Check everything, whatever is used; imports every plugin that the configuration names.

        Raises:
            ConfigurationError: Something is wrong; all of it, one problem a line, in the order of the file.
        """
        self._asked(lambda examiner: examiner.everything())

    def show(self, *, resolved: bool = False) -> dict[str, Any]:
        """The configuration as plain values, layers joined and secrets masked.

        Args:
            resolved: Whether to show what references stand for; secrets stay masked.
        """
        return shown(self._source, resolved=resolved)

    def explain(self, key: str) -> Explanation:
        """Every layer that gave a key a value, with its place, and which of them counts.

        Args:
            key: Such as ``pipelines.daily.routes.lake.mode``.

        Raises:
            ConfigurationError: The text is no key.
        """
        try:
            return explained(self._source, parse_path(key))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def placed(self, error: ConfigurationError, *, pipeline: str, route: str | None = None) -> ConfigurationError:
        """An error of a component with the place in the file that its path stands for.

        Args:
            error: What ``open`` or ``check`` of a component raised; ``error.path`` is the option's.
                A path that begins with ``routes`` or ``streams`` is one of the pipeline itself.
            pipeline: The component's pipeline.
            route: Its route, if it is a router; None = the connector.
        """
        of_pipeline = route is None and error.path[:1] in {("routes",), ("streams",)}
        around = ("pipelines", pipeline) if of_pipeline else self._component_path(pipeline, route)
        path = (*around, *error.path)
        return ConfigurationError(str(Problem(self._source.document.place(path), path, error.message)), path=path)

    def _component_path(self, pipeline: str, route: str | None) -> KeyPath:
        path: KeyPath = ("pipelines", pipeline)
        if route is not None:
            return (*path, "routes", route, "router")
        named = lookup(self._source.value, (*path, "connector"))
        return ("connectors", str(named)) if isinstance(named, str) else (*path, "connector")

    def _names(self, section: str) -> list[str]:
        return list(self._source.value.get(section) or {})

    def _asked(self, ask: Callable[[Examiner], T]) -> T:
        """What an examiner finds, if it finds nothing wrong."""
        problems = Problems(files=self._files)
        found = ask(Examiner(self._source, problems))
        problems.raise_any()
        return found

    def _no_pipeline(self, name: str) -> ConfigurationError:
        known = self._names("pipelines")
        close = nearest(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
        return ConfigurationError(f"{self.path}: there is no pipeline {quoted(name)}; {hint}", path=("pipelines",))


MASK = "***"
_SECRET_NAME = re.compile(r"secret|token|passw|passphrase|credential|api_?key|private", re.IGNORECASE)


@frozen
class Given:
    """One layer's value of a key.

    Args:
        layer: ``default``, ``include``, ``file``, ``profile NAME``, ``environment`` or ``command line``.
        value: The value, secrets masked.
        place: Where it was given; None for a default.
        wins: Whether this is the value that counts. Of mappings all layers count.
    """

    layer: str
    value: Any
    place: Place | None
    wins: bool

    def __str__(self) -> str:
        mark = "*" if self.wins else " "
        where = f"  ({self.place})" if self.place else ""
        return f"{mark} {self.layer}: {quoted(self.value) if self.value != MASK else MASK}{where}"


@frozen
class Explanation:
    """Every layer that gave a key a value, the lowest first.

    Args:
        path: The key.
        given: The layers; none if nobody gives a value and there is no default.
        hint: What was meant, if the key is not one that is known; else empty.
    """

    path: KeyPath
    given: tuple[Given, ...]
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"  {one}" for one in self.given] or [f"  {self.hint or 'not given, and without a default'}"]
        return "\n".join([path_text(self.path), *lines])


def shown(source: Source, *, resolved: bool) -> dict[str, Any]:
    """The whole configuration with secrets masked.

    Args:
        source: What was read.
        resolved: Whether to show values in place of references.
    """
    value = source.value if resolved else source.document.value
    kept = {key: item for key, item in value.items() if key not in {"include", "profiles"}}
    masked: dict[str, Any] = plain(_masked(kept, source.shape))
    return masked


def _masked(value: Any, shape: Shape | None) -> Any:
    """A copy without secrets; inside a component whose plugin is unknown, all text may be one."""
    if shape is not None:
        shape = shape._replace(value=value)
    if isinstance(value, dict):
        return {key: _masked(item, _child(shape, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, _child(shape, number)) for number, item in enumerate(value)]
    hidden = shape is None or shape.is_secret() or (isinstance(value, FromOutside) and not shape.schema)
    return _mask(value) if hidden else value


def _mask(value: Any) -> Any:
    """References say where a secret is, not what it is."""
    if type(value) is str:
        return _references.masked(value)
    return value if value is None or isinstance(value, bool) else MASK


def _child(shape: Shape | None, key: str | int) -> Shape | None:
    if shape is None:
        return None
    refs = {one.get("$ref") for one in shape.schema.get("anyOf", [shape.schema])}
    if key == "type" and not refs.isdisjoint(COMPONENT_REFS):
        return shape._replace(schema={"type": "string"})
    child = shape.child(key)
    # Where anything may stand (a trigger's options), only the name can tell that a value is secret.
    suspect = child is not None and not child.schema and isinstance(key, str) and _SECRET_NAME.search(key)
    return None if suspect else child


def explained(source: Source, path: KeyPath) -> Explanation:
    """Where the value of a key comes from.

    Args:
        source: What was read.
        path: The key.
    """
    shape = shape_at(source.shape, path)
    found: list[tuple[str, Any, Place | None]] = []
    for layer in source.layers:
        value = lookup(layer.document.value, path)
        if value is not MISSING:
            found.append((layer.name, value, layer.document.place(path)))
    for override in source.overrides:
        value = _inside(override.path, override.value, path)
        if value is not MISSING:
            found.append((override.layer, value, override.place))
    hint = "" if found else _unknown(source, path)
    found[:0] = [] if hint else _default(source, path)
    last = len(found) - 1
    joined = bool(found) and isinstance(found[-1][1], dict)
    given = [
        Given(layer, plain(_masked(value, shape)), place, joined or number == last)
        for number, (layer, value, place) in enumerate(found)
    ]
    return Explanation(path, tuple(given), hint)


def _unknown(source: Source, path: KeyPath) -> str:
    """What to say of the first part of a path that no schema knows and nobody wrote; empty = all are known."""
    shape = root_shape(source.value, source.components)
    for number, part in enumerate(path):
        names = shape.names()
        if isinstance(part, str) and part not in names and (names or shape.mapping() is not None):
            close = nearest(part, names)
            hint = f'did you mean "{close}"?' if close else f"known: {', '.join(names) or 'none'}"
            return f'{path_text(path[:number]) or "the configuration"} has no "{part}"; {hint}'
        inner = shape.child(part)
        if inner is None:
            return ""
        shape = inner
    return ""


def _inside(base: KeyPath, value: Any, path: KeyPath) -> Any:
    """What a value at ``base`` gives to a path at or below it."""
    return lookup(value, path[len(base) :]) if path[: len(base)] == base else MISSING


def _default(source: Source, path: KeyPath) -> Iterator[tuple[str, Any, Place | None]]:
    """The default that the schema documents."""
    around = shape_at(root_shape(source.value, source.components.with_words()), path[:-1])
    shape = around.child(path[-1]) if around is not None and path else None
    if shape is not None and "default" in shape.schema:
        yield "default", shape.schema["default"], None
