"""The exception tree, grouped by what the runner does with each error.

::

    MuxlyError
    ├── ConfigurationError      the user's configuration is wrong; exit code 2
    ├── PluginError             a plugin cannot be found, imported or used
    ├── FencedError             another run holds the lease now; nothing more is written
    │   └── LeaseHeldError      the lease was held before this run began; exit code 75
    ├── StoppedError            the run was asked to stop
    ├── StoreError              the ledger's database cannot be used as it is
    ├── SpoolError              a file of the spool cannot be written or read
    │   └── CorruptSegmentError a segment's bytes are not the ones that were sealed
    ├── RetryableError          reading or delivering may work when tried again
    ├── StreamError             reading or delivering this stream stops, the others go on
    ├── ReadError               reading
    │   ├── QuotaError          the source refuses until a known time
    │   ├── StreamUnavailableError  the stream is not there (any more)
    │   └── StaleCursorError    the source no longer knows the cursor
    └── DeliveryError           delivering
        ├── RejectedError       some record is bad; the delivery is split until it is found
        ├── RouteError          this route stops, the others go on
        └── ConflictError       the destination knows this id with another content

Every error pickles, so that it can come back from an executor's worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "CorruptSegmentError",
    "DeliveryError",
    "FencedError",
    "LeaseHeldError",
    "MuxlyError",
    "PluginError",
    "QuotaError",
    "ReadError",
    "RejectedError",
    "RetryableError",
    "RouteError",
    "SpoolError",
    "StaleCursorError",
    "StoppedError",
    "StoreError",
    "StreamError",
    "StreamUnavailableError",
]


class MuxlyError(Exception):
    """The root of all errors that Muxly raises on purpose.

    Args:
        message: What happened, where, and the next step, in the user's words.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[MuxlyError], state: Mapping[str, Any]) -> MuxlyError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message", ""))
    error.__dict__.update(state)
    return error


class ConfigurationError(MuxlyError):
    """The configuration is wrong; nothing was read or written.

    Args:
        message: All problems, one a line.
        path: The option's path inside the component or the document, such as
            ``("routes", "lake", "router", "format")``. The configuration loader
            turns it into ``file:line:col``.
    """

    def __init__(self, message: str, *, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class PluginError(MuxlyError):
    """A plugin cannot be found, imported, or does not keep its contract."""


class FencedError(MuxlyError):
    """Another run has taken the lease; this one may not write any more."""


class LeaseHeldError(FencedError):
    """Another run of the pipeline holds the lease.

    Args:
        message: Names the pipeline and the holder.
        holder: The holder as it named itself: host, process number, run.
    """

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class StoppedError(MuxlyError):
    """The run was asked to stop; raised inside ``run.sleep`` and between batches."""


class StoreError(MuxlyError):
    """The store cannot be used: newer than this Muxly, damaged, or unreachable."""


class SpoolError(MuxlyError):
    """A file of the spool cannot be written or read."""


class CorruptSegmentError(SpoolError):
    """A segment is missing or its bytes are not the ones that were sealed."""


class RetryableError(MuxlyError):
    """Trying again may help: the network, a busy server, a rate limit.

    While reading, what follows the last cursor is dropped and read again from it.
    While delivering, the same delivery is tried again under the same id.

    Args:
        message: What failed.
        retry_after: Seconds the other side asked us to wait, 0 or more; None = unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StreamError(MuxlyError):
    """This stream stops, the others go on.

    Raised by a connector: it is not read any further in this run. Raised by a router, or by the
    runner while it delivers: its backlog waits on this route for the next run.
    """


class ReadError(MuxlyError):
    """Reading failed in a way that the runner knows how to answer."""


class QuotaError(ReadError):
    """The source refuses until a known time; what was read up to the last cursor is sealed.

    Args:
        message: Which quota is spent.
        resume_at: When reading may go on, with a time zone; kept in ``RunResult.resume_at``.
    """

    def __init__(self, message: str, *, resume_at: datetime | None = None) -> None:
        super().__init__(message)
        self.resume_at = resume_at


class StreamUnavailableError(ReadError):
    """The stream is not there: skipped with a notice if a pattern chose it, failed if it was named."""


class StaleCursorError(ReadError):
    """The source no longer knows the cursor; ``on_stale_cursor`` says: fail or restart."""


class DeliveryError(MuxlyError):
    """Delivering failed in a way that the runner knows how to answer."""


class RejectedError(DeliveryError):
    """The destination refuses some record of the delivery.

    The runner splits the delivery, recording the split before either half is tried,
    until the bad records stand alone; these become dead letters.
    """


class RouteError(DeliveryError):
    """This route cannot go on: wrong address, no permission, wrong set-up."""


class ConflictError(DeliveryError):
    """The destination already holds this delivery's id with other content."""
