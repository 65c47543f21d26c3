"""PostgreSQL: each way to lose a connection, and what the server is asked for."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from select import select as select_ready
from typing import Self

import pytest
from sqlalchemy import Engine, event, insert, make_url, select, text, update

from muxly.errors import RetryableError, StoreError
from muxly.store.database.engine import open_engine, reading, transaction
from muxly.store.schema.tables import leases

_Open = Callable[[str], Engine]


def _add(engine: Engine, pipeline: str) -> None:
    with transaction(engine) as connection:
        connection.execute(insert(leases).values(pipeline=pipeline, token=0))


def _pipelines(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(select(leases.c.pipeline).order_by(leases.c.pipeline)))


def test_forms_of_url_mean_the_same(postgres_url: str) -> None:
    rest = postgres_url.partition("://")[2]
    for scheme in ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        engine = open_engine(f"{scheme}://{rest}")
        assert engine.dialect.driver == "psycopg"
        with reading(engine) as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()


def test_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r'pip install "muxly-core\[postgres\]"'):
        open_engine("postgresql://localhost/x")


def test_commits_survive_a_crash_even_if_the_server_is_set_otherwise(postgres_url: str) -> None:
    name = make_url(postgres_url).database
    engine = open_engine(postgres_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    engine.dispose()
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    engine.dispose()


def test_connection_lost_in_a_transaction_is_worth_another_try(opened: _Open, postgres_url: str) -> None:
    engine = opened(postgres_url)

    def lose() -> None:
        with transaction(engine) as connection:
            _kill(engine, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            connection.execute(insert(leases).values(pipeline="a", token=1))

    with pytest.raises(RetryableError, match="the server ended the connection"):
        lose()
    _add(engine, "b")
    assert _pipelines(engine) == ["b"]


def test_connection_lost_before_commit_is_worth_another_try(postgres_url: str, opened: _Open) -> None:
    engine = opened(postgres_url)

    def lose() -> None:
        with transaction(engine) as connection:
            connection.execute(insert(leases).values(pipeline="a", token=1))
            number = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            event.listen(engine, "commit", lambda _: _kill(engine, number), once=True)

    with pytest.raises(RetryableError, match="the server ended the connection"):
        lose()
    assert _pipelines(engine) == []


def test_commit_whose_answer_is_lost_is_looked_up(postgres_url: str, opened: _Open, tmp_path: Path) -> None:
    with _Proxy(postgres_url, tmp_path) as proxy:
        engine = opened(proxy.url)
        with transaction(engine) as connection:
            connection.execute(insert(leases).values(pipeline="a", token=0))
            proxy.swallow = b"COMMIT"
        assert proxy.swallowed == 1
        assert _pipelines(engine) == ["a"]


def test_commit_that_cannot_be_looked_up_is_called_unknown(
    postgres_url: str, opened: _Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxly.store.database.postgres._FATE_SECONDS", 0.5)
    with _Proxy(postgres_url, tmp_path) as proxy:
        engine = opened(proxy.url)
        proxy.and_close = True

        def lose() -> None:
            with transaction(engine) as connection:
                connection.execute(insert(leases).values(pipeline="a", token=0))
                proxy.swallow = b"COMMIT"

        with pytest.raises(
            StoreError, match=r"lost during COMMIT .* unknown whether the changes were stored; run again"
        ):
            lose()


class _Proxy:
    """A socket between client and server, which can lose the answer to a message that the server got."""

    def __init__(self, url: str, folder: Path) -> None:
        self.swallow: bytes | None = None
        self.swallowed = 0
        self.and_close = False
        server = make_url(url)
        self._server = f"{server.query['host']}/.s.PGSQL.5432"
        # The path of a socket holds at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="muxly-")
        self.url = server.set(query={"host": self._folder.name}).render_as_string(hide_password=False)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{self._folder.name}/.s.PGSQL.5432")
        self._listening.listen()
        self._open = [self._listening]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            _hang_up(one)
        for thread in self._threads:
            thread.join(10)
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            thread = threading.Thread(target=self._pass_on, args=(client, server))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while client.fileno() >= 0 and server.fileno() >= 0:
            try:
                found = select_ready([client, server], [], [])[0]
            except (OSError, ValueError):  # the test is over, and has closed them
                return
            for ready in found:
                try:
                    said = ready.recv(65536)
                except OSError:
                    said = b""
                other = server if ready is client else client
                if not said:
                    _hang_up(client)
                    _hang_up(server)
                    return
                other.sendall(said)
                if ready is client and self.swallow and self.swallow in said:
                    server.recv(65536)
                    self.swallow = None
                    self.swallowed += 1
                    if self.and_close:
                        _hang_up(self._listening)
                    _hang_up(client)
                    _hang_up(server)
                    return


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def test_connection_lost_while_idle_is_not_noticed(opened: _Open, postgres_url: str) -> None:
    engine = opened(postgres_url)
    with reading(engine) as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    other = open_engine(postgres_url)
    _kill(other, pid)
    _add(engine, "a")
    engine.dispose()
    other.dispose()


def test_deadlock_is_worth_another_try(opened: _Open, postgres_url: str) -> None:
    engine = opened(postgres_url)
    _add(engine, "a")
    _add(engine, "b")
    both = threading.Barrier(2)

    def lock(first: str, second: str) -> None:
        with transaction(engine) as connection:
            connection.execute(update(leases).where(leases.c.pipeline == first).values(token=1))
            both.wait(20)
            connection.execute(update(leases).where(leases.c.pipeline == second).values(token=2))

    with ThreadPoolExecutor(2) as pool:
        tries = [pool.submit(lock, "a", "b"), pool.submit(lock, "b", "a")]
        errors = [error for error in (one.exception() for one in tries) if error is not None]
    engine.dispose()
    (error,) = errors
    with pytest.raises(RetryableError, match="the transaction conflicted with another one"):
        raise error


def test_that_does_not_answer_is_worth_another_try() -> None:
    engine = open_engine("postgresql://u:secret@127.0.0.1:1/x")
    with pytest.raises(RetryableError, match=r"postgresql://127\.0\.0\.1:1/x cannot be reached") as caught:
        _pipelines(engine)
    assert "secret" not in str(caught.value)


def test_database_that_is_not_there_is_named(postgres_url: str) -> None:
    url = make_url(postgres_url).set(database="no_such").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match="create the database, or correct its name"):
        _pipelines(open_engine(url))


def test_standby_is_worth_another_try(opened: _Open, postgres_url: str) -> None:
    engine = opened(postgres_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE {make_url(postgres_url).database} SET default_transaction_read_only = on"
        )
    engine.dispose()
    with pytest.raises(RetryableError, match="is read-only"):
        _add(engine, "a")


def test_transaction_of_a_stopped_process_is_ended_by_the_server(postgres_url: str) -> None:
    engine = open_engine(postgres_url)

    def stand_still() -> None:
        with transaction(engine) as connection:
            assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "30s"
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            time.sleep(0.5)
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(RetryableError, match="idle for too long"):
        stand_still()
    engine.dispose()


def _kill(engine: Engine, pid: int) -> None:
    with reading(engine) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
