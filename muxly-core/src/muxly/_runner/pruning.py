"""Pruning the spool: leftovers are swept, and segments that no route and no retention needs are deleted."""

from __future__ import annotations

from muxly._runner.context import RunContext
from muxly.component import Notice
from muxly.errors import RetryableError, SpoolError, StoreError
from muxly.store import retention


class SpoolPruning:
    """Sweeps and prunes the spool of one run; what it cannot do now is done by the next one.

    Args:
        context: The run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._pipeline = context, context.pipeline
        self._pruned_at_bytes = 0

    def sweep(self) -> None:
        """Delete what a crash left."""
        ledger = self._context.ledger
        try:
            self._context.spool.sweep(named=retention.files(ledger), token=ledger.token)
        except SpoolError as error:
            self._context.run.notice(Notice("sweep_failed", str(error)))

    def prune_now_and_then(self) -> None:
        """Keep to the retention also while one run reads more than the disk holds."""
        step_bytes = max(self._pipeline.segment_bytes, self._pipeline.retention_bytes // 10)
        if self._context.log.bytes - self._pruned_at_bytes >= step_bytes:
            self._pruned_at_bytes = self._context.log.bytes
            self.prune()

    def prune(self) -> None:
        """Delete what every route has and retention does not keep, as long as the ledger is ours."""
        with self._context.failures.fencing():
            try:
                names = retention.prune(
                    self._context.ledger,
                    keep_seconds=self._pipeline.retention_seconds,
                    keep_bytes=self._pipeline.retention_bytes,
                )
                self._context.spool.delete(names)
            except (RetryableError, StoreError, SpoolError) as error:
                self._context.run.notice(Notice("prune_failed", str(error)))
