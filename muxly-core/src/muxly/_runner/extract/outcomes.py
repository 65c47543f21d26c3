"""What became of the streams that a run reads: records counted, errors, and who is behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from attrs import evolve

from muxly._runner.context import sentence
from muxly._runner.streams import is_pattern
from muxly.component import Notice
from muxly.errors import FencedError, QuotaError, StoppedError, StreamUnavailableError
from muxly.pipeline import StreamResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from muxly._runner.context import RunContext


class Outcomes:
    """The outcome of each stream; thread-safe.

    Args:
        context: The run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self.results: dict[str, StreamResult] = {}
        self.errors: dict[str, BaseException] = {}
        self.behind: set[str] = set()
        self.resume_at: datetime | None = None

    def guard(self, name: str, work: Callable[[], None]) -> None:
        """Do some work of a stream; an error becomes the stream's, and others go on."""
        try:
            work()
        except StoppedError:
            self.leave_behind(name)
        except QuotaError as error:
            self.leave_behind(name)
            self._resume(error)
            self._context.run.notice(Notice("quota", str(error), stream=name))
        except StreamUnavailableError as error:
            self._unavailable(name, error)
        except FencedError as error:
            self._context.failures.fence(error)
            self.fail(name, error)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            self.fail(name, error)

    def leave_behind(self, name: str) -> None:
        """A stream is not read to its end in this run."""
        with self._lock:
            self.behind.add(name)

    def fail(self, name: str, error: BaseException) -> None:
        """A stream cannot be read on; the first error counts."""
        with self._lock:
            self.behind.add(name)
            self.errors.setdefault(name, error)
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(before, error=before.error or sentence(error))
            self._context.failures.streams.setdefault(name, error)
        self._context.progress.show()

    def _resume(self, error: QuotaError) -> None:
        with self._lock:
            times = [one for one in (self.resume_at, error.resume_at) if one is not None]
            self.resume_at = max(times, default=None)

    def _unavailable(self, name: str, error: StreamUnavailableError) -> None:
        """A stream that is not there: an error if the user named it, else only a notice."""
        named = name in self._context.pipeline.streams and not is_pattern(name)
        if named:
            self.fail(name, error)
        else:
            self._context.run.notice(Notice("stream_unavailable", str(error), stream=name))

    def count(self, name: str, records: int, repeated: int, rejected: int) -> None:
        """Add what a batch brought."""
        with self._lock:
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(
                before,
                sealed=before.sealed + records,
                repeated=before.repeated + repeated,
                rejected=before.rejected + rejected,
            )
        self._context.progress.show()
