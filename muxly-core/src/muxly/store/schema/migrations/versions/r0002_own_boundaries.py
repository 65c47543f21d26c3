# noqa: INP001 - Alembic loads this file by its path.
"""A partition that is resumed knows its own ties from those of others; attempts are not counted any more."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Keep a boundary for each partition, and in a plan also those of its stream's children."""
    # SQLite writes a table anew, so that it looks as if it had been created like that.
    written: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("partitions", recreate=written) as table:
        table.add_column(sa.Column("boundaries", sa.Text()))
    with op.batch_alter_table("plans", recreate=written) as table:
        # What it held was of the plan's own stream; a plan that is open now may repeat a tie once.
        table.drop_column("boundary")
        table.add_column(sa.Column("boundaries", sa.Text()))
    with op.batch_alter_table("deliveries", recreate=written) as table:
        table.drop_column("attempts")
