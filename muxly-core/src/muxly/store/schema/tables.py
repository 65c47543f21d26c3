"""The tables of the store, the same for SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
)

_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=_CONVENTION)


class UtcTime(TypeDecorator[datetime]):
    """A moment: ``timestamptz`` on PostgreSQL, fixed-width UTC text elsewhere, so that text order is time order."""

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """The column's type in that database."""
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == "postgresql" else String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """A moment as the database keeps it; one without time zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without time zone does not belong into the store")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """A moment in UTC."""
        if value is None or isinstance(value, datetime):
            return value if value is None else value.astimezone(UTC)
        return datetime.fromisoformat(value)


def _name() -> String:
    return String(63)


streams = Table(
    "streams",
    metadata,
    Column("pipeline", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("parent", Text),
    Column("cursor", Text),
    Column("boundary", Text),
    Column("definition", Text),
    Column("head", BigInteger, nullable=False, server_default="0"),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("sealed_generation", BigInteger, nullable=False, server_default="0"),
    Column("updated_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("pipeline", "stream"),
    comment="How far each stream has been read: the cursor, the last position, the last full read.",
)

schema_versions = Table(
    "schema_versions",
    metadata,
    Column("pipeline", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("schema", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("pipeline", "stream", "version"),
    comment="Arrow schemas of a stream; each is as wide as the one before, or wider.",
)

plans = Table(
    "plans",
    metadata,
    Column("id", String(26), nullable=False),
    Column("pipeline", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("options_digest", String(64), nullable=False),
    Column("cursor", Text),
    Column("schema", LargeBinary),
    Column("state", String(9), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("boundaries", Text),
    PrimaryKeyConstraint("id"),
    CheckConstraint("state IN ('open', 'done', 'discarded')", name="state"),
    Index(None, "pipeline", "stream", "state"),
    comment="How a stream is read: stored before its first read, finished before the next plan.",
)

partitions = Table(
    "partitions",
    metadata,
    Column("plan", String(26), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("partition", Text, nullable=False),
    Column("start", Text),
    Column("cursor", Text),
    Column("payload", Text),
    Column("records", BigInteger),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("boundaries", Text),
    PrimaryKeyConstraint("plan", "ordinal"),
    ForeignKeyConstraint(["plan"], ["plans.id"], ondelete="CASCADE"),
    comment="The parts of a plan, each with the cursor that its last sealed group reached.",
)

segments = Table(
    "segments",
    metadata,
    Column("pipeline", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("group", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("file", Text),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("plan", String(26), nullable=False),
    Column("partition", Text, nullable=False),
    Column("cursor_before", Text),
    Column("cursor_after", Text),
    Column("replaces", Text),
    Column("state", String(11), nullable=False),
    Column("sealed_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("pipeline", "stream", "position"),
    CheckConstraint("state IN ('sealed', 'quarantined', 'dropped')", name="state"),
    Index(None, "pipeline", "file"),
    Index(None, "pipeline", "key", unique=True),
    comment="The log of each stream: where its records lie in the spool, in the order of positions.",
)

route_positions = Table(
    "route_positions",
    metadata,
    Column("pipeline", _name(), nullable=False),
    Column("route", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False, server_default="0"),
    Column("begun", BigInteger, nullable=False, server_default="0"),
    Column("completed", BigInteger, nullable=False, server_default="0"),
    Column("rejected", BigInteger, nullable=False, server_default="0"),
    Column("state", Text),
    Column("detached_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("pipeline", "route", "stream"),
    comment="How far each route has come in each stream; all up to position, and offset records of the next.",
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(26), nullable=False),
    Column("pipeline", _name(), nullable=False),
    Column("route", _name(), nullable=False),
    Column("stream", Text, nullable=False),
    Column("first_position", BigInteger, nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("last_offset", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("options", Text, nullable=False),
    Column("letters", Text),
    Column("marked", BigInteger, nullable=False, server_default="0"),
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("id"),
    Index(None, "pipeline", "route", "stream", "first_position", "first_offset"),
    comment="What is being delivered under one id: stored before the first attempt, gone when acknowledged.",
)

SUMS = (
    "pending_before",
    "sealed",
    "replayed",
    "delivered",
    "rejected",
    "filtered",
    "dropped",
    "superseded",
    "quarantined",
)
"""What an account counts, in records."""

accounts = Table(
    "accounts",
    metadata,
    Column("run", String(26), nullable=False),
    Column("pipeline", _name(), nullable=False),
    Column("route", String(63), nullable=False),
    Column("stream", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in SUMS),
    PrimaryKeyConstraint("run", "route", "stream"),
    Index(None, "pipeline", "run"),
    comment="Sums in records, by run, route and stream; route '' is reading.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", String(26), nullable=False),
    Column("pipeline", _name(), nullable=False),
    Column("route", String(63), nullable=False),
    Column("stream", Text, nullable=False),
    Column("run", String(26), nullable=False),
    Column("position", BigInteger),
    Column("number", BigInteger),
    Column("place", Text),
    Column("reason", Text, nullable=False),
    Column("record", LargeBinary),
    Column("format", String(5), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("replayed_at", UtcTime),
    PrimaryKeyConstraint("id"),
    CheckConstraint("format IN ('arrow', 'json', 'text', 'bytes', 'none')", name="format"),
    Index(None, "pipeline", "route", "stream"),
    comment="Records that could not be read (route '') or delivered, with the reason.",
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(26), nullable=False),
    Column("pipeline", _name(), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("state", String(9), nullable=False),
    Column("params", Text),
    Column("result", Text),
    Column("error", Text),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    PrimaryKeyConstraint("id"),
    CheckConstraint("state IN ('running', 'succeeded', 'partial', 'failed', 'stopped', 'crashed')", name="state"),
    Index(None, "pipeline", "started_at"),
    comment="Every execution, and every command that wrote the ledger.",
)

leases = Table(
    "leases",
    metadata,
    Column("pipeline", _name(), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("holder", Text),
    Column("spool", Text),
    Column("expires_at", UtcTime),
    PrimaryKeyConstraint("pipeline"),
    comment="Who may write a pipeline's ledger and spool; the token grows with each holder.",
)
