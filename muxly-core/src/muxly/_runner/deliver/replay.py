"""Replays: delivering again from the spool, without touching the source."""

from __future__ import annotations

from collections.abc import Mapping

from muxly._runner.options import Replay
from muxly._runner.streams import matches, mode_of, rules_of
from muxly.errors import ConfigurationError
from muxly.pipeline import Pipeline, Route, StreamRules
from muxly.store import dead_letters as letters
from muxly.store import deliveries, positions, retention
from muxly.store.ledger import Ledger
from muxly.store.rows import RoutePosition
from muxly.stream import Stream

_NEEDS_FORCE = ("overwrite", "replace")
_LETTERS = 1000


def set_back(ledger: Ledger, pipeline: Pipeline, replay: Replay, streams: Mapping[str, Stream]) -> int:
    """Put what is to be replayed back before its route.

    Returns:
        How many records that are.

    Raises:
        ConfigurationError: The spool does not keep all of it, or the mode needs ``force``;
            nothing was changed.
    """
    route = next(candidate for candidate in pipeline.routes if candidate.name == replay.route)
    if replay.dead_letters:
        return _letters_back(ledger, pipeline, route, replay, streams)
    if replay.partial:
        _refuse_partial_generations(pipeline, route, replay, streams)
    starts = {
        position.stream: _start(ledger, position, replay)
        for position in positions.every(ledger)
        if position.route == route.name and matches(position.stream, replay.streams)
    }
    return sum(positions.replay(ledger, route.name, stream, start) for stream, start in starts.items())


def _refuse_partial_generations(
    pipeline: Pipeline, route: Route, replay: Replay, streams: Mapping[str, Stream]
) -> None:
    for name, stream in streams.items():
        served = matches(name, route.streams) and matches(name, replay.streams)
        if served and mode_of(route, stream, rules_of(pipeline, name) or StreamRules()) == "replace":
            raise ConfigurationError(
                f"route {route.name!r} replaces the whole stream {name!r}: a partial replay would "
                "replace all of its records; remove `--partial`, or read it again with `muxly run`"
            )


def _start(ledger: Ledger, here: RoutePosition, replay: Replay) -> int:
    """The position after which a stream is delivered again."""
    stream = here.stream
    after = replay.after or (here.position if here.detached else 0)
    if after > here.position and not replay.partial:
        raise ConfigurationError(
            f"route {here.route!r} is at position {here.position} of stream {stream!r}; starting after {after} "
            "would skip the segments in between: start there or earlier, or add `--partial`"
        )
    kept = retention.log(ledger, stream)
    head = positions.generations_of(ledger, stream).head
    missing = retention.missing(kept, after, head)
    if missing is None:
        return after
    if not replay.partial:
        raise ConfigurationError(
            f"stream {stream!r}: the spool no longer holds position {missing} (the stream is at {head}); "
            "`--partial` delivers what it holds, `muxly run --full-refresh` reads it again"
        )
    later = [segment.position for segment in kept if segment.position > after]
    return min(later, default=head + 1) - 1


def _letters_back(
    ledger: Ledger, pipeline: Pipeline, route: Route, replay: Replay, streams: Mapping[str, Stream]
) -> int:
    open_ids = {name for letter in deliveries.open_letters(ledger, route.name) for name in letter.letters}
    by_stream = {
        stream: [letter for letter in ids if letter not in open_ids]
        for stream, ids in letters.waiting_ids(ledger, route.name).items()
        if matches(stream, replay.streams)
    }
    for name in by_stream:
        mode = mode_of(route, streams[name], rules_of(pipeline, name) or StreamRules())
        if mode in _NEEDS_FORCE and not replay.force:
            raise ConfigurationError(
                f"route {route.name!r} delivers stream {name!r} in mode {mode}: old dead letters could overwrite newer "
                "records there; `--force` delivers them anyway"
            )
    for name, ids in by_stream.items():
        from muxly._runner.deliver.stream_delivery import route_options

        mode = mode_of(route, streams[name], rules_of(pipeline, name) or StreamRules())
        for start in range(0, len(ids), _LETTERS):
            piece = ids[start : start + _LETTERS]
            deliveries.store_letters_delivery(ledger, route.name, name, piece, route_options(route, mode), start=start)
    return sum(map(len, by_stream.values()))
