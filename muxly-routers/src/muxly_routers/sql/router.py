"""The router ``sql``: tables of a SQL database.

Each delivery is one transaction: its records, and the delivery's id, digest and receipt in
``_muxly_deliveries``. A repeat finds its id there and is answered as the first time. PostgreSQL,
SQLite, MySQL, MariaDB and DuckDB are each written by the fastest way they have, any other database
through SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

import muxly
from muxly_routers._lazy_output import LazyOutputRouter

if TYPE_CHECKING:
    from muxly_routers.sql.output import SqlOutput

__all__ = ["Sql", "muxly_router"]

_DAY_SECONDS = 86_400.0


def _check_template(needed: str | None) -> Any:
    def check(instance: Any, attribute: Any, value: str | None) -> None:
        from muxly_routers.sql import names  # what no other router needs

        if value is not None and (problem := names.template_problem(value, needed)):
            raise ValueError(f"{attribute.name}: {problem}")

    return check


class Sql(LazyOutputRouter["SqlOutput"]):
    """Writes records to the tables of a SQL database, each delivery in one transaction."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "upsert", "overwrite", "replace"})
    promise: ClassVar[muxly.Promise] = "effectively_once"
    concurrency: ClassVar[int] = 4

    url: muxly.Secret = muxly.option(
        "Address of the database, as SQLAlchemy writes it: postgresql://user:password@host/database, "
        "sqlite:////absolute/path.db, mysql://..., duckdb:///..."
    )
    schema: str | None = muxly.option(
        "Schema of the tables, made of {stream}, {route} and {pipeline}; made if it is missing; default: the one "
        "that the connection looks in first.",
        default=None,
        validator=_check_template(None),
    )
    table: str = muxly.option(
        "Table of a stream, made of {stream}, {route} and {pipeline}.",
        default="{stream}",
        validator=_check_template("stream"),
    )
    deletes: Literal["soft", "hard"] = muxly.option(
        "What an upsert does with a record whose _deleted_at is set: soft marks the row, hard deletes it.",
        default="soft",
    )
    primary_keys: bool = muxly.option(
        "Whether tables of other modes than upsert get the stream's primary key too; a key that comes twice is "
        "then refused.",
        default=False,
    )
    indexes: dict[str, list[list[str]]] = muxly.option(
        "Indexes of new tables: by stream, the columns of each index.", factory=dict
    )
    fast_path: bool = muxly.option(
        "Whether the database's own bulk path is used, if there is one; else SQLAlchemy's inserts.", default=True
    )
    remember_seconds: float = muxly.option(
        "How long the ids of deliveries are kept, to recognise a repeat.",
        default=90 * _DAY_SECONDS,
        validator=attrs.validators.ge(_DAY_SECONDS),
    )
    connect_seconds: int = muxly.option(
        "How long to wait for a connection.", default=10, validator=attrs.validators.ge(1)
    )
    lock_seconds: int = muxly.option(
        "How long to wait for a lock that another program holds, before the delivery is tried again.",
        default=10,
        validator=attrs.validators.ge(1),
    )

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the database can be reached, and tables be made; reads only."""
        return self._opened().check()

    def _open_output(self) -> SqlOutput:
        # Loads pyarrow and SQLAlchemy, which a pipeline with another router does not need. The URL comes
        # first: parsing it says what to install where SQLAlchemy is missing.
        from muxly_routers.sql.urls import parse_url

        url = parse_url(self.url)
        from muxly_routers.sql.output import SqlOutput

        return SqlOutput(self, url, self._run)


@muxly.hookimpl
def muxly_router() -> type[Sql]:
    """The router of this module."""
    return Sql
