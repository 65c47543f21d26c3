"""MariaDB from Debian's package, where it is installed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).absolute().parents[1] / "docs" / "examples" / "fan-out"))

from destinations.programs import HOST, PASSWORD, USER, Program

__all__ = ["MariaDb"]


class MariaDb(Program):
    """With the settings it comes with, but bulk loads allowed."""

    name = "mariadb"

    @staticmethod
    def installed() -> bool:
        """Whether its programs are on this machine."""
        return all(shutil.which(name) for name in ("mariadbd", "mariadb-install-db", "mariadb"))

    @property
    def url(self) -> str:
        """Of the database for the records."""
        return f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{self.port}/records"

    def command(self) -> list[str]:
        given = [
            f"--datadir={self.folder}",
            f"--port={self.port}",
            f"--socket={self._socket}",
            f"--tmpdir={self.folder}",
        ]
        allowed = [f"--bind-address={HOST}", "--skip-name-resolve", "--local-infile=ON"]
        return ["mariadbd", "--no-defaults", *given, *allowed, *self._owner()]

    def ready(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True

    def prepare(self) -> str | None:
        super().prepare()
        command = ["mariadb-install-db", "--no-defaults", f"--datadir={self.folder}", *self._owner()]
        more = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([*command, *more], capture_output=True, check=True)
        return None

    def empty(self) -> None:
        """Drop all records, and let the user in."""
        statements = (
            "DROP DATABASE IF EXISTS records; CREATE DATABASE records; "
            f"CREATE USER IF NOT EXISTS {USER}@'{HOST}' IDENTIFIED BY '{PASSWORD}'; "
            f"GRANT ALL ON records.* TO {USER}@'{HOST}'"
        )
        command = ["mariadb", "--no-defaults", f"--socket={self._socket}", "--user=root", "--execute", statements]
        subprocess.run(command, check=True)

    @property
    def _socket(self) -> Path:
        return self.folder / "socket"

    def _owner(self) -> list[str]:
        return [f"--user={getpass.getuser()}"] if os.geteuid() == 0 else []
