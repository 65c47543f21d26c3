# noqa: INP001 - Alembic loads this file by its path.
"""The first tables: what was read and sealed, how far each route has come, runs and leases."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    _accounts()
    _dead_letters()
    _deliveries()
    _leases()
    _plans()
    _route_positions()
    _runs()
    _schema_versions()
    _segments()
    _streams()
    _partitions()


def _utc_time() -> sa.types.TypeEngine[Any]:
    return sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("route", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("pending_before", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sealed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("replayed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delivered", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("filtered", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("superseded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("quarantined", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("run", "route", "stream", name="pk_accounts"),
        comment="Sums in records, by run, route and stream; route '' is reading.",
    )
    op.create_index("ix_accounts_pipeline_run", "accounts", ["pipeline", "run"])


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("route", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.Column("number", sa.BigInteger()),
        sa.Column("place", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("record", sa.LargeBinary()),
        sa.Column("format", sa.String(length=5), nullable=False),
        sa.Column("created_at", _utc_time(), nullable=False),
        sa.Column("replayed_at", _utc_time()),
        sa.CheckConstraint("format IN ('arrow', 'json', 'text', 'bytes', 'none')", name="ck_dead_letters_format"),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        comment="Records that could not be read (route '') or delivered, with the reason.",
    )
    op.create_index("ix_dead_letters_pipeline_route_stream", "dead_letters", ["pipeline", "route", "stream"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("route", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.Column("first_offset", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("last_offset", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("letters", sa.Text()),
        sa.Column("marked", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", _utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        comment="What is being delivered under one id: stored before the first attempt, gone when acknowledged.",
    )
    op.create_index(
        "ix_deliveries_pipeline_route_stream_first_position_first_offset",
        "deliveries",
        ["pipeline", "route", "stream", "first_position", "first_offset"],
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text()),
        sa.Column("spool", sa.Text()),
        sa.Column("expires_at", _utc_time()),
        sa.PrimaryKeyConstraint("pipeline", name="pk_leases"),
        comment="Who may write a pipeline's ledger and spool; the token grows with each holder.",
    )


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("options_digest", sa.String(length=64), nullable=False),
        sa.Column("cursor", sa.Text()),
        sa.Column("boundary", sa.Text()),
        sa.Column("schema", sa.LargeBinary()),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("created_at", _utc_time(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'done', 'discarded')", name="ck_plans_state"),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
        comment="How a stream is read: stored before its first read, finished before the next plan.",
    )
    op.create_index("ix_plans_pipeline_stream_state", "plans", ["pipeline", "stream", "state"])


def _route_positions() -> None:
    op.create_table(
        "route_positions",
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("route", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("begun", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text()),
        sa.Column("detached_at", _utc_time()),
        sa.Column("created_at", _utc_time(), nullable=False),
        sa.Column("updated_at", _utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "route", "stream", name="pk_route_positions"),
        comment="How far each route has come in each stream; all up to position, and offset records of the next.",
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("params", sa.Text()),
        sa.Column("result", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("started_at", _utc_time(), nullable=False),
        sa.Column("finished_at", _utc_time()),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'partial', 'failed', 'stopped', 'crashed')", name="ck_runs_state"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        comment="Every execution, and every command that wrote the ledger.",
    )
    op.create_index("ix_runs_pipeline_started_at", "runs", ["pipeline", "started_at"])


def _schema_versions() -> None:
    op.create_table(
        "schema_versions",
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("schema", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "stream", "version", name="pk_schema_versions"),
        comment="Arrow schemas of a stream; each is as wide as the one before, or wider.",
    )


def _segments() -> None:
    op.create_table(
        "segments",
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("group", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.Text()),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.String(length=26), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("cursor_before", sa.Text()),
        sa.Column("cursor_after", sa.Text()),
        sa.Column("replaces", sa.Text()),
        sa.Column("state", sa.String(length=11), nullable=False),
        sa.Column("sealed_at", _utc_time(), nullable=False),
        sa.CheckConstraint("state IN ('sealed', 'quarantined', 'dropped')", name="ck_segments_state"),
        sa.PrimaryKeyConstraint("pipeline", "stream", "position", name="pk_segments"),
        comment="The log of each stream: where its records lie in the spool, in the order of positions.",
    )
    op.create_index("ix_segments_pipeline_file", "segments", ["pipeline", "file"])
    op.create_index("ix_segments_pipeline_key", "segments", ["pipeline", "key"], unique=True)


def _streams() -> None:
    op.create_table(
        "streams",
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text()),
        sa.Column("cursor", sa.Text()),
        sa.Column("boundary", sa.Text()),
        sa.Column("definition", sa.Text()),
        sa.Column("head", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sealed_generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated_at", _utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "stream", name="pk_streams"),
        comment="How far each stream has been read: the cursor, the last position, the last full read.",
    )


def _partitions() -> None:
    op.create_table(
        "partitions",
        sa.Column("plan", sa.String(length=26), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("start", sa.Text()),
        sa.Column("cursor", sa.Text()),
        sa.Column("payload", sa.Text()),
        sa.Column("records", sa.BigInteger()),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name="fk_partitions_plan", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan", "ordinal", name="pk_partitions"),
        comment="The parts of a plan, each with the cursor that its last sealed group reached.",
    )
