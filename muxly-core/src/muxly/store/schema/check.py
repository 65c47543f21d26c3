"""Looking whether a store is whole and has the tables it should, without changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxly.store.database.engine import open_engine, reading
from muxly.store.database.errors import place
from muxly.store.schema import revision
from muxly.store.schema.migrate import refuse_newer
from muxly.store.schema.tables import metadata
from muxly.store.schema.upgrade import stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

__all__ = ["check"]

_SHOWN = 10


def check(url: str) -> tuple[str, ...]:
    """What is wrong with the store at `url`, a sentence each; nothing if all is well.

    It reads the whole of a SQLite file, so it takes long for a large one.

    Raises:
        StoreError: The store is too damaged to be opened, or newer than this code.
        RetryableError: The database is busy or cannot be reached.
    """
    engine = open_engine(url)
    try:
        return tuple(_problems(engine))
    finally:
        engine.dispose()


def _problems(engine: Engine) -> Iterator[str]:
    found = stored(engine)
    if found is None:
        yield f"there is no store at {place(engine)} yet; the first run creates it, or `muxly db upgrade`"
        return
    refuse_newer(engine, found)
    with reading(engine) as connection:
        damages = tuple(_damages(connection)) if engine.dialect.name == "sqlite" else ()
        yield from damages
        if damages:
            return
        if found.number != revision.HEAD:
            yield (
                f"the store has revision {found.number} and this Muxly works with {revision.HEAD}; "
                "run `muxly db upgrade`"
            )
        else:
            yield from _differences(connection)


def _damages(connection: Connection) -> Iterator[str]:
    lines = connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})").scalars().all()
    if lines != ["ok"]:
        yield from (f"the file is damaged: {' '.join(line.split())}; restore a backup" for line in lines)
        return
    for table, number, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN):
        yield f"row {number} of the table {table} belongs to a row of {parent} that is gone; restore a backup"


def _differences(connection: Connection) -> Iterator[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {
        "version_table": revision.VERSION_TABLE,
        "compare_server_default": True,
        "include_object": _is_ours,
    }
    context = MigrationContext.configure(connection, opts=options)
    for difference in compare_metadata(context, metadata):
        yield f"the tables are not those that Muxly made: {difference!r}; restore a backup"


def _is_ours(_thing: object, _name: str | None, kind: str, reflected: bool, wanted: Any) -> bool:
    """Others' tables may lie in the same PostgreSQL database."""
    return not (kind == "table" and reflected and wanted is None)
