"""Routers whose output is opened at the first use, since it loads libraries that another pipeline does not need."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import muxly

__all__ = ["LazyOutputRouter", "RouterOutput"]


class RouterOutput(Protocol):
    """An opened destination, which does the work of a router."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        """See ``Router.deliver``."""

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """See ``Router.begin``."""

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """See ``Router.complete``."""

    def close(self) -> None:
        """Release everything; called once."""


OutputT = TypeVar("OutputT", bound=RouterOutput)


class LazyOutputRouter(muxly.Router, Generic[OutputT]):
    """A router that passes its calls on to an output, which it opens at the first of them.

    A subclass has ``_open_output``, and imports there what is heavy. A pipeline is planned, checked for errors and
    run without new records with no output at all. ``close`` may be called without ``open``, and more than once.
    """

    _output: OutputT | None = None

    def open(self, run: muxly.Run) -> None:
        """Store the run; the output is opened at the first use."""
        self._run = run
        self._output = None

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        """Deliver the records; see the module of the router for what holds after a crash."""
        return self._opened().deliver(delivery)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation that nobody sees yet."""
        self._opened().begin(stream, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Make the generation the visible one, in one step."""
        self._opened().complete(stream, generation)

    def close(self) -> None:
        """Close the output, if there is one."""
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def _opened(self) -> OutputT:
        if self._output is None:
            self._output = self._open_output()
        return self._output

    def _open_output(self) -> OutputT:
        raise NotImplementedError(f"{type(self).__name__} needs a method _open_output(self)")
