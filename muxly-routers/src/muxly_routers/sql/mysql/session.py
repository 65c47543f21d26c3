"""A connection to MySQL or MariaDB through PyMySQL, with bulk loads by LOAD DATA LOCAL or INSERT."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pymysql
from attrs import frozen
from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS
from sqlalchemy import URL

import muxly
from muxly_routers.sql.dialect import SessionTimeouts, SqlSession
from muxly_routers.sql.mysql import load as mysql_load
from muxly_routers.sql.mysql import types
from muxly_routers.sql.names import TableName

__all__ = ["connected"]

# Whatever the server's settings: nothing is cut, rounded or replaced silently, a 0 stays a 0, and times are in UTC.
_MODE = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"
_ZONE = "+00:00"

_URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ssl_ca": str,
    "ssl_cert": str,
    "ssl_key": str,
    "ssl_disabled": lambda text: text.lower() in ("1", "true"),
    "ssl_verify_cert": lambda text: text.lower() in ("1", "true"),
    "ssl_verify_identity": lambda text: text.lower() in ("1", "true"),
    "unix_socket": str,
    "read_timeout": int,
    "write_timeout": int,
    "charset": lambda text: "utf8mb4",
}
_TIMEOUTS = ("read_timeout", "write_timeout")
_OLDEST_VERSIONS = {"MariaDB": (10, 6), "MySQL": (8, 0, 17)}

_PACKET_BYTES = 1024 * 1024
_DUPLICATE_INDEX = 1061
_TOO_LONG = 1153
# A statement that is not safe for a replica, deprecated syntax: these do not touch values.
_HARMLESS_WARNINGS = {1287, 1592, 1681, 3719}

_SETTINGS = "SELECT VERSION(), @@max_allowed_packet, @@local_infile, @@lower_case_table_names = 1"
_COLUMNS = """
SELECT c.column_name, c.column_type, {is_json} FROM information_schema.columns AS c
WHERE c.table_schema = COALESCE(%s, DATABASE()) AND c.table_name = %s ORDER BY c.ordinal_position
"""
# In MariaDB, json is a longtext with a check.
_IS_JSON = """
EXISTS (SELECT 1 FROM information_schema.check_constraints AS k WHERE k.constraint_schema = c.table_schema
AND k.table_name = c.table_name AND k.check_clause = CONCAT('json_valid(`', c.column_name, '`)'))
"""
_SCHEMA = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = COALESCE(%s, DATABASE())"
_ENGINE = """
SELECT t.engine, e.transactions FROM information_schema.tables AS t JOIN information_schema.engines AS e
ON e.engine = t.engine WHERE t.table_schema = COALESCE(%s, DATABASE()) AND t.table_name = %s
"""


@frozen
class MysqlServer:
    """Product, version and limits of a server."""

    product: str
    version: str
    packet_bytes: int
    local_infile: bool


def connected(url: URL, timeouts: SessionTimeouts) -> MysqlSession:
    """Connect.

    Raises:
        ConfigurationError: The URL has an option that is not known.
        RouteError: The server is too old.
    """
    session = MysqlSession(_connection(url, timeouts))
    try:
        session.read_server_settings()
    except BaseException:
        session.close()
        raise
    return session


def _connection(url: URL, timeouts: SessionTimeouts) -> Connection[Any]:
    options = _options(url.query)
    limits = {name: options.pop(name, None) for name in _TIMEOUTS}
    options |= dict.fromkeys(_TIMEOUTS, timeouts.connect_seconds)
    locks = f"innodb_lock_wait_timeout = {timeouts.lock_seconds}, lock_wait_timeout = {timeouts.lock_seconds}"
    connection: Connection[Any] = pymysql.connect(
        host=url.host or "localhost",
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        database=url.database,
        charset="utf8mb4",
        sql_mode=_MODE,
        init_command=f"SET time_zone = '{_ZONE}', {locks}",
        connect_timeout=timeouts.connect_seconds,
        autocommit=True,
        # Announces the ability, while local_infile stays off: PyMySQL itself answers no request for a file.
        client_flag=CLIENT.LOCAL_FILES,
        program_name="muxly",
        **options,
    )
    # Until here a server that accepts a connection and then stays silent is given up soon; a load may take its time.
    wire: Any = connection
    wire._read_timeout, wire._write_timeout = (limits[name] for name in _TIMEOUTS)
    return connection


def _options(query: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := [name for name in query if name not in _URL_OPTIONS]:
        known = ", ".join(sorted(_URL_OPTIONS))
        raise muxly.ConfigurationError(f"the URL has the option {unknown[0]!r}; there are {known}", path=("url",))
    try:
        return {name: _URL_OPTIONS[name](value) for name, value in query.items() if name != "charset"}
    except (TypeError, ValueError) as error:
        limits = " and ".join(_TIMEOUTS)
        raise muxly.ConfigurationError(f"{limits} in the URL are whole seconds", path=("url",)) from error


class MysqlSession(SqlSession):
    """One connection to MySQL or MariaDB."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._server = MysqlServer("", "", 0, local_infile=False)
        self._checked: set[TableName] = set()
        _detect_dead_peers(connection)

    def read_server_settings(self) -> None:
        """Find out product, version and limits of the server.

        Raises:
            RouteError: It is too old.
        """
        version, packet_bytes, local_infile, lowercase_tables = self.query(_SETTINGS)[0]
        self.lowercase_tables = bool(lowercase_tables)
        product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
        self._server = MysqlServer(product, version.partition("-")[0], packet_bytes, local_infile=bool(local_infile))
        numbers = tuple(int(part) for part in re.findall(r"\d+", self._server.version)[:3])
        if numbers < _OLDEST_VERSIONS[product]:
            oldest = " and ".join(f"{name} {'.'.join(map(str, least))}" for name, least in _OLDEST_VERSIONS.items())
            raise muxly.RouteError(f"{self.version()} is too old; the oldest that work are {oldest}")

    def begin(self) -> None:
        self._connection.begin()

    def commit(self) -> None:
        wire: Any = self._connection
        if not wire.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            raise pymysql.InternalError(1305, "the transaction ended before its time")
        self._connection.commit()

    def close(self) -> None:
        with contextlib.suppress(pymysql.Error):
            self._connection.close()

    def interrupt(self) -> None:
        wire: Any = self._connection
        with contextlib.suppress(OSError, TypeError):  # it is closed, or was never open
            # Not the method of a TLS socket, which would drop the TLS state under the thread that reads. If a COMMIT
            # is cut off, the repeat finds its id or does not, as after any other lost answer.
            socket.socket.shutdown(wire._sock, socket.SHUT_RDWR)

    def execute(self, sql: str, *parameters: Any) -> None:
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql, parameters)
            except pymysql.Error as error:
                if error.args[0] != _DUPLICATE_INDEX:
                    raise

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def columns(self, table: TableName) -> dict[str, str]:
        statement = _COLUMNS.format(is_json=_IS_JSON if self._server.product == "MariaDB" else "0")
        rows = self.query(statement, table.schema, table.name)
        return {name: "json" if is_json else types.reflected(type) for name, type, is_json in rows}

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query(_TABLES, schema)]

    def has_schema(self, schema: str) -> bool:
        return bool(self.query(_SCHEMA, schema))

    def version(self) -> str:
        return f"{self._server.product} {self._server.version}"

    def notices(self) -> list[muxly.Notice]:
        if self._server.local_infile:
            return []
        return [
            muxly.Notice(
                "local_infile_off",
                f"the setting local_infile of this {self._server.product} is off, so records go in by INSERT, which "
                "takes the server twice the time; SET GLOBAL local_infile = ON allows the faster way",
                level="info",
            )
        ]

    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        if not temporary:
            self._expect_transactions(table)
        sent, accepted = self._load_lines(table, batches) if self._server.local_infile else self._insert(table, batches)
        if sent != accepted:
            raise pymysql.DataError(1262, f"{sent} records were sent, and {accepted} were taken")

    def _expect_transactions(self, table: TableName) -> None:
        """Refuse a table of an engine without transactions, which would keep half a delivery."""
        if table in self._checked:
            return
        for engine, transactions in self.query(_ENGINE, table.schema, table.name):
            if transactions != "YES":
                raise pymysql.NotSupportedError(
                    1286, f"the table {table.name} has the engine {engine}, which has no transactions, as InnoDB has"
                )
        self._checked.add(table)

    def _load_lines(self, table: TableName, batches: pa.RecordBatchReader) -> tuple[int, int]:
        sent = 0

        def packets() -> Iterator[memoryview]:
            nonlocal sent
            size = min(_PACKET_BYTES, self._server.packet_bytes // 2)
            for part in _parts(batches):
                sent += part.num_rows
                lines = memoryview(mysql_load.lines(part))
                yield from (lines[start : start + size] for start in range(0, len(lines), size))

        names = [_quoted(name) for name in batches.schema.names]
        statement = mysql_load.statement(_qualified(table), names, batches.schema)
        result = mysql_load.load(self._connection, statement, packets())
        self._refuse_warnings(result.warnings)
        return sent, result.records

    def _insert(self, table: TableName, batches: pa.RecordBatchReader) -> tuple[int, int]:
        sent = accepted = 0
        head = f"INSERT INTO {_qualified(table)} ({', '.join(map(_quoted, batches.schema.names))}) VALUES ".encode()
        for part in _parts(batches):
            for statement in self._statements(head, part):
                with self._connection.cursor() as cursor:
                    accepted += cursor.execute(statement)
                    warnings = cursor.warning_count
                self._refuse_warnings(warnings)
            sent += part.num_rows
        return sent, accepted

    def _statements(self, head: bytes, part: pa.RecordBatch) -> Iterator[bytes]:
        """The part as statements that are short enough for the server."""
        rows = mysql_load.rows(part)
        if len(head) + rows.size < min(self._server.packet_bytes, 4 * _PACKET_BYTES) or part.num_rows == 1:
            if len(head) + rows.size >= self._server.packet_bytes:
                raise pymysql.DataError(_TOO_LONG, "a record is longer than max_allowed_packet")
            yield head + rows
            return
        half = part.num_rows // 2
        yield from self._statements(head, part.slice(0, half))
        yield from self._statements(head, part.slice(half))

    def _refuse_warnings(self, count: int) -> None:
        """Make errors of warnings: LOAD DATA LOCAL cuts, replaces and skips what does not fit, and only warns."""
        if not count:
            return
        shown = self.query("SHOW WARNINGS")
        for _level, number, message in shown:
            if number not in _HARMLESS_WARNINGS:
                raise pymysql.DataError(number, message)
        if count > len(shown):
            raise pymysql.DataError(1262, f"the server gave {count} warnings and showed {len(shown)} of them")


def _parts(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    return (part for batch in batches for part in mysql_load.parts(batch))


def _detect_dead_peers(connection: Connection[Any]) -> None:
    """Let the system close a connection on which nothing arrives any more; PyMySQL alone would wait forever."""
    wire: Any = connection
    sock: socket.socket = wire._sock
    if sock.family == socket.AF_UNIX:
        return
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _qualified(table: TableName) -> str:
    return ".".join(_quoted(name) for name in (table.schema, table.name) if name is not None)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
