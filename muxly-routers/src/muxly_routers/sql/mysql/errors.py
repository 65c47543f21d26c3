"""What errors of MySQL and MariaDB mean, by their numbers.

The numbers and their names: MySQL Reference Manual, "Server Error Message Reference" and "Client Error
Message Reference"; MariaDB Knowledge Base, "MariaDB Error Codes".
"""

from __future__ import annotations

import re
from typing import Any

from muxly_routers.sql.quoting import Fault, FaultKind

__all__ = ["fault"]

# Told in our own words: the server's hold values of records, or say less than we know.
_VALUES = {
    1048: "a value is missing in a column that is never null",
    1062: "a record is there already under a unique key",
    1153: "a record is longer than the server's max_allowed_packet",
    1216: "a record does not fit a foreign key",
    1264: "a value is out of the range of its column",
    1265: "a value does not fit its column and would be cut",
    1292: "a value has no form in the type of its column",
    1300: "a text holds bytes that are no text",
    1364: "a column that is never null and has no default is not among the records",
    1366: "a value has no form in the type of its column",
    1367: "a value has no form in the type of its column",
    1406: "a value does not fit its column and would be cut",
    1416: "a value is no geometry",
    1452: "a record does not fit a foreign key",
    1526: "no partition of the table takes a record",
    3140: "a text is no JSON",
    3819: "a record does not fit a CHECK constraint",
    4025: "a record does not fit a CHECK constraint",
}
_RETRY = {
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
_WHY = re.compile(r"\((.+)\)$")


def fault(error: Exception) -> Fault | None:
    """What an error of PyMySQL means; None = it is not one of the server's or of the connection."""
    number, text = _parts(error)
    if number is None:
        return _without_number(error)
    if said := _VALUES.get(number):
        found = _COLUMN.search(text)
        return Fault("value", f"{said} (error {number})", found[1] if found else None)
    if said := _RETRY.get(number):
        # Without the address, which in a guarded run is one that was looked up.
        why = _WHY.search(text) if number in _UNREACHED else None
        return Fault("retry", f"{said}{f': {why[1]}' if why else ''} (error {number})")
    if number == _SYNTAX:
        return Fault("wrong", f"the server does not understand a statement (error {number})")
    return Fault(_kind(number), f"{text} (error {number})")


def _without_number(error: Exception) -> Fault | None:
    """What PyMySQL says in words only."""
    if "Packet sequence number wrong" in str(error):
        # What the server says when it gives up in the middle of a load comes out of turn.
        return Fault("retry", "the server broke off while it was sent records")
    if isinstance(error, RuntimeError) and "LOAD_LOCAL" in str(error):
        return Fault(
            "wrong", "the server asked for a file of this machine, and was given none; is it the right server?"
        )
    if isinstance(error, RuntimeError) and "cryptography" in str(error):
        return Fault("wrong", 'the server\'s way to log in needs a package; run: pip install "muxly-routers[mysql]"')
    return None


def _kind(number: int) -> FaultKind:
    if number in _STALE:
        return "stale"
    if number in _TABLE:
        return "table"
    return "denied" if number in _DENIED else "wrong"


def _parts(error: Exception) -> tuple[int | None, str]:
    parts: tuple[Any, ...] = error.args
    if len(parts) >= 2 and isinstance(parts[0], int):
        # PyMySQL says (0, "") of a connection that is closed already.
        return parts[0] or 2006, str(parts[1])
    return None, ""
