"""A pipeline: one connector, the streams it reads, and the routes they are delivered by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from muxly._annotations import chosen
from muxly.component import Notice
from muxly.connector import Connector
from muxly.errors import MuxlyError
from muxly.retry import Backoff
from muxly.router import Mode, Router

__all__ = [
    "BatchLimits",
    "Columns",
    "Pipeline",
    "Route",
    "RouteResult",
    "RunFailedError",
    "RunResult",
    "StreamResult",
    "StreamRules",
]

Contract = Literal["evolve", "freeze", "discard_record", "discard_value"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def _name(instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError(
            f"{value!r} cannot be a name: 1 to 63 letters, digits, '_', '.', '-', beginning with a letter or digit"
        )


def _is_a(kind: type) -> Callable[[Any, Any, Any], None]:
    """A validator that says what to write instead of a thing of another kind."""

    def checked(instance: object, attribute: Any, value: object) -> None:
        _expect(kind, value, f"{type(instance).__name__}.{attribute.name}")

    return checked


def _expect(kind: type, value: object, where: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{where}: expected a muxly.{kind.__name__}, got {_instead(value)}")


def _instead(value: object) -> str:
    """What a thing is, never its content, and where such a thing belongs."""
    name = type(value).__name__
    if isinstance(value, type):
        return f"the class {value.__name__}; write {value.__name__}(...)"
    if isinstance(value, Router):
        return f'the router {name}; a router belongs in a route: muxly.Route("NAME", {name}(...))'
    if isinstance(value, Connector):
        return f'the connector {name}; a connector belongs in muxly.Pipeline("NAME", {name}(...), routes=[...])'
    if isinstance(value, Route):
        return "a route; a route belongs in the list routes=[...] of a muxly.Pipeline"
    return f"a value of type {name}"


def _texts(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _texts_or_none(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return None if value is None else _texts(value)


@frozen(kw_only=True)
class Columns:
    """Which columns a route delivers, and under which names.

    Args:
        include: Only these, in this order; None = all.
        exclude: Not these.
        rename: New names by old names.
    """

    include: tuple[str, ...] | None = field(default=None, converter=_texts_or_none)
    exclude: tuple[str, ...] = field(default=(), converter=_texts)
    rename: Mapping[str, str] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class BatchLimits:
    """How much one delivery takes at most; a single segment may be cut, a record never.

    Args:
        records: At most so many records, 1 or more; None = no limit.
        bytes: At most so many bytes of Arrow data, above 0.
        seconds: Wait so long for more before delivering less, 0 or more.
    """

    records: int | None = field(default=None, validator=optional(ge(1)))
    bytes: int = field(default=64 << 20, validator=gt(0))
    seconds: float = field(default=0.0, validator=ge(0))


@frozen(kw_only=True)
class StreamRules:
    """How the runner treats a stream, the same for every connector.

    Args:
        read: ``"incremental"`` from the cursor, or ``"full"`` from the start each run.
        primary_key: In place of the connector's.
        cursor_field: In place of the connector's.
        new_columns: What happens when a column appears.
        new_types: What happens when a value does not fit its column's type and the type
            cannot be widened without loss.
        on_stale_cursor: When the source no longer knows the cursor: ``"fail"`` or ``"restart"``.

    The words of the contract are dlt's: ``evolve`` takes the change, ``freeze`` stops the
    stream, ``discard_record`` makes the record a dead letter, ``discard_value`` makes the
    value null and keeps the whole record as a dead letter beside it.
    """

    read: Literal["incremental", "full"] = field(default="incremental", validator=chosen)
    primary_key: tuple[str, ...] | None = field(default=None, converter=_texts_or_none)
    cursor_field: str | None = None
    new_columns: Contract = field(default="evolve", validator=chosen)
    new_types: Contract = field(default="evolve", validator=chosen)
    on_stale_cursor: Literal["fail", "restart"] = field(default="fail", validator=chosen)


def _columns(value: Any) -> Any:
    return Columns(**value) if isinstance(value, Mapping) else value


def _limits(value: Any) -> Any:
    return BatchLimits(**value) if isinstance(value, Mapping) else value or BatchLimits()


@frozen
class Route:
    """A router configured into a pipeline; its name is its identity and carries its position.

    Args:
        name: Unique in the pipeline.
        router: Where the records go.
        streams: Names or globs of the streams it delivers.
        mode: How records are applied; None = ``replace`` for a full read, ``upsert`` for an
            incremental one with a primary key, where the router has it; else ``append``.
        required: Whether the run is ``partial`` when this route is behind.
        columns: A ``Columns``, or a mapping of its options.
        where: A scalar SQL expression over the columns; null or false = not delivered.
        batch: A ``BatchLimits``, or a mapping of its options.
        backlog: What happens when the spool is full because of this route: ``"stop"`` reading,
            or ``"detach"`` the route until ``muxly replay``.
        max_rejected: So many records of a run may become dead letters before the route fails.
        retry: Back-off of its deliveries.
    """

    name: str = field(validator=_name)
    router: Router = field(validator=_is_a(Router))
    streams: tuple[str, ...] = field(default=("*",), kw_only=True, converter=_texts)
    mode: Mode | None = field(default=None, kw_only=True, validator=chosen)
    required: bool = field(default=True, kw_only=True)
    columns: Columns | None = field(default=None, kw_only=True, converter=_columns, validator=optional(_is_a(Columns)))
    where: str | None = field(default=None, kw_only=True)
    batch: BatchLimits = field(default=None, kw_only=True, converter=_limits, validator=_is_a(BatchLimits))
    backlog: Literal["stop", "detach"] = field(default="stop", kw_only=True, validator=chosen)
    max_rejected: int = field(default=0, kw_only=True, validator=ge(0))
    retry: Backoff = field(factory=Backoff, kw_only=True, validator=_is_a(Backoff))


def _rules(value: Mapping[str, Any]) -> dict[str, StreamRules]:
    return {
        name: StreamRules(**rules) if isinstance(rules, Mapping) else _stream_rules(name, rules)
        for name, rules in dict(value).items()
    }


def _stream_rules(name: str, rules: StreamRules | None) -> StreamRules:
    if rules is not None and not isinstance(rules, StreamRules):
        raise TypeError(f"the rules of {name!r} must be a muxly.StreamRules or a mapping of its options, not {rules!r}")
    return rules or StreamRules()


def _routes(value: Sequence[Route] | Route) -> tuple[Route, ...]:
    given: Any = value  # callers that check no types give anything; the validator tells what is wrong with it
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def _unique(instance: object, attribute: Any, value: tuple[Route, ...]) -> None:
    for number, route in enumerate(value):
        _expect(Route, route, f"{type(instance).__name__}.{attribute.name}[{number}]")
    if not value:
        raise ValueError("a pipeline needs at least one route; otherwise nothing would be delivered")
    names = [route.name for route in value]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two routes are named {min(repeated)!r}; route names must be unique")


@frozen
class Pipeline:
    """One connector and the routes its records are delivered by.

    Args:
        name: Its identity in the store.
        connector: What is read.
        routes: One or more routes, each with its own durable position.
        streams: Rules by stream name or glob; if given, only matching streams are read.
        new_streams: What happens when the connector shows a stream that earlier runs did not
            have: ``evolve``, ``freeze`` or ``discard_record``.
        parallel: Partitions that are read at the same time, 1 or more.
        memory_bytes: What the partitions that are read together may hold in memory before they
            write it to the spool, 1 MiB or more; the batch a connector yields comes on top. Routes
            read the spool's files where they lie, one segment at a time.
        segment_bytes: Size at which a segment ends.
        segment_seconds: Age at which a group ends at the next cursor.
        spool_bytes: What pending segments may take on disk before reading waits.
        retention_seconds: How long delivered segments are kept for replay.
        retention_bytes: How much of them is kept at most.
        stall_seconds: A route or a reading that makes no progress for so long (takes no batch, marks nothing,
            does not return) is stalled: it is left behind, and the others go on.
        grace_seconds: How long a stopping run may take to finish what is under way.
        retry: Back-off of reading.
    """

    name: str = field(validator=_name)
    connector: Connector = field(validator=_is_a(Connector))
    routes: tuple[Route, ...] = field(kw_only=True, converter=_routes, validator=_unique)
    streams: Mapping[str, StreamRules] = field(factory=dict, kw_only=True, converter=_rules)
    new_streams: Contract = field(default="evolve", kw_only=True, validator=chosen)
    parallel: int = field(default=4, kw_only=True, validator=ge(1))
    memory_bytes: int = field(default=256 << 20, kw_only=True, validator=ge(1 << 20))
    segment_bytes: int = field(default=64 << 20, kw_only=True, validator=ge(1))
    segment_seconds: float = field(default=60.0, kw_only=True, validator=ge(0))
    spool_bytes: int = field(default=10 << 30, kw_only=True, validator=ge(1))
    retention_seconds: float = field(default=7 * 86400.0, kw_only=True, validator=ge(0))
    retention_bytes: int = field(default=10 << 30, kw_only=True, validator=ge(0))
    stall_seconds: float = field(default=600.0, kw_only=True, validator=gt(0))
    grace_seconds: float = field(default=30.0, kw_only=True, validator=ge(0))
    retry: Backoff = field(factory=Backoff, kw_only=True, validator=_is_a(Backoff))


class RunFailedError(MuxlyError):
    """A run did not deliver everything that is required.

    Args:
        message: The pipeline, the state and the first reason.
        result: What the run did.
    """

    def __init__(self, message: str, *, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


RunState = Literal["succeeded", "partial", "failed", "stopped"]
_WENT = ("delivered", "rejected", "filtered", "dropped", "superseded", "quarantined")


@frozen(kw_only=True)
class RouteResult:
    """What one run did on one route, or on one stream of it; numbers are records.

    ``pending_before + sealed + replayed == delivered + rejected + filtered + dropped +
    superseded + quarantined + pending``.

    Args:
        pending_before: Waiting when the run began.
        sealed: Read by this run.
        replayed: Put back for delivery by a replay.
        delivered: Durable at the destination.
        rejected: Kept as dead letters.
        filtered: Left out by ``where``.
        dropped: Given up by ``muxly segments drop`` or ``routes discard``.
        superseded: Not delivered because a newer generation replaced them.
        quarantined: In a segment that is corrupt.
        pending: Waiting for the next run.
        error: Why the route stopped, if it did.
        required: Whether the run counts it.
        streams: The same by stream; empty in those.
    """

    pending_before: int = 0
    sealed: int = 0
    replayed: int = 0
    delivered: int = 0
    rejected: int = 0
    filtered: int = 0
    dropped: int = 0
    superseded: int = 0
    quarantined: int = 0
    pending: int = 0
    error: str | None = None
    required: bool = True
    streams: Mapping[str, RouteResult] = field(factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing and nothing is counted twice."""
        came = self.pending_before + self.sealed + self.replayed
        went = self.delivered + self.rejected + self.filtered + self.dropped
        return came == went + self.superseded + self.quarantined + self.pending


@frozen(kw_only=True)
class StreamResult:
    """What one run read of one stream.

    Args:
        sealed: Records that became durable in the spool.
        rejected: Records that could not be read and became dead letters.
        repeated: Unchanged repeats at the cursor's boundary that were dropped.
        bytes: Arrow bytes sealed.
        error: Why reading stopped, if it did.
    """

    sealed: int = 0
    rejected: int = 0
    repeated: int = 0
    bytes: int = 0
    error: str | None = None


@frozen(kw_only=True)
class RunResult:
    """What a run did.

    Args:
        id: The run's ULID.
        pipeline: The pipeline's name.
        state: ``"succeeded"``, ``"partial"`` (a required route or a partition is behind),
            ``"failed"`` or ``"stopped"``.
        started_at: With a time zone.
        finished_at: With a time zone.
        routes: By route name.
        streams: By stream name.
        resume_at: When a spent quota allows reading again.
        error: The first reason, if the state is not ``"succeeded"``.
        previous: How the run before ended, if there was one.
        notices: What people should know.
        measures: Numbers that components added up.
    """

    id: str
    pipeline: str
    state: RunState
    started_at: datetime
    finished_at: datetime
    routes: Mapping[str, RouteResult] = field(factory=dict)
    streams: Mapping[str, StreamResult] = field(factory=dict)
    resume_at: datetime | None = None
    error: str | None = None
    previous: str | None = None
    notices: tuple[Notice, ...] = ()
    measures: Mapping[str, float] = field(factory=dict)

    def raise_for_status(self) -> RunResult:
        """The result itself, if everything required was delivered.

        Raises:
            RunFailedError: The state is not ``"succeeded"``; carries this result.
        """
        if self.state != "succeeded":
            raise RunFailedError(f"the run of {self.pipeline} is {self.state}: {self.error}", result=self)
        return self

    def _repr_html_(self) -> str:
        """The account of each route, for notebooks."""
        from html import escape

        came, went = ("pending_before", "sealed", "replayed"), (*_WENT, "pending")
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("route", "stream", *came, *went))
        lines = [
            f"<td>{escape(name)}</td><td>{escape(stream)}</td>"
            + "".join(f"<td>{getattr(counts, key):,}</td>" for key in (*came, *went))
            for name, route in self.routes.items()
            for stream, counts in route.streams.items()
        ]
        rows = "".join(f"<tr>{line}</tr>" for line in lines)
        reason = f": {escape(self.error)}" if self.error else ""
        title = f"<p><b>{escape(self.pipeline)}</b> {self.state}{reason}</p>"
        return f"{title}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
