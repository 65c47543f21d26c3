"""The Prometheus router keeps the contract of routers, by each way out that another program can be asked about."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from muxly import Secret
from muxly_routers.prometheus import Basic, Metric, Prometheus
from muxly_testing import RouterConformance
from tests.http_receiver import Receiver, Reply, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests import fixtures_prometheus as servers

_direct = build_opener(ProxyHandler({}))


def shown(text: str, metric: str) -> list[dict[str, Any]]:
    """The label sets and values of a metric in an exposition."""
    return [
        {**sample.labels, "amount": sample.value}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    ]


class Measured(RouterConformance):
    """Each record is a series of a gauge."""

    crash_points = 6
    metrics: ClassVar[dict[str, Metric]] = {"amount": Metric(column="amount", labels=["id"])}


class TestTextfile(Measured):
    crash_points = 12
    folder: Path

    def router(self, tmp_path: Path) -> Prometheus:
        self.folder = tmp_path
        return Prometheus(metrics=self.metrics, textfile=tmp_path, max_series=20_000)

    def broken(self, tmp_path: Path) -> Prometheus:
        tmp_path.parent.mkdir(parents=True, exist_ok=True)
        tmp_path.write_text("a file where a folder should be")
        return Prometheus(metrics=self.metrics, textfile=tmp_path / "metrics")

    def arrived(self) -> list[dict[str, Any]]:
        return [one for file in self.folder.glob("*.prom") for one in shown(file.read_text(), "amount")]


class Sent(Measured):
    """A way out to a server, which may also be slow or silent."""

    root: str
    receiver: Receiver

    @pytest.fixture(autouse=True)
    def _receiver(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def sending_to(self, url: str, tmp_path: Path, **options: Any) -> Prometheus:
        """The router with that server."""
        raise NotImplementedError

    def router(self, tmp_path: Path) -> Prometheus:
        return self.sending_to(self.root, tmp_path)

    def broken(self, tmp_path: Path) -> Prometheus:
        return self.sending_to(f"http://127.0.0.1:{closed_port()}/hidden-path", tmp_path)

    def hanging(self, tmp_path: Path) -> Prometheus:
        self.receiver.script(Reply(hold=True))
        return self.sending_to(f"http://127.0.0.1:{self.receiver.port}", tmp_path, timeout_seconds=1.0)

    def slow(self, tmp_path: Path) -> Prometheus:
        self.receiver.script(*[Reply(429, headers=(("Retry-After", "1"),))] * 2)
        self.receiver.respond = passing_on_to(self.root)
        return self.sending_to(f"http://127.0.0.1:{self.receiver.port}", tmp_path)


class TestPushgateway(Sent):
    server: servers.Pushgateway
    job: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, pushgateway_server: servers.Pushgateway) -> None:
        cls.server, cls.root = pushgateway_server, pushgateway_server.url

    @pytest.fixture(autouse=True)
    def _wiped(self, pushgateway: servers.Pushgateway) -> None:
        """Every push looks at all that the gateway holds."""

    def sending_to(self, url: str, tmp_path: Path, **options: Any) -> Prometheus:
        self.job = f"job-{uuid4().hex}"
        return Prometheus(
            metrics=self.metrics,
            pushgateway=Secret(url),
            keep=tmp_path,
            job=self.job,
            bearer=Secret("token-of-the-gateway"),
            max_series=20_000,
            **options,
        )

    def arrived(self) -> list[dict[str, Any]]:
        return [one for one in shown(self.server.metrics(), "amount") if one["job"] == self.job]


class TestRemoteWrite(Sent):
    server: servers.Prometheus
    metric: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, lone_prometheus: servers.Prometheus) -> None:
        cls.server, cls.root = lone_prometheus, f"http://127.0.0.1:{lone_prometheus.port}"

    def sending_to(self, url: str, tmp_path: Path, **options: Any) -> Prometheus:
        self.metric = f"amount_{uuid4().hex}"
        metrics = {self.metric: Metric(column="amount", labels=["id"])}
        password = Secret("password-of-the-receiver")
        return Prometheus(
            metrics=metrics,
            remote_write=Secret(f"{url}/api/v1/write"),
            basic=Basic(user="me", password=password),
            max_series=20_000,
            **options,
        )

    def arrived(self) -> list[dict[str, Any]]:
        return [labels for labels, samples in self.server.samples(self.metric) for _ in samples]


def passing_on_to(root: str) -> Callable[[Seen], Reply]:
    """A server behind which stands another one."""

    def respond(seen: Seen) -> Reply:
        headers = {name: seen.headers[name] for name in ("content-type", "content-encoding") if name in seen.headers}
        with _direct.open(Request(f"{root}{seen.path}", seen.body, headers, method=seen.method), timeout=20) as answer:
            return Reply(answer.status)

    return respond


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
