"""How a stream's schema grows while it is read by several threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from muxly._runner.schema import evolution
from muxly.store import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from muxly.batch import Rejected
    from muxly.pipeline import StreamRules
    from muxly.store.ledger import Ledger


class GrowingSchema:
    """The merged schema of one stream, shared by all partitions that are being read.

    Args:
        ledger: Where its versions are stored.
        stream: The stream's name.
        declared: Schemas that the connector gave for it.
        rules: The contract for new columns and types.
        on_growth: Told the schema before (None at first) and after.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        rules: StreamRules,
        on_growth: Callable[[pa.Schema | None, pa.Schema], None],
        declared: Iterable[pa.Schema] = (),
    ) -> None:
        self._stream, self._rules, self._on_growth = stream, rules, on_growth
        self._lock = threading.Lock()
        stored = log.newest_schema(ledger, stream)
        self.version = 0 if stored is None else stored[0]
        self.schema: pa.Schema | None = None if stored is None else evolution.schema_from_bytes(stored[1])
        self._grown: dict[int, pa.Schema] = {}
        for schema in declared:
            self._begin_with(schema)

    def _begin_with(self, declared: pa.Schema) -> None:
        """Let the connector's own schema count before the first record; values decide where it conflicts."""
        try:
            merged = evolution.merge(self.schema, declared)
        except evolution.ConflictingTypesError:
            return
        if self.schema is None or not merged.equals(self.schema):
            self.schema = merged
            self.version += 1
            self._grown[self.version] = merged

    def conform(self, table: pa.Table) -> tuple[pa.Table, int, tuple[Rejected, ...]]:
        """A batch in the schema as it is now, with that schema's version.

        Raises:
            StreamError: The contract does not allow the change.
        """
        with self._lock:
            before = self.schema
            if not table.num_columns and not table.num_rows and before is not None:
                return before.empty_table(), self.version, ()
            conformed = evolution.conform(table, before, self._rules, stream=self._stream)
            if conformed.changed or before is None:
                self.schema = conformed.schema
                self.version += 1
                self._grown[self.version] = conformed.schema
            version = self.version
        if conformed.changed or before is None:
            self._on_growth(before, conformed.schema)
        return conformed.table, version, conformed.rejected

    def unstored(self, version: int) -> pa.Schema | None:
        """The schema of a version that this run made and no sealed group has stored yet."""
        return self._grown.get(version)

    def stored(self, versions: Iterable[int]) -> None:
        """Groups with these versions have been sealed."""
        with self._lock:
            for version in versions:
                self._grown.pop(version, None)
