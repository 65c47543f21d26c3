"""A real Prometheus that receives remote write and scrapes us, a real Pushgateway, and promtool."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS = 60
_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-pushgateway": "prometheus-pushgateway",
}
_direct = build_opener(ProxyHandler({}))


@frozen
class Prometheus:
    """A running Prometheus.

    Args:
        port: Where it listens on 127.0.0.1.
        targets: Its list of targets; who puts a JSON file there is scraped.
    """

    port: int
    targets: Path

    @property
    def write_url(self) -> str:
        """Where remote write is taken."""
        return f"http://127.0.0.1:{self.port}/api/v1/write"

    def ask(self, path: str, **parameters: str) -> Any:
        """The data that the HTTP API answers with."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with _direct.open(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def samples(self, metric: str) -> list[tuple[dict[str, str], list[tuple[float, str]]]]:
        """Everything that is stored of a metric: label sets, each with times and values."""
        found = self.ask("query", query=f"{metric}[60y]", time=str(time.time() + 3600))["result"]
        return [(one["metric"], [(at, value) for at, value in one["values"]]) for one in found]

    def scrape(self, address: str, seconds: float = 30) -> None:
        """Let it scrape an address, and wait until it has; or raise what it says is wrong."""
        file = self.targets / f"{address.rpartition(':')[2]}.json"
        file.write_text(json.dumps([{"targets": [address]}]))
        until, found = time.monotonic() + seconds, "nothing"
        while time.monotonic() < until:
            for target in self.ask("targets", state="active")["activeTargets"]:
                if target["labels"]["instance"] == address:
                    found = target["lastError"] or target["health"]
            if found == "up":
                return
            threading.Event().wait(0.1)
        raise AssertionError(f"Prometheus has not scraped {address}: {found}")


@frozen
class Pushgateway:
    """A running Pushgateway.

    Args:
        port: Where it listens on 127.0.0.1.
    """

    port: int

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        with _direct.open(f"{self.url}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def wipe(self) -> None:
        """Forget everything."""
        from urllib.request import Request

        with _direct.open(Request(f"{self.url}/api/v1/admin/wipe", method="PUT"), timeout=20):
            pass


def _needed(program: str) -> str:
    """The program's path; without it, the test is skipped."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed; run: apt-get install {_PACKAGES[program]}")
    return found


@pytest.fixture(scope="session")
def prometheus_server() -> Iterator[Prometheus]:
    """A Prometheus of this worker's own."""
    with _prometheus() as server:
        yield server


@pytest.fixture(scope="class")
def lone_prometheus() -> Iterator[Prometheus]:
    """A Prometheus that no other test writes to, so that samples of any year are new to it."""
    with _prometheus() as server:
        yield server


@contextmanager
def _prometheus() -> Iterator[Prometheus]:
    program = _needed("prometheus")
    with tempfile.TemporaryDirectory(prefix="muxly-prometheus-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "targets").mkdir()
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            "scrape_configs:\n"
            "- job_name: muxly\n"
            "  honor_labels: true\n"
            "  file_sd_configs: [{files: [targets/*.json], refresh_interval: 1s}]\n"
        )
        server = Prometheus(_free_port(), folder / "targets")
        command = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{server.port}",
            "--web.enable-remote-write-receiver",
            "--storage.tsdb.retention.time=50y",
            "--log.level=warn",
        ]
        with _running(command, folder, f"http://127.0.0.1:{server.port}/-/ready"):
            yield server


@pytest.fixture(scope="session")
def pushgateway_server() -> Iterator[Pushgateway]:
    """A Pushgateway of this worker's own."""
    program = _needed("prometheus-pushgateway")
    with tempfile.TemporaryDirectory(prefix="muxly-pushgateway-", ignore_cleanup_errors=True) as name:
        server = Pushgateway(_free_port())
        command = [program, f"--web.listen-address=127.0.0.1:{server.port}", "--web.enable-admin-api"]
        with _running(command, Path(name), f"{server.url}/-/ready"):
            yield server


@pytest.fixture
def pushgateway(pushgateway_server: Pushgateway) -> Pushgateway:
    """A Pushgateway that holds nothing yet."""
    pushgateway_server.wipe()
    return pushgateway_server


@pytest.fixture(scope="session")
def promtool() -> Callable[[bytes], str]:
    """What `promtool check metrics` has to say about an exposition; nothing if it is right."""
    program = _needed("promtool")

    def check(exposition: bytes) -> str:
        done = subprocess.run([program, "check", "metrics"], input=exposition, capture_output=True, check=False)
        said = (done.stdout + done.stderr).decode().strip()
        return said or ("" if done.returncode == 0 else f"it ended with {done.returncode}")

    return check


class _running:  # noqa: N801 (a context manager that reads like a function)
    """A program that serves while the block lasts; its output goes to a file."""

    def __init__(self, command: list[str], folder: Path, ready: str) -> None:
        self._command, self._log, self._ready = command, folder / "server.log", ready

    def __enter__(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + _START_SECONDS
        while not _answers(self._ready):
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise AssertionError(f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}")
            threading.Event().wait(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing in it is of use to anybody
        self._process.wait()


def _answers(url: str) -> bool:
    try:
        with _direct.open(url, timeout=5):
            return True
    except (HTTPError, URLError, OSError):  # a 503 is an HTTPError: not ready yet
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
