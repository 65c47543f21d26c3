"""A connection to PostgreSQL through psycopg, with bulk loads by binary COPY."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.pq import TransactionStatus

from muxly_routers.sql.dialect import SqlDialect, SqlSession
from muxly_routers.sql.names import TableName
from muxly_routers.sql.postgres import load as postgres_copy

__all__ = ["PostgresSession"]

_CANCEL_SECONDS = 2.0

_COLUMNS = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = COALESCE($1::text, current_schema()) AND c.relname = $2::text
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = COALESCE($1::text, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# For this transaction only: a pool may give each transaction another connection.
_SETTINGS = """
SELECT set_config('lock_timeout', $1::text, true), CASE WHEN current_setting('synchronous_commit') = 'off'
THEN set_config('synchronous_commit', 'on', true) END
"""
_MAY_CREATE = """
SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = COALESCE($1::text, current_schema()))
THEN has_schema_privilege(COALESCE($1::text, current_schema()), 'CREATE')
ELSE has_database_privilege(current_database(), 'CREATE') END
"""


class PostgresSession(SqlSession):
    """One connection to PostgreSQL.

    Args:
        dialect: Of PostgreSQL.
        address: Gives the URL for libpq; a function, since a traceback may show variables.
        lock_seconds: How long a statement waits for a lock.
    """

    def __init__(self, dialect: SqlDialect, address: Callable[[], str], lock_seconds: int) -> None:
        self._dialect = dialect
        self._lock_timeout = f"{lock_seconds}s"
        # Held while the connection must not be interrupted: during COMMIT and close.
        self._uninterruptible = threading.Lock()
        # Transactions are begun and committed by name; a pool could not keep prepared statements.
        self._connection = psycopg.connect(
            address(), autocommit=True, prepare_threshold=None, cursor_factory=psycopg.RawCursor
        )

    def begin(self) -> None:
        self.execute("BEGIN")
        self.query(_SETTINGS, self._lock_timeout)

    def commit(self) -> None:
        with self._uninterruptible:
            if self._connection.info.transaction_status != TransactionStatus.INTRANS:
                raise psycopg.OperationalError("the transaction ended before its time")
            self.execute("COMMIT")

    def close(self) -> None:
        with self._uninterruptible:
            self._connection.close()

    def interrupt(self) -> None:
        # Never a COMMIT: one that waits for a standby succeeds without it when it is cancelled.
        if self._uninterruptible.acquire(blocking=False):
            try:
                with suppress(psycopg.Error):
                    self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
            finally:
                self._uninterruptible.release()

    def execute(self, sql: str, *parameters: Any) -> None:
        self._connection.execute(sql.encode(), parameters or None)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql.encode(), parameters or None).fetchall()

    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        columns = self._dialect.column_list(batches.schema.names)
        statement = f"COPY {self._dialect.qualified(table)} ({columns}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copying:
            copying.write(postgres_copy.HEAD)
            for batch in batches:
                for part in postgres_copy.parts(batch):
                    copying.write(memoryview(postgres_copy.rows(part)))
            copying.write(postgres_copy.END)

    def lock_columns(self, table: TableName) -> None:
        self.execute(f"LOCK TABLE {self._dialect.qualified(table)} IN ROW EXCLUSIVE MODE")

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(self.query(_COLUMNS, table.schema, table.name))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query(_TABLES, schema)]

    def has_schema(self, schema: str) -> bool:
        return bool(self.query("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", schema))

    def version(self) -> str:
        return f"PostgreSQL {self.query('SHOW server_version')[0][0]}"

    def may_create(self, schema: str | None) -> bool:
        return bool(self.query(_MAY_CREATE, schema)[0][0])
