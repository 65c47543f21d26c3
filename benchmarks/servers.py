"""The servers that the routers' works deliver to: those of the fan-out example."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from attrs import frozen

sys.path.append(str(Path(__file__).absolute().parents[1] / "docs" / "examples" / "fan-out"))

from destinations.programs import BUCKET, HOST, PASSWORD, USER, Postgres, Program, SeaweedFS, free_ports
from mariadb import MariaDb

__all__ = ["BUCKET", "PASSWORD", "USER", "Servers", "serving"]


@frozen(kw_only=True)
class Servers:
    """Where they are, and what they used."""

    postgres: Postgres
    s3: SeaweedFS
    mariadb: MariaDb | None
    """None = it is not on this machine."""

    @property
    def postgres_url(self) -> str:
        """A URL that every tool here takes."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.postgres.port}/postgres"

    @property
    def s3_url(self) -> str:
        """The endpoint."""
        return f"http://{HOST}:{self.s3.port}"

    def empty_postgres(self) -> None:
        """Drop every schema that was made, and make a checkpoint, so that each time finds the same server."""
        import psycopg

        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
            ).fetchall()
            for (name,) in found:
                connection.execute(f'DROP SCHEMA "{name}" CASCADE')
            connection.execute("CREATE SCHEMA public")
            connection.execute("CHECKPOINT")

    def postgres_cpu_seconds(self) -> float:
        """User and system, of all its processes until now, those that have ended included."""
        return _cpu_seconds(self.postgres)

    def mariadb_cpu_seconds(self) -> float:
        """The same of MariaDB."""
        assert self.mariadb is not None
        return _cpu_seconds(self.mariadb)


def _cpu_seconds(program: Program) -> float:
    first, *others = program.processes()
    times = first.cpu_times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for one in others:
        try:
            own = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += own.user + own.system
    return float(seconds)


@contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """All of them, on ports that are free."""
    postgres_port, s3_port, mariadb_port = free_ports(3)
    mariadb = MariaDb(folder, mariadb_port) if MariaDb.installed() else None
    servers = Servers(postgres=Postgres(folder, postgres_port), s3=SeaweedFS(folder, s3_port), mariadb=mariadb)
    programs = [one for one in (servers.postgres, servers.s3, mariadb) if one is not None]
    with ExitStack() as ending:
        for one in programs:
            ending.callback(one.stop)
            one.start()
        for one in programs:
            one.wait()
        yield servers
