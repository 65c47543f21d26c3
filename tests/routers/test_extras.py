"""A router whose library is missing says what to install."""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

import muxly
from muxly_routers._failures import needs
from muxly_routers.s3 import S3
from muxly_routers.sql import Sql

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_library_names_the_extra_that_brings_it() -> None:
    message = 'needs the package no_such_sdk, which is not installed; run: pip install "muxly-routers[s3]"'
    with pytest.raises(muxly.PluginError, match=re.escape(message)), needs("s3"):
        import no_such_sdk  # type: ignore[import-not-found]  # noqa: F401


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), needs("s3"):
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("extra", "module", "database", "url"),
    [
        ("sql", "sqlalchemy", None, "sqlite:///{}/new.db"),
        ("sql", "adbc_driver_sqlite", "sqlite", "sqlite:///{}/new.db"),
        ("duckdb", "duckdb", None, "duckdb:///{}/new.duckdb"),
        ("postgres", "psycopg", "postgres", "postgresql://me@127.0.0.1:1/shop"),
        ("mysql", "pymysql", "mysql", "mysql://me@127.0.0.1:1/shop"),
    ],
)
def test_check_of_a_database_names_the_extra_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, module: str, database: str | None, url: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if database is not None:
        # What has been loaded by another test would not ask for the driver again.
        folder = importlib.import_module(f"muxly_routers.sql.{database}")
        monkeypatch.delitem(sys.modules, f"{folder.__name__}.session", raising=False)
        monkeypatch.delattr(folder, "session", raising=False)
    router, run = Sql(url=muxly.Secret(url.format(tmp_path))), muxly.Run("01A", "shop")
    router.open(run)
    with pytest.raises(muxly.PluginError, match=re.escape(f'pip install "muxly-routers[{extra}]"')):
        list(router.check())
    router.close()
    run.end()
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_bucket_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    router, run = S3(bucket="lake", region="eu-central-1"), muxly.Run("01A", "shop")
    router.open(run)
    (notice,) = router.check()
    assert notice.level == "error"
    assert 'pip install "muxly-routers[s3]"' in notice.message
    router.close()
    run.end()
