"""Fixtures of the tests of the router ``sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.routers.sql.targets import Target


@pytest.fixture(params=["postgres", "sqlite", "sqlalchemy", "mariadb", "duckdb"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """An empty database, once of each kind."""
    from tests.routers.sql.targets import target_of  # loads the drivers of all of them

    return target_of(request.param, request, tmp_path)
