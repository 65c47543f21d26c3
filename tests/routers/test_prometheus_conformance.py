"""The Prometheus router keeps the contract of routers, by each way out that another program can be asked about."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from muxly.testing import RouterConformance
from muxly_routers.prometheus import Metric, Prometheus

if TYPE_CHECKING:
    from pathlib import Path

    from tests import fixtures_prometheus as servers


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
    crash_points = 16
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


class TestPushgateway(Measured):
    server: servers.Pushgateway
    job: str

    @pytest.fixture(autouse=True, scope="class")
    def _server(self, pushgateway_server: servers.Pushgateway) -> None:
        type(self).server = pushgateway_server

    def router(self, tmp_path: Path) -> Prometheus:
        self.job = f"job-{uuid4().hex}"
        return Prometheus(
            metrics=self.metrics,
            pushgateway=self.server.url,
            keep=tmp_path,
            job=self.job,
            bearer="token-of-the-gateway",
            max_series=20_000,
        )

    def broken(self, tmp_path: Path) -> Prometheus:
        return Prometheus(metrics=self.metrics, pushgateway=f"http://127.0.0.1:{closed_port()}", bearer="hidden-token")

    def arrived(self) -> list[dict[str, Any]]:
        return [one for one in shown(self.server.metrics(), "amount") if one["job"] == self.job]


class TestRemoteWrite(Measured):
    server: servers.Prometheus
    metric: str

    @pytest.fixture(autouse=True, scope="class")
    def _server(self, prometheus_server: servers.Prometheus) -> None:
        type(self).server = prometheus_server

    def router(self, tmp_path: Path) -> Prometheus:
        self.metric = f"amount_{uuid4().hex}"
        metrics = {self.metric: Metric(column="amount", labels=["id"])}
        return Prometheus(metrics=metrics, remote_write=self.server.write_url, max_series=20_000)

    def broken(self, tmp_path: Path) -> Prometheus:
        url = f"http://127.0.0.1:{closed_port()}/hidden-path/write"
        return Prometheus(metrics=self.metrics, remote_write=url, bearer="hidden-token")

    def arrived(self) -> list[dict[str, Any]]:
        return [labels for labels, samples in self.server.samples(self.metric) for _ in samples]


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
