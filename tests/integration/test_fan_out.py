"""The fan-out example: six destinations from one reading, and what one of them that is away costs the others."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import tempfile
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from attrs import frozen

from tests.integration.fan_out import EXAMPLE, Project, Services
from tests.integration.snippets import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS = 2922
RAIN = "weather_precipitation_millimetres_total"
SERVICES = {"warehouse": "postgres", "archive": "s3", "metrics": "pushgateway", "hook": "webhook", "team": "slack"}
"""The service behind each route that has one."""

# A destination that is away is not worth a wait in a test.
ONCE = {f"routes__{route}__retry__attempts": 1 for route in ("lake", *SERVICES)}


@frozen
class Place:
    """A destination, looked at with a tool that is not Muxly's."""

    project: Project
    services: Services

    def lake(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self.project.out.glob("lake/**/*.parquet"))

    def warehouse(self) -> int:
        import psycopg

        with psycopg.connect(self.services.places["FAN_OUT_POSTGRES"]) as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT (location, date)) FROM weather").fetchone()
        assert found is not None
        assert found[0] == found[1]
        return int(found[0])

    def archive(self) -> int:
        from pyarrow import fs

        store = fs.S3FileSystem(
            access_key="muxly",
            secret_key="muxly-secret",
            endpoint_override=self.services.places["FAN_OUT_S3"].removeprefix("http://"),
            scheme="http",
            region="us-east-1",
        )
        found = store.get_file_info(fs.FileSelector("weather", recursive=True))
        paths = [one.path for one in found if one.path.endswith(".parquet")]
        return sum(pq.read_table(path, filesystem=store).num_rows for path in paths)

    def metrics(self) -> int:
        """Rain is added up; each record that a test adds has one millimetre."""
        with urllib.request.urlopen(f"{self.services.places['FAN_OUT_PUSHGATEWAY']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        fallen = sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{RAIN}{{"))
        with (EXAMPLE.with_name("quickstart") / "data" / "weather.csv").open() as source:
            at_first = sum(float(one["precipitation"]) for one in csv.DictReader(source))
        return RECORDS + round(fallen - at_first)

    def hook(self) -> int:
        bodies = [json.loads(path.read_bytes()) for path in self.services.folder.glob("webhook/*.json")]
        return sum(len(body) for body in bodies)

    def team(self) -> int:
        files = list(self.services.folder.glob("slack/*.csv"))
        return sum(len(list(csv.DictReader(path.read_text().splitlines()))) for path in files)

    def records(self) -> dict[str, int]:
        """How many records each of them has."""
        look: dict[str, Callable[[], int]] = {
            "archive": self.archive,
            "hook": self.hook,
            "lake": self.lake,
            "metrics": self.metrics,
            "team": self.team,
            "warehouse": self.warehouse,
        }
        return {route: one() for route, one in look.items()}


def ports_in_a_row(count: int) -> int:
    """The first of some ports that are all free now."""
    for first in range(21_000, 32_000, count):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    pytest.fail("no ports are free")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: under root PostgreSQL runs as another user, whom pytest's folders keep out."""
    made = Path(tempfile.mkdtemp(prefix="muxly-fan-out-"))
    yield made
    shutil.rmtree(made)


def processes(folder: Path) -> int:
    """How many processes work in a folder."""
    import psutil

    words = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    return sum(any(str(folder) in word for word in command) for command in words)


@pytest.fixture
def services(folder: Path) -> Iterator[Services]:
    """All of them; they end without a trace, also one that hangs and one that is away."""
    with Services(folder / "services", ports_in_a_row(5)) as started:
        yield started
        started.tell("freeze s3")
        started.tell("stop webhook")
        assert processes(folder) > 2
        assert started.end() == 0
        assert processes(folder) == 0


@pytest.fixture
def project(folder: Path, services: Services) -> Project:
    return Project(folder / "project", services.places)


class Lake:
    """The folder of the file router, which another program can take away."""

    def __init__(self, project: Project) -> None:
        self.path, self.away = project.out / "lake", project.out / "away"

    def stop(self) -> None:
        self.path.rename(self.away)
        self.path.write_text("a file stands where the folder was")

    def start(self) -> None:
        self.path.unlink()
        self.away.rename(self.path)


def freezer(route: str, services: Services) -> tuple[Callable[[], None], Callable[[], None]]:
    """What makes the destination of a route hang, and what wakes it; a folder cannot."""
    if route not in SERVICES:
        return (lambda: None), (lambda: None)
    return partial(services.tell, f"freeze {SERVICES[route]}"), partial(services.tell, f"thaw {SERVICES[route]}")


def switch(route: str, services: Services, lake: Lake) -> tuple[Callable[[], None], Callable[[], None]]:
    """What takes the destination of a route away, and what brings it back."""
    if route == "lake":
        return lake.stop, lake.start
    return partial(services.tell, f"stop {SERVICES[route]}"), partial(services.tell, f"start {SERVICES[route]}")


PATIENCE: dict[str, object] = {
    "routes__archive__router__timeout_seconds": 1,
    "routes__hook__router__read_seconds": 1,
    "routes__metrics__router__timeout_seconds": 1,
    "routes__team__router__timeout_seconds": 1,
    "routes__warehouse__router__connect_seconds": 1,
}
"""A second of silence is enough to tell that a destination hangs."""


def test_destinations_that_are_away_or_hang_delay_their_own_routes_only(services: Services, project: Project) -> None:
    """Two at a time, one of each kind and none twice in a row: the other four go on."""
    ran = project.run_command()
    routes = set(ran.result["routes"])
    assert (ran.code, ran.read()) == (0, RECORDS), ran.errors
    assert ran.delivered() == dict.fromkeys(routes, RECORDS)
    place, lake = Place(project, services), Lake(project)
    assert place.records() == dict.fromkeys(routes, RECORDS)

    total, behind, order = RECORDS, dict[str, int](), ["lake", *SERVICES]
    for number, (away, hanging) in enumerate(zip(order, order[3:] + order[:3], strict=True), start=1):
        unplug, plug = switch(away, services, lake)
        freeze, thaw = freezer(hanging, services)
        unplug()
        freeze()
        added = project.add_records(number, number)
        ran = project.run(**ONCE, **PATIENCE)
        thaw()
        plug()
        # What comes later can only come out of the spool.
        added.unlink()
        total += number
        late = {away, hanging} if hanging in SERVICES else {away}
        assert ran.code == 3, ran.errors
        assert ran.read() == number
        assert ran.pending() == dict.fromkeys(late, number)
        assert all(ran.route(route)["error"] for route in late)
        caught_up = {name: number + behind.get(name, 0) for name in routes - late}
        assert {name: count for name, count in ran.delivered().items() if name not in late} == caught_up
        assert all(one["balanced"] for one in ran.result["routes"].values())
        behind = ran.pending()

    ran = project.run_command()
    assert (ran.code, ran.read(), ran.pending()) == (0, 0, {}), ran.errors
    assert {name: count for name, count in ran.delivered().items() if count} == behind
    assert place.records() == dict.fromkeys(routes, total)


def test_port_that_is_taken_is_named(folder: Path) -> None:
    first = ports_in_a_row(5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 3))
        taken.listen()
        with pytest.raises(AssertionError, match=f"port {first + 3} for webhook cannot be had .*--first-port"):
            Services(folder, first).__enter__()


def test_small_pushgateway_stands_in_where_none_is_installed(folder: Path) -> None:
    with Services(folder / "services", ports_in_a_row(5), without=("postgres", "s3"), path=str(folder)) as services:
        root = services.places["FAN_OUT_PUSHGATEWAY"]
        for method, body in (("PUT", b"a 1\n"), ("PUT", b"a 2\n")):
            request = urllib.request.Request(f"{root}/metrics/job/muxly", body, method=method)
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        with urllib.request.urlopen(f"{root}/metrics") as answer:
            assert answer.read() == b"a 2\n"


def test_program_asks_for_the_packages_that_tests_have() -> None:
    import tomli

    lines = (EXAMPLE / "start-services").read_text().split("# ///", 2)[1].splitlines()[1:]
    script: dict[str, Any] = tomli.loads("\n".join(line.removeprefix("#").strip() for line in lines))
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    tested = [one for one in project["dependency-groups"]["test"] if isinstance(one, str)]
    assert set(script["dependencies"]) <= set(tested)
    pins = script["tool"]["uv"]["constraint-dependencies"]
    assert set(pins) <= set(project["tool"]["uv"]["constraint-dependencies"])
    asked = {re.split(r"[<>=]", one)[0] for one in script["dependencies"]}
    assert asked <= {pin.partition("==")[0] for pin in pins}


def test_example_needs_no_copy_of_the_records() -> None:
    connector = yaml.safe_load((EXAMPLE / "muxly.yaml").read_text())["pipelines"]["weather"]["connector"]
    assert (EXAMPLE / connector["path"]).parent.resolve() == EXAMPLE.with_name("quickstart") / "data"
