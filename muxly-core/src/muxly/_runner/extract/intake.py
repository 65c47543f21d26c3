"""The intake of a stream: its definition, its schema as it grows, and the contract for new streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from muxly._runner.context import RunContext
from muxly._runner.streams import check_modes, is_refused, rules_of
from muxly.errors import StreamError
from muxly.pipeline import StreamRules
from muxly.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly._runner.schema.evolution import GrowingSchema


@frozen(eq=False, kw_only=True)
class Intake:
    """One stream as it is taken in: its definition, its schema, and whether its records are kept.

    Args:
        stream: The stream.
        schema: Its schema, shared by all partitions.
        wanted: Whether its records are kept; False for a child nobody asked for.
        discarded: Why all its records become dead letters, if the contract says so.
        keyed: Whether some route replaces records by the overwrite key.
    """

    stream: Stream
    schema: GrowingSchema
    wanted: bool = True
    discarded: str | None = None
    keyed: bool = False


class Intakes:
    """The intakes of a run, one for each stream, made when its first batch comes.

    Args:
        context: The run.
        streams: The streams to take in, by name.
        known: Streams that earlier runs have had, by name; others are new.
        planned_schema: The schema that a stream's plan named, if it named one.
    """

    def __init__(
        self,
        context: RunContext,
        streams: Mapping[str, Stream],
        known: frozenset[str],
        planned_schema: Callable[[str], pa.Schema | None],
    ) -> None:
        self._context, self._streams, self._known, self._planned_schema = context, streams, known, planned_schema
        self._made: dict[str, Intake] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Intake:
        """The intake of a stream.

        Raises:
            StreamError: The stream is new, and the contract takes none.
        """
        with self._lock:
            if name not in self._made:
                self._made[name] = self._new(name)
            return self._made[name]

    def _new(self, name: str) -> Intake:
        from muxly._runner.schema.evolution import GrowingSchema

        rules = rules_of(self._context.pipeline, name)
        stream = self._streams.get(name) or self._context.log.streams.get(name) or Stream(name)
        modes = check_modes(self._context.pipeline, stream, rules or StreamRules())
        self._context.log.streams.setdefault(name, stream)
        return Intake(
            stream=stream,
            schema=GrowingSchema(
                self._context.ledger,
                name,
                rules or StreamRules(),
                lambda before, after: self._grew(name, before, after),
                declared=[schema for schema in (stream.schema, self._planned_schema(name)) if schema is not None],
            ),
            wanted=rules is not None,
            discarded=self._refused(name),
            keyed="overwrite" in modes.values(),
        )

    def _refused(self, name: str) -> str | None:
        """Why a stream that earlier runs did not have is not taken; None = it is."""
        contract = self._context.pipeline.new_streams
        if not is_refused(self._context.pipeline, name, self._known):
            return None
        if contract == "freeze":
            raise StreamError(
                f"stream {name!r} is new, and `new_streams: freeze` allows no new streams; add it under `streams:` "
                "or set `new_streams: evolve`"
            )
        return f"stream {name!r} is new, and `new_streams: {contract}` discards its records"

    def _grew(self, name: str, before: pa.Schema | None, after: pa.Schema) -> None:
        self._context.observers.call("muxly_schema_changed", stream=name, before=before, after=after)
