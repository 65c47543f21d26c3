"""The contract of schedulers: components that watch one kind of trigger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from muxly.component import Component

__all__ = ["Scheduler", "Submit"]


class Submit(Protocol):
    """Asks for one run of a job; thread-safe; the same ``dedup_key`` twice is one run."""

    def __call__(
        self,
        job: str,
        trigger: str,
        dedup_key: str,
        scheduled_at: datetime | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Store the wish for a run, and return the run's id.

        Args:
            job: Name of the job.
            trigger: Name or kind of the trigger that fired.
            dedup_key: Names this firing; repeated ones return the first run's id.
            scheduled_at: When it was due, with a time zone; None = now.
            params: What the run is given, JSON values.
        """
        ...


class Scheduler(Component):
    """Watches one kind of trigger and submits runs. ``open``, ``start``, ``stop``, ``close``."""

    def start(self, submit: Submit) -> None:
        """Begin watching in the background, and return at once."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop watching; when it returns, ``submit`` is not called any more. May be repeated."""
        raise NotImplementedError
