"""The streams of a run: which are read under which rules, and which routes deliver them in which mode."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import evolve

from muxly._runner.context import RunContext
from muxly.component import Notice
from muxly.errors import ConfigurationError
from muxly.pipeline import Pipeline, Route, StreamRules
from muxly.router import Mode
from muxly.store import accounts, positions
from muxly.store.ledger import Ledger
from muxly.stream import Stream
from muxly.suggest import suggest

_KEYS = ("primary_key", "overwrite_key", "cursor_field", "parent")


def is_pattern(name: str) -> bool:
    """Whether a name chooses streams by a glob."""
    return any(letter in name for letter in "*?[")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the names or globs chooses the stream."""
    return any(pattern == name or fnmatchcase(name, pattern) for pattern in patterns)


def rules_of(pipeline: Pipeline, stream: str) -> StreamRules | None:
    """The rules of a stream: by name, else by the first matching glob; None = it is not read."""
    if not pipeline.streams:
        return StreamRules()
    if stream in pipeline.streams:
        return pipeline.streams[stream]
    for pattern, rules in pipeline.streams.items():
        if is_pattern(pattern) and fnmatchcase(stream, pattern):
            return rules
    return None


def ruled(stream: Stream, rules: StreamRules) -> Stream:
    """The stream with the keys that the user's rules put in place of the connector's."""
    changes: dict[str, Any] = {}
    if rules.primary_key is not None:
        changes["primary_key"] = rules.primary_key
    if rules.cursor_field is not None:
        changes["cursor_field"] = rules.cursor_field
    return evolve(stream, **changes) if changes else stream


def chosen(pipeline: Pipeline, offered: Sequence[Stream], select: Sequence[str]) -> dict[str, Stream]:
    """The streams to take in, by name; children as well as those to be read themselves.

    Args:
        pipeline: Its ``streams`` choose, if given.
        offered: What the connector has.
        select: Names or globs that choose further, from the command line; empty = all.

    Raises:
        ConfigurationError: A stream that is named, not matched by a glob, is not offered.
    """
    found: dict[str, Stream] = {}
    for candidate in offered:
        rules = rules_of(pipeline, candidate.name)
        names = [candidate.name] if candidate.parent is None else [candidate.name, candidate.parent]
        if rules is not None and (not select or any(matches(name, select) for name in names)):
            stream = ruled(candidate, rules)
            found[candidate.name] = evolve(stream, columns=needed_columns(pipeline, stream))
    _refuse_unknown(pipeline, [candidate.name for candidate in offered], select)
    _refuse_orphans(found, {candidate.name for candidate in offered})
    return found


def _refuse_orphans(found: Mapping[str, Stream], offered: set[str]) -> None:
    """Refuse a child without its parent: nothing would read it."""
    for name, stream in found.items():
        if stream.parent is not None and stream.parent in offered and stream.parent not in found:
            raise ConfigurationError(
                f"stream {name!r} is read together with stream {stream.parent!r}, which is not selected; select it too",
                path=("streams", name),
            )


def _refuse_unknown(pipeline: Pipeline, offered: Sequence[str], select: Sequence[str]) -> None:
    for name in (*pipeline.streams, *select):
        known = matches(name, offered) or any(fnmatchcase(stream, name) for stream in offered)
        if not known and not is_pattern(name):
            near = suggest(name, offered)
            hint = f'did you mean "{near}"?' if near else f"it has {', '.join(sorted(offered)) or 'none'}"
            raise ConfigurationError(f"the connector has no stream {name!r}; {hint}", path=("streams", name))


def needed_columns(pipeline: Pipeline, stream: Stream) -> tuple[str, ...] | None:
    """The columns that the stream's routes deliver, with its keys; None = all, or that is not known.

    A filter may look at any column, so a route with one needs all.
    """
    routes = [route for route in pipeline.routes if matches(stream.name, route.streams)]
    if not routes or any(
        route.where is not None or route.columns is None or route.columns.include is None for route in routes
    ):
        return None
    wanted = [name for route in routes if route.columns for name in route.columns.include or ()]
    cursor = (stream.cursor_field,) if stream.cursor_field is not None else ()
    return tuple(dict.fromkeys([*stream.primary_key, *stream.overwrite_key, *cursor, *wanted]))


def is_refused(pipeline: Pipeline, name: str, known: Collection[str]) -> bool:
    """Whether the contract for new streams keeps one out that no run before has taken in."""
    new = bool(known) and name not in known
    return new and pipeline.new_streams != "evolve" and name not in pipeline.streams


def is_taken(kept: Mapping[str, Any]) -> bool:
    """Whether the contract for new streams has let a stream in, by what the ledger keeps of it."""
    return not kept.get("refused")


def is_narrowed(kept: Mapping[str, Any]) -> bool:
    """Whether some run has read only some columns of a stream, by what the ledger keeps of it."""
    return bool(kept.get("narrowed"))


def definition(stream: Stream) -> dict[str, Any]:
    """What the ledger keeps of a stream, to deliver its backlog while the source is away."""
    kept = {key: getattr(stream, key) for key in _KEYS}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items() if value}


def defined(name: str, kept: Mapping[str, Any]) -> Stream:
    """A stream as the ledger knows it."""
    return Stream(
        name,
        primary_key=kept.get("primary_key", ()),
        overwrite_key=kept.get("overwrite_key", ()),
        cursor_field=kept.get("cursor_field"),
        parent=kept.get("parent"),
    )


def routes_of(pipeline: Pipeline, stream: str) -> list[str]:
    """The names of the routes that deliver a stream."""
    return [route.name for route in pipeline.routes if matches(stream, route.streams)]


def mode_of(route: Route, stream: Stream, rules: StreamRules) -> Mode:
    """How a route applies a stream's records: as configured, else by how the stream is read."""
    if route.mode is not None:
        return route.mode
    if rules.read == "full" and "replace" in route.router.modes:
        return "replace"
    if rules.read == "incremental" and stream.primary_key and "upsert" in route.router.modes:
        return "upsert"
    return "append"


def check_modes(pipeline: Pipeline, stream: Stream, rules: StreamRules) -> dict[str, Mode]:
    """The mode of each route that delivers the stream.

    Raises:
        ConfigurationError: A mode that the router or the stream does not have, or that cannot
            stand beside another one on this stream.
    """
    modes: dict[str, Mode] = {}
    for route in pipeline.routes:
        if matches(stream.name, route.streams):
            modes[route.name] = mode = mode_of(route, stream, rules)
            _check_mode(route, stream, rules, mode)
    if "replace" in modes.values() and "append" in modes.values():
        full, other = (next(name for name, mode in modes.items() if mode == kind) for kind in ("replace", "append"))
        raise ConfigurationError(
            f"stream {stream.name!r} is read in full in each run for route {full!r} (replace), so "
            f"route {other!r} would append all of it in each run; give {other!r} the mode replace, or read the "
            "stream for it in a separate pipeline without `read: full`",
            path=("routes", other, "mode"),
        )
    _check_apart(pipeline, stream, modes)
    return modes


def _check_apart(pipeline: Pipeline, stream: Stream, modes: Mapping[str, Mode]) -> None:
    """Refuse two routes that replace the same records at the same place: each would take away the other's."""
    replacing = [route for route in pipeline.routes if modes.get(route.name) in ("replace", "overwrite")]
    for number, route in enumerate(replacing):
        for other in replacing[:number]:
            if type(route.router) is type(other.router) and route.router == other.router:
                raise ConfigurationError(
                    f"routes {other.name!r} and {route.name!r} both replace the records of stream {stream.name!r} with "
                    f"the same router options, so each would delete what the other delivered; give {route.name!r} "
                    "another destination, or remove it",
                    path=("routes", route.name, "router"),
                )


def _check_mode(route: Route, stream: Stream, rules: StreamRules, mode: Mode) -> None:
    path = ("routes", route.name, "mode")
    if mode not in route.router.modes:
        known = ", ".join(sorted(route.router.modes))
        raise ConfigurationError(
            f"route {route.name!r}: its router {type(route.router).__name__} has no mode {mode!r}; it has {known}",
            path=path,
        )
    if mode == "replace" and rules.read != "full":
        raise ConfigurationError(
            f"route {route.name!r}: mode replace needs the whole stream {stream.name!r} in each run; "
            f"write `read: full` under `streams: {{{stream.name}: ...}}`",
            path=path,
        )
    if mode == "upsert" and not stream.primary_key:
        raise ConfigurationError(
            f"route {route.name!r}: mode upsert needs a primary key, and stream {stream.name!r} has none; "
            f"write `primary_key: [...]` under `streams: {{{stream.name}: ...}}`",
            path=path,
        )
    if mode == "overwrite" and not stream.overwrite_key:
        raise ConfigurationError(
            f"route {route.name!r}: mode overwrite needs an overwrite key, and the connector defines "
            f"none for stream {stream.name!r}; use append or upsert",
            path=path,
        )


def refuse_removed(pipeline: Pipeline, ledger: Ledger) -> None:
    """Forget what routes do not deliver any more; refuse the run if records still wait there.

    Raises:
        ConfigurationError: Says how many records wait, and what can be done with them.
    """
    routes = {route.name: route for route in pipeline.routes}
    waiting: dict[str, int] = {}
    for (name, stream), count in accounts.pending(ledger).items():
        if name in routes and matches(stream, routes[name].streams):
            continue
        if not count:
            positions.forget(ledger, name, [stream])
        elif name in routes:
            raise ConfigurationError(
                f"route {name!r} no longer delivers stream {stream!r}, and {count} of its records are pending; "
                f"add it again, or discard them with `muxly routes discard {name} --stream {stream}`",
                path=("routes", name, "streams"),
            )
        else:
            waiting[name] = waiting.get(name, 0) + count
    if waiting:
        route, count = min(waiting.items())
        raise ConfigurationError(
            f"route {route!r} is no longer in the pipeline {pipeline.name!r}, and {count} records are "
            f"pending for it; `muxly routes rename {route} NEW` moves them to another route, "
            f"`muxly routes discard {route}` discards them",
            path=("routes",),
        )


def register(
    context: RunContext, streams: Mapping[str, Stream], known: frozenset[str], *, replayed: str | None
) -> None:
    """Give each route a position in each of its streams; a new one begins at the head, with a notice.

    Args:
        context: The run; its streams are those of earlier runs too.
        streams: The streams that the connector shows.
        known: Streams that earlier runs have had.
        replayed: A route that is about to be set back: it does not begin at the head.
    """
    names = {**context.log.streams, **streams}
    before = positions.definitions(context.ledger)
    late = positions.register(
        context.ledger,
        {name: routes_of(context.pipeline, name) for name in names},
        {name: _definition(context.pipeline, stream, known, before.get(name, {})) for name, stream in streams.items()},
    )
    for position in late:
        if position.route != replayed:
            message = (
                f"route {position.route!r} starts with newly read records; "
                f"`muxly replay --route {position.route}` delivers what the spool holds of stream {position.stream!r}"
            )
            context.run.notice(Notice("route_added", message, level="info", stream=position.stream))


def _definition(pipeline: Pipeline, stream: Stream, known: frozenset[str], before: Mapping[str, Any]) -> dict[str, Any]:
    marks = {
        "refused": is_refused(pipeline, stream.name, known),
        "narrowed": is_narrowed(before) or stream.columns is not None,
    }
    return {**definition(stream), **{mark: True for mark, here in marks.items() if here}}
