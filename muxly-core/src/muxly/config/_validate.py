"""Validation: typed objects from a configuration, and a problem for everything that is wrong with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast

from muxly._annotations import quoted
from muxly.config._build import BuildError, builder_for, create
from muxly.config._conformance import Defs, fits, problems_of
from muxly.config._document import KeyPath, Problem, Problems, known_names_hint
from muxly.config._file_schema import SPOOL_OPTIONS, ComponentKind, Job, Spool, Store, core_schema
from muxly.config._layers import MISSING, lookup
from muxly.config._schema import Schema
from muxly.config._schema_cursor import cursor_at
from muxly.config._source import ConfigurationSource, convert_types
from muxly.connector import Connector
from muxly.errors import PluginError
from muxly.pipeline import Pipeline, Route, StreamRules
from muxly.router import Router

T = TypeVar("T")


class ConfigurationValidator:
    """Builds objects from a configuration; whatever cannot be built is None, and its problems are added.

    It never stops at the first problem, and reports none that only follows from another: what contains an
    unresolved reference, or has a problem already, is neither built nor checked any further.

    Args:
        source: What was read.
        problems: Receives what is wrong.
    """

    def __init__(self, source: ConfigurationSource, problems: Problems) -> None:
        self.source, self.problems = source, problems
        self._builder = builder_for(source.folder)
        self._components: dict[KeyPath, Any] = {}
        self._seen: set[Problem] = set(problems.found)

    def core_keys(self) -> None:
        """Check the core's own keys."""
        self._fit(core_schema, (), self.source.value)

    def everything(self) -> None:
        """Check everything: all pipelines, jobs and events, and connectors that no pipeline uses."""
        self.has_problem(())
        for name in self.names("connectors"):
            self.component("connector", ("connectors", name))
        for name in self.names("pipelines"):
            self.pipeline(name)
        self.events()
        self.jobs()
        self.spool()
        self.store()

    def names(self, *path: str | int) -> list[str]:
        """The keys of the mapping at a path; none if there is no mapping."""
        return list(self._mapping(path))

    def component(self, kind: ComponentKind, path: KeyPath) -> Any:
        """The component that is configured at a path, built once."""
        if path not in self._components:
            self._components[path] = self._component(kind, path)
        return self._components[path]

    def _component(self, kind: ComponentKind, path: KeyPath) -> Any:
        given = lookup(self.source.value, path)
        name = given.get("type") if isinstance(given, dict) else None
        if not isinstance(name, str) or self.is_unresolved(path, ("type",)):
            return None
        try:
            model = self.source.components.model(kind, name)
            self.source.components.schema(kind, name)
        except PluginError as error:
            self.note((*path, "type"), error.message)
            return None
        convert_types(self.source.resolved, self.source.cursor, path)
        described = self.source.components.with_descriptions()
        plain = self.source.components
        if not self._fit(lambda documented: (described if documented else plain).schema(kind, name), path, given):
            return None
        options = {key: item for key, item in given.items() if key != "type"}
        return self._built(path, lambda: self._builder.build(model, options))

    def pipeline(self, name: str) -> Pipeline | None:
        """The pipeline of that name."""
        path: KeyPath = ("pipelines", name)
        connector = self._connector((*path, "connector"))
        routes = [self.route((*path, "routes", route), route) for route in self.names(*path, "routes")]
        for inner, message in pipeline_conflicts(self._mapping(path)):
            self.note((*path, *inner), message)
        if connector is None or None in routes or self.has_problem(path):
            return None
        return self._built(path, lambda: self._pipeline(name, connector, [route for route in routes if route]))

    def _pipeline(self, name: str, connector: Connector, routes: list[Route]) -> Pipeline:
        given = lookup(self.source.value, ("pipelines", name))
        options = self._builder.options(Pipeline, given, leave=("connector", "routes", "streams"))
        spool = self._builder.options(Spool, self._mapping(("spool",)))
        shared = {SPOOL_OPTIONS[option]: value for option, value in spool.items()}
        rules = {key: self._rules(key, rules) for key, rules in given.get("streams", {}).items()}
        options = {**shared, **options, "streams": rules, "routes": routes}
        return cast("Pipeline", create(Pipeline, {"name": name, "connector": connector, **options}))

    def _rules(self, name: str, given: dict[str, Any] | None) -> StreamRules:
        try:
            return cast("StreamRules", self._builder.build(StreamRules, given or {}))
        except BuildError as error:
            raise BuildError([(("streams", name, *path), reason) for path, reason in error.reasons]) from error

    def _connector(self, path: KeyPath) -> Any:
        """The connector written at a path, or the one that is named there."""
        given = lookup(self.source.value, path)
        if not isinstance(given, str) or self.is_unresolved(path):
            return self.component("connector", path)
        known = self.names("connectors")
        if given in known:
            return self.component("connector", ("connectors", given))
        hint = known_names_hint(given, known, none="none; define it there")
        self.note(path, f"there is no connector {self.quoted_unless_external(given, path)} under connectors; {hint}")
        return None

    def route(self, path: KeyPath, name: str) -> Route | None:
        """The route that is configured at a path."""
        router: Router | None = self.component("router", (*path, "router"))
        self._consistent(path)
        if router is None or self.has_problem(path):
            return None

        def build() -> Route:
            options = self._builder.options(Route, self._mapping(path), leave=("router",))
            return cast("Route", create(Route, {"name": name, "router": router, **options}))

        return self._built(path, build)

    def _consistent(self, path: KeyPath) -> None:
        """Check a route against its router's class, which is known even if its options are wrong."""
        given = self._mapping(path)
        type_name = lookup(given, ("router", "type"))
        if isinstance(type_name, str):
            try:
                model = cast("type[Router]", self.source.components.model("router", type_name))
            except PluginError:
                return
            for inner, message in route_conflicts(given, model.modes):
                self.note((*path, *inner), message)

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        value = lookup(self.source.value, path)
        return value if isinstance(value, dict) else {}

    def events(self) -> dict[str, Route]:
        """The routes of the stream ``run_events``."""
        path: KeyPath = ("events", "routes")
        routes = {name: self.route((*path, name), name) for name in self.names(*path)}
        return {name: route for name, route in routes.items() if route is not None}

    def jobs(self) -> dict[str, Job]:
        """The jobs, each of a pipeline that exists."""
        built = {}
        for name in self.names("jobs"):
            given = lookup(self.source.value, ("jobs", name))
            if not self.has_problem(("jobs", name)):
                built[name] = self._job(name, given)
        return built

    def _job(self, name: str, given: dict[str, Any]) -> Job:
        pipelines = self.names("pipelines")
        if given["pipeline"] not in pipelines:
            hint = known_names_hint(given["pipeline"], pipelines)
            path: KeyPath = ("jobs", name, "pipeline")
            self.note(path, f"there is no pipeline {self.quoted_unless_external(given['pipeline'], path)}; {hint}")
        # Triggers keep their references as text: the scheduler that knows which are secret resolves them.
        written = lookup(self.source.document.value, ("jobs", name))
        known = {"pipeline", "triggers", "params"}
        return Job(
            name=name,
            pipeline=str(given["pipeline"]),
            triggers=tuple(written.get("triggers", ())),
            params=written.get("params", {}),
            options={key: item for key, item in written.items() if key not in known},
        )

    def spool(self) -> Spool | None:
        """The limits of the spool."""
        return self._section(Spool, "spool")

    def store(self) -> Store | None:
        """Where the store is."""
        return self._section(Store, "store")

    def _section(self, model: type[T], name: str) -> T | None:
        given = lookup(self.source.value, (name,))
        if self.has_problem((name,)):
            return None
        return self._built((name,), lambda: self._builder.build(model, {} if given is MISSING else given))

    def _fit(self, schema_of: Callable[[bool], tuple[Schema, Defs]], path: KeyPath, value: Any) -> bool:
        """Whether a value fits; if it does not, every reason is added.

        Args:
            schema_of: Gives the schema; with descriptions (True) only where something is wrong.
            path: The value's path.
            value: The value.
        """
        schema, defs = schema_of(False)
        has_problem = bool(path) and self.has_problem(path)
        if fits(schema, value, defs):
            return not has_problem
        schema, defs = schema_of(True)
        resolved, document = self.source.resolved, self.source.document
        for problem in problems_of(schema, value, defs, document, under=path, hidden=resolved.is_external):
            if not resolved.is_unresolved(problem.path):
                self.add(problem)
        return False

    def _built(self, path: KeyPath, build: Callable[[], T]) -> T | None:
        try:
            return build()
        except BuildError as error:
            for inner, reason in error.reasons:
                self.note((*path, *inner), self._safe(reason, (*path, *inner)))
            return None

    def _safe(self, reason: str, path: KeyPath) -> str:
        """A validator's sentence, unless it could repeat a secret or a value from outside."""
        value = lookup(self.source.value, path)
        if value is MISSING or str(value) not in reason:
            return reason
        cursor = cursor_at(self.source.cursor, path)
        hidden = self.source.resolved.is_external(path) or (cursor is not None and cursor.is_secret())
        return "the value is not valid" if hidden else reason

    def is_unresolved(self, path: KeyPath, inner: KeyPath = ()) -> bool:
        """Whether a value is a reference that cannot be resolved; its problem is added."""
        problem = self.source.resolved.problems.get(path + inner)
        if problem is not None:
            self.add(problem)
        return problem is not None

    def has_problem(self, path: KeyPath) -> bool:
        """Whether something is wrong at a path or below it; unresolved references there are added."""
        for problem in self.source.resolved.problems.values():
            if problem.path[: len(path)] == path:
                self.add(problem)
        return any(problem.path[: len(path)] == path for problem in self.problems.found)

    def quoted_unless_external(self, value: object, path: KeyPath) -> str:
        """A value in quotes, or not at all if it came from outside."""
        return "of that name" if self.source.resolved.is_external(path) else quoted(value)

    def note(self, path: KeyPath, message: str) -> None:
        """Add a problem of the value at a path."""
        self.add(Problem(self.source.document.location(path), path, message))

    def add(self, problem: Problem) -> None:
        """Add a problem once."""
        if problem not in self._seen:
            self._seen.add(problem)
            self.problems.found.append(problem)


# Single values are right and do not go together. The values are taken as written, not from built objects, so that
# one mistake hides no other.
Conflict = tuple["KeyPath", str]


def route_conflicts(route: Mapping[str, Any], modes: frozenset[str]) -> Iterator[Conflict]:
    """Options of a route that contradict each other or its router, with paths below it.

    Args:
        route: Its options.
        modes: The modes of its router.
    """
    mode = route.get("mode")
    if isinstance(mode, str) and mode in _MODES - modes:
        known = " and ".join(sorted(modes))
        yield ("mode",), f'the router "{route["router"]["type"]}" has no mode {mode}; it has {known}'
    columns = _mapping(route.get("columns"))
    both = set(_texts(columns.get("include"), ())) & set(_texts(columns.get("exclude"), ()))
    if both:
        yield ("columns",), f'"{min(both)}" is both included and excluded; remove one of the two'


def pipeline_conflicts(pipeline: Mapping[str, Any]) -> Iterator[Conflict]:
    """Routes and streams of a pipeline that contradict each other, with paths below it."""
    routes = {name: route for name, route in _mapping(pipeline.get("routes")).items() if isinstance(route, dict)}
    for name, route in routes.items():
        if route.get("mode") == "replace":
            yield from _needs_full_reads(_mapping(pipeline.get("streams")), name, route)
            yield from _no_append_beside(routes, name)


_MODES = frozenset({"append", "upsert", "overwrite", "replace"})


def _needs_full_reads(streams: Mapping[str, Any], name: str, route: Mapping[str, Any]) -> Iterator[Conflict]:
    """A generation is one full read, so what is read incrementally cannot be replaced."""
    path: KeyPath = ("routes", name, "mode")
    if not streams:
        rule = 'streams: {"*": {read: full}}'
        yield path, f"replace needs full reads, and streams are read incrementally by default; add {rule}"
    for pattern in _texts(route.get("streams")):
        for stream in _rules_for(streams, pattern):
            if _mapping(streams[stream]).get("read") != "full":
                step = f"write read: full under streams.{stream}"
                yield path, f'replace needs full reads, and "{stream}" is read incrementally; {step}'


def _rules_for(streams: Mapping[str, Any], pattern: str) -> Iterator[str]:
    """The rules that apply to the streams that a name or glob means: those of that name, else of the first glob."""
    if pattern in streams:
        yield pattern
        return
    yield from (name for name in streams if fnmatchcase(name, pattern))
    covering = (name for name in streams if fnmatchcase(pattern, name))
    yield from itertools.islice(covering, 1)


def _no_append_beside(routes: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[Conflict]:
    """``append`` beside ``replace`` would append each full read to the one before."""
    streams = _texts(routes[name].get("streams"))
    for other, route in routes.items():
        if route.get("mode") == "append" and _overlap(streams, _texts(route.get("streams"))):
            reason = f'append would repeat every record each time that "{name}" replaces the same streams (read: full)'
            step = "let this route replace too, or move it to a pipeline of its own"
            yield ("routes", other, "mode"), f"{reason}; {step}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any, default: tuple[str, ...] = ("*",)) -> list[str]:
    items = value if isinstance(value, list) else default if value is None else [value]
    return [item for item in items if isinstance(item, str)]


def _overlap(first: list[str], second: list[str]) -> bool:
    """Whether names or globs can mean the same stream; two globs only if one matches the text of the other."""
    return any(fnmatchcase(name, other) or fnmatchcase(other, name) for name in first for other in second)
