"""Which revision of the tables a store has, and which Muxly brought it there."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import attrs
from sqlalchemy import Column, MetaData, String, Table, insert, select, update

from muxly.store.database.engine import now
from muxly.store.schema.tables import UtcTime

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["HEAD", "VERSION_TABLE", "Revision", "stamp", "stored_revision"]

HEAD = "0002"
"""The revision that this code works with; a test holds it to the newest migration."""

VERSION_TABLE = "store_revision"

# Alembic reads and writes the first column and leaves the others alone. The table stands
# outside the ledger's metadata, for Alembic compares that with the database.
_revision = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), primary_key=True),
    Column("muxly", String(32)),
    Column("upgraded_at", UtcTime),
)


@attrs.frozen
class Revision:
    """A store's revision.

    Args:
        number: Four digits; a later revision has a greater number.
        muxly: The version of Muxly that created or upgraded the store.
        upgraded_at: When it did, in UTC.
    """

    number: str
    muxly: str | None = attrs.field(default=None, kw_only=True)
    upgraded_at: datetime | None = attrs.field(default=None, kw_only=True)


def stored_revision(connection: Connection) -> Revision | None:
    """The revision that the store says it has; None where there are no tables yet."""
    if not connection.dialect.has_table(connection, VERSION_TABLE):
        return None
    found = connection.execute(select(_revision)).first()
    return None if found is None else Revision(found[0], muxly=found[1], upgraded_at=found[2])


def stamp(connection: Connection, number: str) -> Revision:
    """Record that the store has this revision now, and that this Muxly brought it there."""
    from importlib.metadata import version

    revision = Revision(number, muxly=version("muxly-core"), upgraded_at=now(connection))
    values = {
        "version_num": revision.number,
        "muxly": revision.muxly,
        "upgraded_at": revision.upgraded_at,
    }
    if connection.dialect.has_table(connection, VERSION_TABLE):
        connection.execute(update(_revision).values(values))
    else:
        _revision.create(connection, checkfirst=False)
        connection.execute(insert(_revision).values(values))
    return revision
