"""What single values cannot show: things that each are right and do not go together.

Looks at the values as they are written, not at built objects, so that one mistake hides no other.
"""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from muxly.config._location import KeyPath

Finding = tuple["KeyPath", str]


def of_route(route: Mapping[str, Any], modes: frozenset[str]) -> Iterator[Finding]:
    """What is wrong inside a route, with paths below it.

    Args:
        route: Its options.
        modes: What its router has.
    """
    mode = route.get("mode")
    if isinstance(mode, str) and mode in _MODES - modes:
        known = " and ".join(sorted(modes))
        yield ("mode",), f'the router "{route["router"]["type"]}" has no mode {mode}; it has {known}'
    columns = _mapping(route.get("columns"))
    both = set(_texts(columns.get("include"), ())) & set(_texts(columns.get("exclude"), ()))
    if both:
        yield ("columns",), f'"{min(both)}" is both included and excluded; remove one of the two'


def of_pipeline(pipeline: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong between the routes and streams of a pipeline, with paths below it."""
    routes = {name: route for name, route in _mapping(pipeline.get("routes")).items() if isinstance(route, dict)}
    for name, route in routes.items():
        if route.get("mode") == "replace":
            yield from _needs_full_reads(_mapping(pipeline.get("streams")), name, route)
            yield from _stands_alone(routes, name)


_MODES = frozenset({"append", "upsert", "overwrite", "replace"})


def _needs_full_reads(streams: Mapping[str, Any], name: str, route: Mapping[str, Any]) -> Iterator[Finding]:
    """A generation is one full read, so what is read incrementally cannot be replaced."""
    path: KeyPath = ("routes", name, "mode")
    if not streams:
        rule = 'streams: {"*": {read: full}}'
        yield path, f"replace needs full reads, and streams are read incrementally unless told; add {rule}"
    for pattern in _texts(route.get("streams")):
        for stream in _ruling(streams, pattern):
            if _mapping(streams[stream]).get("read") != "full":
                step = f"write read: full under streams.{stream}"
                yield path, f'replace needs full reads, and "{stream}" is read incrementally; {step}'


def _ruling(streams: Mapping[str, Any], pattern: str) -> Iterator[str]:
    """Whose rules hold for the streams that a route's name or glob means: by name, else the first glob."""
    if pattern in streams:
        yield pattern
        return
    yield from (name for name in streams if fnmatchcase(name, pattern))
    covering = (name for name in streams if fnmatchcase(pattern, name))
    yield from itertools.islice(covering, 1)


def _stands_alone(routes: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[Finding]:
    """Each full read would be appended to the last one."""
    streams = _texts(routes[name].get("streams"))
    for other, route in routes.items():
        if route.get("mode") == "append" and _overlap(streams, _texts(route.get("streams"))):
            told = f'append would repeat every record each time that "{name}" replaces the same streams (read: full)'
            step = "let this route replace too, or move it to a pipeline of its own"
            yield ("routes", other, "mode"), f"{told}; {step}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any, default: tuple[str, ...] = ("*",)) -> list[str]:
    items = value if isinstance(value, list) else default if value is None else [value]
    return [one for one in items if isinstance(one, str)]


def _overlap(first: list[str], second: list[str]) -> bool:
    """Whether names or globs can mean the same stream; two globs only if one matches the other's text."""
    return any(fnmatchcase(one, other) or fnmatchcase(other, one) for one in first for other in second)
