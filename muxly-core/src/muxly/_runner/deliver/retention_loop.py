"""Keeping the spool within what was asked for: leftovers are swept, what nobody needs is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muxly.component import Notice
from muxly.errors import RetryableError, SpoolError, StoreError
from muxly.store import retention

if TYPE_CHECKING:
    from muxly._runner.context import ActiveRun


class Housekeeping:
    """Sweeps and prunes the spool of one run; what it cannot do now is done by the next one.

    Args:
        active: The run.
    """

    def __init__(self, active: ActiveRun) -> None:
        self._active, self._pipeline = active, active.pipeline
        self._pruned_at_bytes = 0

    def sweep(self) -> None:
        """Delete what a crash left."""
        ledger = self._active.ledger
        try:
            self._active.spool.sweep(named=retention.files(ledger), token=ledger.token)
        except SpoolError as error:
            self._active.run.notice(Notice("sweep_failed", str(error)))

    def prune_now_and_then(self) -> None:
        """Keep to the retention also while one run reads more than the disk holds."""
        step_bytes = max(self._pipeline.segment_bytes, self._pipeline.retention_bytes // 10)
        if self._active.sealed_bytes - self._pruned_at_bytes >= step_bytes:
            self._pruned_at_bytes = self._active.sealed_bytes
            self.prune()

    def prune(self) -> None:
        """Delete what every route has and retention does not keep, as long as the ledger is ours."""
        with self._active.fencing():
            try:
                names = retention.prune(
                    self._active.ledger,
                    keep_seconds=self._pipeline.retention_seconds,
                    keep_bytes=self._pipeline.retention_bytes,
                )
                self._active.spool.delete(names)
            except (RetryableError, StoreError, SpoolError) as error:
                self._active.run.notice(Notice("prune_failed", str(error)))
