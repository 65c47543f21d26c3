"""The dialect of MySQL and MariaDB: their SQL, and their errors by number.

The numbers and their names: MySQL Reference Manual, "Server Error Message Reference" and "Client Error
Message Reference"; MariaDB Knowledge Base, "MariaDB Error Codes".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import URL

import muxly
from muxly_routers._failures import needs
from muxly_routers.sql.dialect import (
    SEQUENCE,
    Column,
    ColumnType,
    Merge,
    SessionTimeouts,
    SqlDialect,
    SqlSession,
)
from muxly_routers.sql.errors import DatabaseFault, FaultKind
from muxly_routers.sql.mysql import types
from muxly_routers.sql.names import TableName

__all__ = ["MysqlDialect"]

_DRIVERS = ("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql")

# Each server reads its own comment and skips the other's. This is the collation that keeps any two different texts
# apart, even where they differ in spaces at the end only (from MySQL 8.0.17 and MariaDB 10.2).
_TABLE_OPTIONS = (
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    " /*M!100202 COLLATE=utf8mb4_nopad_bin */ /*!80017 COLLATE=utf8mb4_0900_bin */"
)

# A table is a file, in whose name a character other than an ASCII letter or digit takes five bytes.
_FILE_NAME_BYTES, _SPECIAL_BYTES = 250, 5

# The server's own messages of these show values of records, or say less than the number does.
_VALUE_MESSAGES = {
    1048: "a value is missing in a column that is never null",
    1062: "a record with the same unique key exists already",
    1153: "a record is longer than the server's max_allowed_packet",
    1216: "a record does not fit a foreign key",
    1264: "a value is out of the range of its column",
    1265: "a value does not fit its column and would be cut",
    1292: "a value has no form in the type of its column",
    1300: "a text holds bytes that are not valid text",
    1364: "a column that is never null and has no default is not among the records",
    1366: "a value has no form in the type of its column",
    1367: "a value has no form in the type of its column",
    1406: "a value does not fit its column and would be cut",
    1416: "a value is not a geometry",
    1452: "a record does not fit a foreign key",
    1526: "no partition of the table takes a record",
    3140: "a text is not JSON",
    3819: "a record does not fit a CHECK constraint",
    4025: "a record does not fit a CHECK constraint",
}
_RETRY_MESSAGES = {
    1020: "a row was changed by another transaction; the delivery is tried again",
    1021: "the server's disk is full",
    1028: "the server's disk is full",
    1040: "the server has too many connections",
    1041: "the server is out of memory",
    1053: "the server is shutting down",
    1114: "the table, or the server's disk, is full",
    1158: "the connection broke",
    1159: "the connection broke",
    1160: "the connection broke",
    1161: "the connection broke",
    1180: "the transaction could not be committed",
    1203: "the user has too many connections",
    1205: "another transaction holds a lock for too long",
    1213: "a deadlock with another transaction; the delivery is tried again",
    1226: "the user has used up a limit of the server",
    1290: "the server is read-only",
    1317: "the statement was interrupted",
    1412: "the table was changed in the meantime",
    1614: "a deadlock with another transaction; the delivery is tried again",
    1637: "the server has too many transactions",
    1792: "the server is read-only",
    1836: "the server is read-only",
    1927: "the connection was ended by the server",
    1969: "the statement took longer than the server allows",
    2002: "the server cannot be reached",
    2003: "the server cannot be reached",
    2006: "the connection broke",
    2013: "the connection broke",
    2055: "the connection broke",
    3024: "the statement took longer than the server allows",
    3572: "another transaction holds a lock",
    4031: "the connection was ended by the server",
}
_UNREACHED = frozenset({2002, 2003})
_STALE = frozenset({1008, 1050, 1054, 1060, 1091, 1146})
_DENIED = frozenset(
    {1044, 1045, 1095, 1130, 1142, 1143, 1227, 1251, 1370, 1524, 1698, 1820, 1862, 2059, 3118, 3159, 4151}
)
# Keys that are too long or of text without a length, too many columns, a view, an engine, foreign keys.
_TABLE = frozenset({1069, 1071, 1117, 1118, 1170, 1286, 1288, 1347, 1471, 1830, 1832, 1833, 1846})
_SYNTAX = 1064

# ... column 'name' at row 1 | ... column `base`.`table`.`name` at row 1 | Column 'name' cannot be null
_COLUMN = re.compile(r"column (?:`[^`]*`\.`[^`]*`\.)?[`'](.+?)[`'](?: at row \d+| cannot be null|$)", re.IGNORECASE)

# Can't connect to MySQL server on 'host' ([Errno 111] Connection refused)
_REASON = re.compile(r"\((.+)\)$")


class MysqlDialect(SqlDialect):
    """SQL, types and errors of MySQL and MariaDB."""

    name = "mysql"
    longest_name = 64
    in_bytes = False
    transactional = False

    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        if url.drivername not in _DRIVERS:
            raise muxly.ConfigurationError(
                f"{url.drivername} is not used here; write mysql+pymysql://user:password@host/database", path=("url",)
            )
        with needs("mysql"):
            from muxly_routers.sql.mysql import session

        return session.connected(url, timeouts)

    def fault(self, error: Exception) -> DatabaseFault | None:
        return _fault(error)

    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        return types.column_type(arrow_type, key=key)

    def widened(self, existing: str, wanted: str) -> str | None:
        return types.widened(existing, wanted)

    def loads_into(self, existing: str, wanted: str) -> bool:
        # Everything is loaded as text, which the server makes into what the column is, or refuses.
        return self.widened(existing, wanted) == existing

    def length(self, name: str, *, table: bool = False) -> int:
        if not table:
            return len(name)
        size = sum(
            1 if character.isascii() and (character.isalnum() or character == "_") else _SPECIAL_BYTES
            for character in name
        )
        return max(len(name), -(-size * self.longest_name // _FILE_NAME_BYTES))

    def allows_character(self, character: str) -> bool:
        return character <= "\uffff" and super().allows_character(character)

    def folded(self, name: str, *, table: bool = False) -> str:
        # The server folds to lower case by a table of its own, in which the dot of İ is lost.
        return unicodedata.normalize("NFC", name.casefold().replace("\u0307", ""))

    def quoted(self, name: str) -> str:
        # Every statement runs through PyMySQL's formatting, which takes a percent sign doubled.
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    def parameter(self, number: int) -> str:
        return "%s"

    def null_safe_equals(self, left: str, right: str) -> str:
        return f"{left} <=> {right}"

    def cast(self, expression: str, type: str) -> str:
        # An assignment converts, and under the session's strict mode it refuses what does not fit.
        return expression

    def collated(self, expression: str, type: str) -> str:
        if types.is_text(type):
            return f"CAST(CONVERT({expression} USING utf8mb4) AS BINARY)"
        return expression

    def create_table(
        self, table: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, temporary: bool = False
    ) -> str:
        return super().create_table(table, columns, key, temporary=temporary) + _TABLE_OPTIONS

    def drop_table(self, table: TableName, *, temporary: bool = False) -> str:
        # Without the word TEMPORARY it would commit the transaction.
        return f"DROP {self.temporary if temporary else ''}TABLE IF EXISTS {self.qualified(table)}"

    def change_type(self, table: TableName, column: Column) -> list[str]:
        return [f"ALTER TABLE {self.qualified(table)} MODIFY COLUMN {self.quoted(column.name)} {column.type}"]

    def rename_table(self, table: TableName, name: str) -> str:
        # An unqualified name would be taken for one in the connection's own database.
        return f"RENAME TABLE {self.qualified(table)} TO {self.qualified(TableName(table.schema, name))}"

    def exchange(self, new: TableName, old: TableName, aside: TableName) -> list[str]:
        target = self.qualified(old)
        return [f"RENAME TABLE {target} TO {self.qualified(aside)}, {self.qualified(new)} TO {target}"]

    def create_index(self, name: str, table: TableName, columns: Sequence[str], *, unique: bool = False) -> str:
        # MySQL has no IF NOT EXISTS here; the session ignores the error about an existing one.
        word = "UNIQUE INDEX" if unique else "INDEX"
        return f"CREATE {word} {self.quoted(name)} ON {self.qualified(table)} ({self.column_list(columns)})"

    def delete_matching(self, target: TableName, values: TableName, columns: Sequence[Column], *, nulls: bool) -> str:
        condition = self._matching(columns, "t", "v", nulls=nulls)
        return f"DELETE t FROM {self.qualified(target)} AS t JOIN {self.qualified(values)} AS v ON {condition}"

    def merge(self, merge: Merge) -> list[str]:
        """Find the newest staged record of each key, update existing rows, then insert the missing ones.

        ON DUPLICATE KEY UPDATE into the table itself would be fewer statements, but it takes any unique
        index for the key, so it would change another record where a table has a second one. Here it only
        finds the newest, in a staging table with no other unique index.
        """
        newest = TableName(None, f"{merge.stage.name}_newest")
        columns, names = [*merge.columns, Column(SEQUENCE, "bigint")], merge.names
        keys = " AND ".join(f"t.{self.quoted(name)} = s.{self.quoted(name)}" for name in merge.key)
        changes = ", ".join(
            f"t.{self.quoted(name)} = {self.merged_value(merge, name, 's', 't')}"
            for name in names
            if name not in merge.key
        )
        target, source = f"{self.qualified(merge.target)} AS t", f"{self.qualified(newest)} AS s"
        return [
            self.create_table(newest, columns, merge.key, temporary=True),
            self._keep_newest(merge, newest, names),
            f"UPDATE {target} JOIN {source} ON {keys} SET {changes} WHERE {self.is_newer(merge, 's', 't')}",
            self._add_missing(merge, names, f"{source} LEFT JOIN {target} ON {keys}"),
            self.drop_table(newest, temporary=True),
        ]

    def _keep_newest(self, merge: Merge, newest: TableName, names: Sequence[str]) -> str:
        # MySQL evaluates assignments from left to right, and each sees the values of those before it. So the columns
        # of the condition come last, the sequence number before the cursor: after the sequence number is replaced,
        # the condition is still true, since it compares with >=.
        compared = [SEQUENCE, *([] if merge.cursor is None else [merge.cursor])]
        assigned = [*(name for name in names if name not in compared and name not in merge.key), *compared]
        kept, later = f"{self.qualified(newest)}.", self._is_later(merge, f"{self.qualified(newest)}.")
        changes = ", ".join(
            f"{kept}{name} = IF({later}, VALUES({name}), {kept}{name})" for name in map(self.quoted, assigned)
        )
        listed, stage = self.column_list(names), self.qualified(merge.stage)
        inserting = f"INSERT INTO {self.qualified(newest)} ({listed}) SELECT {listed} FROM {stage}"
        return f"{inserting} ON DUPLICATE KEY UPDATE {changes}"

    def _is_later(self, merge: Merge, kept: str) -> str:
        """A condition: the staged record is newer than the one of its key that is kept so far."""
        later = f"VALUES({self.quoted(SEQUENCE)}) >= {kept}{self.quoted(SEQUENCE)}"
        if merge.cursor is None:
            return later
        name, type = self.quoted(merge.cursor), merge.type_of(merge.cursor)
        return self.wins(self.collated(f"VALUES({name})", type), self.collated(f"{kept}{name}", type), later)

    def _add_missing(self, merge: Merge, names: Sequence[str], joined: str) -> str:
        target, missing = self.qualified(merge.target), f"t.{self.quoted(merge.key[0])} IS NULL"
        selected = f"SELECT {self.column_list(names, 's.')} FROM {joined} WHERE {missing}"
        return f"INSERT INTO {target} ({self.column_list(names)}) {selected}"


def _fault(error: Exception) -> DatabaseFault | None:
    """The meaning of an error of PyMySQL; None = it is not one of the server or of the connection."""
    number, text = _number_and_text(error)
    if number is None:
        return _without_number(error)
    if meaning := _VALUE_MESSAGES.get(number):
        column = _COLUMN.search(text)
        return DatabaseFault("value", f"{meaning} (error {number})", column[1] if column else None)
    if meaning := _RETRY_MESSAGES.get(number):
        # The reason without the address, which in a guarded run is one that was looked up.
        reason = _REASON.search(text) if number in _UNREACHED else None
        return DatabaseFault("retry", f"{meaning}{f': {reason[1]}' if reason else ''} (error {number})")
    if number == _SYNTAX:
        return DatabaseFault("wrong", f"the server does not understand a statement (error {number})")
    return DatabaseFault(_kind(number), f"{text} (error {number})")


def _without_number(error: Exception) -> DatabaseFault | None:
    """The meaning of an error that PyMySQL gives no number."""
    if "Packet sequence number wrong" in str(error):
        # A server that gives up in the middle of a load sends its error before it is its turn.
        return DatabaseFault("retry", "the server broke off while it was sent records")
    if isinstance(error, RuntimeError) and "LOAD_LOCAL" in str(error):
        return DatabaseFault(
            "wrong", "the server asked for a file of this machine, and was given none; is it the right server?"
        )
    if isinstance(error, RuntimeError) and "cryptography" in str(error):
        return DatabaseFault(
            "wrong", 'the server\'s way to log in needs a package; run: pip install "muxly-routers[mysql]"'
        )
    return None


def _kind(number: int) -> FaultKind:
    if number in _STALE:
        return "stale"
    if number in _TABLE:
        return "table"
    return "denied" if number in _DENIED else "wrong"


def _number_and_text(error: Exception) -> tuple[int | None, str]:
    parts: tuple[Any, ...] = error.args
    if len(parts) >= 2 and isinstance(parts[0], int):
        # PyMySQL raises (0, "") for a connection that is closed already.
        return parts[0] or 2006, str(parts[1])
    return None, ""
