"""The tie boundaries of streams and partitions, as they are once groups are sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from muxly.store import plans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly._runner.repeats import Boundary
    from muxly.store.ledger import Ledger
    from muxly.store.rows import WrittenGroup
    from muxly.stream import Stream


class Boundaries:
    """What is remembered of each stream, for its next plan, and of each partition, for when it is resumed.

    Args:
        ledger: Asked once for each of them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._streams: dict[tuple[str, str], Boundary] = {}
        self._partitions: dict[tuple[str, int], dict[str, Boundary]] = {}

    def after(
        self, added: Iterable[tuple[WrittenGroup, Iterable[tuple[Stream, Boundary]]]]
    ) -> tuple[list[WrittenGroup], Boundaries]:
        """What holds once some groups are sealed, in their order; nothing changes here, for they may not be.

        Args:
            added: The groups, each with the boundary of its own records by stream.

        Returns:
            The groups with their boundaries, and what is remembered then.
        """
        then = Boundaries(self._ledger)
        then._streams, then._partitions = dict(self._streams), dict(self._partitions)
        return [then._bounded(group, list(of_streams)) for group, of_streams in added], then

    def _bounded(self, group: WrittenGroup, added: list[tuple[Stream, Boundary]]) -> WrittenGroup:
        if group.done:
            self._partitions.pop((group.plan, group.ordinal), None)
        if not added:
            return group
        reached = {stream.name: self._of_stream(group, stream, boundary) for stream, boundary in added}
        own = {} if group.done else self._of_partition(group, added)
        return evolve(
            group,
            boundaries={name: boundary.to_state() for name, boundary in reached.items()},
            own_boundaries={name: boundary.to_state() for name, boundary in own.items()},
        )

    def _of_stream(self, group: WrittenGroup, stream: Stream, added: Boundary) -> Boundary:
        from muxly._runner.repeats import Boundary, joined  # loads pyarrow; who made a boundary has it already

        key = (stream.name, group.plan)
        before = self._streams.get(key) or Boundary.from_state(plans.boundary(self._ledger, stream.name))
        self._streams[key] = joined(before, added, stream)
        return self._streams[key]

    def _of_partition(self, group: WrittenGroup, added: list[tuple[Stream, Boundary]]) -> dict[str, Boundary]:
        from muxly._runner.repeats import Boundary, joined

        key = (group.plan, group.ordinal)
        if key not in self._partitions:
            stored = plans.own_boundaries(self._ledger, *key)
            self._partitions[key] = {name: Boundary.from_state(state) for name, state in stored.items()}
        own = dict(self._partitions[key])
        for stream, boundary in added:
            own[stream.name] = joined(own.get(stream.name, Boundary()), boundary, stream)
        self._partitions[key] = own
        return own
