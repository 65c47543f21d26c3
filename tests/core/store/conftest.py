"""Fixtures of the store's tests: what a later release of Muxly would be."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from muxly.store.schema import migrate
from tests.core.store.schema.upgrading import LATER, TODAY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NEXT = '''\
"""A later release changes a table that others refer to."""

import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{today}"


def upgrade() -> None:
    {body}
'''
# On SQLite a new constraint means a new table, into which the rows are copied.
RECREATE = """\
with op.batch_alter_table("plans") as table:
        table.add_column(sa.Column("added", sa.Integer(), nullable=False, server_default="7"))
        table.create_check_constraint("ck_plans_added", "added > 0")
"""


def _script(body: str) -> str:
    return _NEXT.format(body=body, today=TODAY, later=LATER)


@pytest.fixture
def later_scripts(tmp_path: Path) -> Path:
    """The migrations of a later release, whose newest revision is the next one."""
    folder = tmp_path / "later 100%"
    shutil.copytree(migrate.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "later.py").write_text(_script(RECREATE))
    return folder


@pytest.fixture
def later_release(later_scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call it to become that release."""

    def become(body: str = RECREATE) -> None:
        (later_scripts / "versions" / "later.py").write_text(_script(body))
        monkeypatch.setattr(migrate, "SCRIPTS", later_scripts)
        monkeypatch.setattr(migrate, "HEAD", LATER)

    return become
