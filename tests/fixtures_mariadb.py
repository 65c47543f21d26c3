"""A real MariaDB, which starts at the first use, one for each worker of a test run; an empty database for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pymysql
import pytest
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60
_PASSWORD = "correct-horse-battery"

# A test needs no power cut, no history and little memory.
_SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--performance-schema=OFF",
    "--local-infile=ON",
    "--character-set-server=latin1",  # an old default, so that nothing leans on the server's
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-log-file-size=32M",
    "--innodb-buffer-pool-size=128M",
    "--innodb-lock-wait-timeout=2",
)


@frozen
class MariaDb:
    """A running server.

    Args:
        port: Where it listens on 127.0.0.1.
        socket: Its Unix socket, through which root comes in without a password.
    """

    port: int
    socket: Path

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as root; the rows of the last one."""
        with contextlib.closing(pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)) as root:
            cursor = root.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def client(self, statement: str, database: str) -> str:
        """What the command line client shows of a statement, as any other program would see it."""
        command = ["mariadb", "--no-defaults", "-uroot", f"--socket={self.socket}", "--default-character-set=utf8mb4"]
        done = subprocess.run([*command, "-NBe", statement, database], capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def url(self, database: str) -> str:
        """The URL of a database, for the user of the tests."""
        return f"mysql+pymysql://muxly:{_PASSWORD}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDb]:
    """A server of this worker's own."""
    missing = [name for name in ("mariadbd", "mariadb-install-db", "mariadb") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; run: apt-get install mariadb-server")
    with tempfile.TemporaryDirectory(prefix="muxly-mariadb-", ignore_cleanup_errors=True) as folder:
        yield from _serving(Path(folder))


@pytest.fixture
def mariadb_database(mariadb_server: MariaDb) -> Iterator[str]:
    """The name of an empty database, dropped after the test."""
    name = f"muxly_{uuid4().hex}"
    mariadb_server.run(f"CREATE DATABASE {name}")
    yield name
    mariadb_server.run(f"DROP DATABASE {name}")


@pytest.fixture
def mariadb_url(mariadb_server: MariaDb, mariadb_database: str) -> str:
    """The URL of an empty database, dropped after the test."""
    return mariadb_server.url(mariadb_database)


def _serving(folder: Path) -> Iterator[MariaDb]:
    data = folder / "data"
    owner = ["--user=root"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", *owner, *_SETTINGS]
    with (folder / "install.log").open("wb") as log:
        more = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([*install, *more], stdout=log, stderr=log, check=True)
    server = MariaDb(_free_port(), folder / "socket")
    command = ["mariadbd", "--no-defaults", f"--datadir={data}", *owner, *_SETTINGS, f"--port={server.port}"]
    own = [f"--socket={server.socket}", f"--pid-file={folder / 'pid'}", f"--tmpdir={folder}"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *own], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait_for(server, process, folder / "server.log")
        server.run(
            f"CREATE USER muxly@'127.0.0.1' IDENTIFIED BY '{_PASSWORD}'",
            # The rights of a user who owns some databases, and no others.
            r"GRANT ALL ON `muxly\_%`.* TO muxly@'127.0.0.1'",
        )
        yield server
    finally:
        process.kill()  # nothing in it is of use to anybody
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_for(server: MariaDb, process: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > patience:
                pytest.fail(f"MariaDB does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        else:
            return
