"""Checks of routes against streams, before anything is read: modes, columns, filters, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from muxly._runner import fingerprint
from muxly._runner.streams import check_modes, is_narrowed, matches, rules_of
from muxly.errors import ConfigurationError
from muxly.pipeline import Pipeline, Route
from muxly.router import Mode
from muxly.store import log, positions
from muxly.store.ledger import Ledger
from muxly.stream import Stream
from muxly.suggest import suggest

if TYPE_CHECKING:
    import pyarrow as pa


def check_routes(
    pipeline: Pipeline, streams: Iterable[Stream], ledger: Ledger | None = None, *, remembered: Path | None = None
) -> None:
    """Check modes, columns and filters of all routes against the streams that are known.

    Args:
        pipeline: Its routes and rules.
        streams: With the keys that the rules gave them.
        ledger: Knows the schemas of earlier runs; None = only declared ones are known.
        remembered: A file that names what was right before, so that a run with nothing new
            need not load what looks at filters; may be deleted at any time.

    Raises:
        ConfigurationError: All that is wrong, one problem a line; ``path`` is the first one's.
    """
    streams = list(streams)
    print_of_all = _fingerprint(pipeline, streams, ledger)
    same = remembered is not None and _content(remembered) == print_of_all
    problems = list(_problems(pipeline, streams, ledger, selections=not same))
    if problems:
        raise ConfigurationError("\n".join(str(problem) for problem in problems), path=problems[0].path)
    if remembered is not None and not same:
        with suppress(OSError):
            remembered.write_text(print_of_all, encoding="ascii")


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeError):
        return None


def _fingerprint(pipeline: Pipeline, streams: list[Stream], ledger: Ledger | None) -> str:
    """Names everything that the check of columns and filters looks at."""
    routes = [f"{route.name} {route.streams} {route.mode} {route.columns} {route.where}" for route in pipeline.routes]
    known = [f"{stream} {stream.schema}" for stream in streams]
    rules = [f"{name} {rule}" for name, rule in pipeline.streams.items()]
    numbers = {} if ledger is None else log.schema_numbers(ledger)
    return fingerprint.of_parts([*routes, *known, *rules, *(f"{name} {number}" for name, number in numbers.items())])


def _problems(
    pipeline: Pipeline, streams: list[Stream], ledger: Ledger | None, *, selections: bool
) -> Iterator[ConfigurationError]:
    modes: dict[str, dict[str, Mode]] = {}
    for stream in streams:
        rules = rules_of(pipeline, stream.name)
        try:
            modes[stream.name] = {} if rules is None else check_modes(pipeline, stream, rules)
        except ConfigurationError as error:
            yield error
    for route in pipeline.routes:
        if selections and (route.columns is not None or route.where is not None):
            served = [stream for stream in streams if route.name in modes.get(stream.name, {})]
            yield from _selection_problems(route, served, modes, ledger)
        if streams and not any(matches(stream.name, route.streams) for stream in streams):
            yield from _unmatched(route, streams)


def _selection_problems(
    route: Route, streams: list[Stream], modes: dict[str, dict[str, Mode]], ledger: Ledger | None
) -> Iterator[ConfigurationError]:
    from muxly._runner.deliver.selection import selection_problems  # loads pyarrow, for routes that select only

    narrowed = _narrowed(ledger)
    known = {
        stream.name: (stream, stream.schema if stream.name in narrowed else _schema(stream, ledger))
        for stream in streams
    }
    for problem in selection_problems(
        route, known, {stream.name: modes[stream.name][route.name] for stream in streams}
    ):
        message = f"route {route.name!r}: {problem}"
        yield ConfigurationError(message, path=("routes", route.name, *problem.path))


def _narrowed(ledger: Ledger | None) -> set[str]:
    """Streams that may have more columns than the ledger knows, for nobody asked for the others."""
    kept = {} if ledger is None else positions.definitions(ledger)
    return {name for name, definition in kept.items() if is_narrowed(definition)}


def check_filter(pipeline: Pipeline, route: Route, streams: Iterable[Stream], ledger: Ledger) -> None:
    """Check a route's filter once more, when its streams have been read: one mistake leaves out every record.

    Raises:
        ConfigurationError: A column that none of the route's streams has, or types that do not go together.
    """
    from muxly._runner.deliver.selection import where_problems

    for problem in where_problems(route, _schemas(pipeline, route, streams, ledger)):
        raise ConfigurationError(str(problem), path=("routes", route.name, *problem.path))


def missing_columns(pipeline: Pipeline, route: Route, streams: Iterable[Stream], ledger: Ledger) -> Iterator[str]:
    """What to tell of columns that a route includes and that none of its streams has had so far."""
    from muxly._runner.schema.contract import DELETED_AT

    known = {DELETED_AT}
    for schema in _schemas(pipeline, route, streams, ledger):
        if schema is None:
            return
        known.update(schema.names)
    for name in (route.columns.include if route.columns is not None else None) or ():
        if name not in known:
            yield (
                f"route {route.name!r} includes the column {name!r}, which no record read so far has had; "
                "correct `include` if this is a mistake"
            )


def _schemas(pipeline: Pipeline, route: Route, streams: Iterable[Stream], ledger: Ledger) -> list[pa.Schema | None]:
    """What is known of the streams that a route delivers."""
    served = (
        stream
        for stream in streams
        if matches(stream.name, route.streams) and rules_of(pipeline, stream.name) is not None
    )
    return [_schema(position, ledger) for position in served]


def _schema(stream: Stream, ledger: Ledger | None) -> pa.Schema | None:
    from muxly._runner.schema import evolution

    stored = None if ledger is None else log.newest_schema(ledger, stream.name)
    return stream.schema if stored is None else evolution.schema_from_bytes(stored[1])


def _unmatched(route: Route, streams: list[Stream]) -> Iterator[ConfigurationError]:
    """A stream that a route names, not matches by a glob, and that there is not."""
    from muxly._runner.streams import is_pattern

    names = [stream.name for stream in streams]
    for number, name in enumerate(route.streams):
        if not is_pattern(name):
            near = suggest(name, names)
            hint = f'did you mean "{near}"?' if near else f"there are {', '.join(sorted(names))}"
            yield ConfigurationError(
                f"route {route.name!r}: there is no stream {name!r}; {hint}",
                path=("routes", route.name, "streams", number),
            )
