"""The routes of a run against those of earlier ones: removed ones are refused, new ones take up a position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxly._runner.streams import definition, is_narrowed, is_refused, matches, routes_of
from muxly.component import Notice
from muxly.errors import ConfigurationError
from muxly.store import accounts, positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly._runner.context import ActiveRun
    from muxly.pipeline import Pipeline
    from muxly.store.ledger import Ledger
    from muxly.stream import Stream


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
                f"route {name!r} does not deliver stream {stream!r} any more, and {count} of its records wait; "
                f"put it back, or `muxly routes discard {name} --stream {stream}` gives them up",
                path=("routes", name, "streams"),
            )
        else:
            waiting[name] = waiting.get(name, 0) + count
    if waiting:
        route, count = min(waiting.items())
        raise ConfigurationError(
            f"route {route!r} is not in the pipeline {pipeline.name!r} any more, and {count} records wait "
            f"for it; `muxly routes rename {route} NEW` gives them to another route, "
            f"`muxly routes discard {route}` gives them up",
            path=("routes",),
        )


def register(active: ActiveRun, streams: Mapping[str, Stream], known: frozenset[str], *, replayed: str | None) -> None:
    """Give each route a position in each of its streams; a new one begins at the head, with a notice.

    Args:
        active: The run; its streams are those of earlier runs too.
        streams: The streams that the connector shows.
        known: Streams that earlier runs have had.
        replayed: A route that is about to be set back: it does not begin at the head.
    """
    names = {**active.streams, **streams}
    before = positions.definitions(active.ledger)
    late = positions.register(
        active.ledger,
        {name: routes_of(active.pipeline, name) for name in names},
        {name: _definition(active.pipeline, one, known, before.get(name, {})) for name, one in streams.items()},
    )
    for one in late:
        if one.route != replayed:
            message = (
                f"route {one.route!r} begins with what is read from now on; "
                f"`muxly replay --route {one.route}` delivers what the spool keeps of stream {one.stream!r}"
            )
            active.run.notice(Notice("route_added", message, level="info", stream=one.stream))


def _definition(pipeline: Pipeline, stream: Stream, known: frozenset[str], before: Mapping[str, Any]) -> dict[str, Any]:
    marks = {
        "refused": is_refused(pipeline, stream.name, known),
        "narrowed": is_narrowed(before) or stream.columns is not None,
    }
    return {**definition(stream), **{mark: True for mark, here in marks.items() if here}}
