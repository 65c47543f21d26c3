# noqa: INP001 - Alembic loads this folder by its path; it is no package, so nothing imports it by chance.
"""Alembic's entry: runs the due migrations on the connection, and in the transaction, that it is given."""

from alembic import context

context.configure(**context.config.attributes["muxly"])
context.run_migrations()
