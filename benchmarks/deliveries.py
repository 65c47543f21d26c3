"""The works of the routers: databases, object storage, metrics, and a fan-out that ends in a database too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from records import write
from servers import BUCKET, PASSWORD, USER, Servers
from works import CONTENDERS, Contender, Tools, Work

S3_BYTES = 128 * 1024 * 1024
SERIES = 100_000


def works(tools: Tools, servers: Servers, count: int, times: int) -> list[Work]:
    """All of them, the smallest first."""
    return [
        small(tools, servers, times * 3),
        series(tools, times),
        s3(tools, servers, times * 2),
        databases(tools, servers, count, times),
        postgres(tools, servers, count, times),
        upsert(tools, servers, count, times),
        fan_out(tools, servers, count, times),
    ]


def postgres(tools: Tools, servers: Servers, count: int, times: int) -> Work:
    """Arrow to PostgreSQL: the client's CPU seconds, and the server's."""
    contenders = [_muxly(tools, "Muxly", "postgres", tools.arrow(count), {"warehouse": _sql(servers.postgres_url)})]
    if tools.dlt is not None:
        script, source = str(CONTENDERS / "binary_copy.py"), str(tools.arrow(count))
        copy = [tools.dlt_program("python"), script, source, servers.postgres_url]
        contenders.append(Contender(name="ADBC's COPY by hand", folder=tools.folder / "copy", commands=[copy]))
        contenders.append(_dlt(tools, "dlt, ADBC", count, [("parquet", servers.postgres_url)]))
    on_server = tuple(_on_postgres(one, servers) for one in contenders)
    return Work(
        key="postgres", title=f"{count:,} records x 12 columns, Arrow to PostgreSQL", contenders=on_server, times=times
    )


def upsert(tools: Tools, servers: Servers, count: int, times: int) -> Work:
    """A tenth as many records, half of them known, into a table that has all; upserted and appended."""
    contenders = tuple(
        Contender(
            name=mode,
            folder=tools.folder / f"upsert-{mode}",
            commands=[[tools.program("muxly"), "run"]],
            files={"muxly.yaml": _keyed(mode, servers)},
            continues=True,
            before=partial(_add_records, tools, tools.folder / f"upsert-{mode}", count),
            server_cpu_seconds=servers.postgres_cpu_seconds,
        )
        for mode in ("append", "upsert")
    )
    title = f"{count // 10:,} more records into {count:,} in PostgreSQL, half of them known"
    return Work(key="upsert", title=title, contenders=contenders, times=times, before=servers.empty_postgres)


def _keyed(mode: str, servers: Servers) -> str:
    connector = {"type": "file", "path": "in", "stream": "orders", "primary_key": ["id"]}
    routes = {"warehouse": {"router": _sql(servers.postgres_url) | {"table": f"{{stream}}_{mode}"}, "mode": mode}}
    return _configuration(connector, routes)


def _add_records(tools: Tools, folder: Path, count: int, number: int | None) -> None:
    """Put the next file where a run looks: all records first, then each time half known ones."""
    (folder / "in").mkdir(exist_ok=True)
    if number is None:
        shutil.copy(tools.arrow(count), folder / "in" / "all.arrow")
        return
    new = count // 20
    start = count + (number - 1) * new
    write(start + 2 * new, folder / "in" / f"{number}.arrow", start)


def databases(tools: Tools, servers: Servers, count: int, times: int) -> Work:
    """Arrow to the databases beside PostgreSQL."""
    urls = {"SQLite": "sqlite:///orders.db", "DuckDB": "duckdb:///orders.duckdb"}
    contenders = [
        _muxly(tools, f"Muxly to {name}", name.lower(), tools.arrow(count), {"local": _sql(url)})
        for name, url in urls.items()
    ]
    if servers.mariadb is not None:
        router = _sql(servers.mariadb.url)
        muxly = _muxly(tools, "Muxly to MariaDB", "mariadb", tools.arrow(count), {"warehouse": router})
        contenders.append(_on_mariadb(muxly, servers))
    title = f"{count:,} records x 12 columns, Arrow to other databases"
    return Work(key="databases", title=title, contenders=tuple(contenders), times=times)


def _on_mariadb(contender: Contender, servers: Servers) -> Contender:
    mariadb = servers.mariadb
    assert mariadb is not None
    return evolve(contender, before=lambda number: mariadb.empty(), server_cpu_seconds=servers.mariadb_cpu_seconds)


def fan_out(tools: Tools, servers: Servers, count: int, times: int) -> Work:
    """Arrow, read once, to Parquet, JSON Lines and PostgreSQL."""
    routes = {name: {"type": "file", "path": f"out/{name}", "format": name} for name in ("parquet", "jsonl")}
    routes["warehouse"] = _sql(servers.postgres_url)
    contenders = [_muxly(tools, "Muxly, one run", "three", tools.arrow(count), routes)]
    if tools.dlt is not None:
        runs = [("parquet", None), ("jsonl", None), ("parquet", servers.postgres_url)]
        contenders.append(_dlt(tools, "dlt, three runs", count, runs))
    on_server = tuple(_on_postgres(one, servers) for one in contenders)
    title = f"{count:,} records x 12 columns, Arrow to Parquet + JSON Lines + PostgreSQL"
    return Work(key="three", title=title, contenders=on_server, times=times)


def small(tools: Tools, servers: Servers, times: int) -> Work:
    """100 records, as a whole process, with its imports, its store and its tables."""
    contenders = [
        _muxly(tools, "Muxly to SQLite", "small-sqlite", tools.arrow(100), {"local": _sql("sqlite:///orders.db")}),
        _on_postgres(
            _muxly(
                tools,
                "Muxly to PostgreSQL",
                "small-postgres",
                tools.arrow(100),
                {"warehouse": _sql(servers.postgres_url)},
            ),
            servers,
        ),
    ]
    if tools.dlt is not None:
        dlt = _dlt(tools, "dlt to PostgreSQL, ADBC", 100, [("parquet", servers.postgres_url)])
        contenders.append(_on_postgres(dlt, servers))
    return Work(key="small", title="100 records, a whole process", contenders=tuple(contenders), times=times)


def s3(tools: Tools, servers: Servers, times: int) -> Work:
    """The same bytes to the same bucket; only the upload itself is clocked."""
    given = [servers.s3_url, BUCKET, USER, PASSWORD, str(S3_BYTES)]
    contenders = tuple(
        Contender(
            name=name,
            folder=tools.folder / "s3",
            commands=[[tools.program("python"), str(CONTENDERS / "s3_upload.py"), way, *given]],
        )
        for name, way in (("Muxly", "muxly"), ("boto3, upload_file", "boto3"))
    )
    return Work(key="s3", title=f"{S3_BYTES >> 20} MiB to S3", contenders=contenders, times=times)


def series(tools: Tools, times: int) -> Work:
    """Arrow columns to Prometheus' text; only the rendering is clocked."""
    script = str(CONTENDERS / "series.py")
    contenders = tuple(
        Contender(
            name=name, folder=tools.folder / "series", commands=[[tools.program("python"), script, way, str(SERIES)]]
        )
        for name, way in (("Muxly", "muxly"), ("prometheus-client", "client"))
    )
    return Work(key="series", title=f"{SERIES:,} Prometheus series", contenders=contenders, times=times)


def _sql(url: str) -> dict[str, Any]:
    return {"type": "sql", "url": url}


def _muxly(tools: Tools, name: str, folder: str, source: Path, routers: Mapping[str, Mapping[str, Any]]) -> Contender:
    connector = {"type": "file", "path": str(source), "stream": "orders"}
    routes = {route: {"router": dict(router)} for route, router in routers.items()}
    return Contender(
        name=name,
        folder=tools.folder / f"muxly-{folder}",
        commands=[[tools.program("muxly"), "run"]],
        files={"muxly.yaml": _configuration(connector, routes)},
    )


def _configuration(connector: Mapping[str, Any], routes: Mapping[str, Any]) -> str:
    pipeline = {"connector": dict(connector), "routes": dict(routes)}
    return json.dumps({"version": 1, "pipelines": {"orders": pipeline}}, indent=1)


def _dlt(tools: Tools, name: str, count: int, runs: list[tuple[str, str | None]]) -> Contender:
    start = [tools.dlt_program("python"), str(CONTENDERS / "dlt_fan_out.py"), str(tools.arrow(count))]
    commands = [
        [*start, str(number), file_format, *(() if url is None else ("--postgres", url))]
        for number, (file_format, url) in enumerate(runs)
    ]
    return Contender(name=name, folder=tools.folder / f"dlt-routers-{len(runs)}-{count}", commands=commands)


def _on_postgres(contender: Contender, servers: Servers) -> Contender:
    """The same, on an empty database, with what the server used."""

    def before(number: int | None) -> None:
        servers.empty_postgres()

    return evolve(contender, before=before, server_cpu_seconds=servers.postgres_cpu_seconds)
