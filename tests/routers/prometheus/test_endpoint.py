"""The scrape endpoint, as Prometheus and other clients see it."""

from __future__ import annotations

import gzip
import http.client
import socket
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics

import muxly
from muxly import Secret
from muxly.component import Run
from muxly_routers.prometheus import Basic, Metric, Prometheus
from muxly_routers.prometheus.endpoint import preferred_format
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests import fixtures_prometheus as servers

METRIC = Metric(column="n", labels=["k"])


class Open:
    """A router that listens, and the run that holds its endpoint."""

    def __init__(
        self, *, pipeline: str = "daily", route: str = "metrics", guarded: bool = False, **options: Any
    ) -> None:
        self.port = options.pop("port", None) or free_port()
        self.states: dict[str, Any] = {}
        self.run = Run("01B", pipeline, route=route, guarded=guarded)
        self.router = Prometheus(
            **{"metrics": {"latest": METRIC}, "listen": f"127.0.0.1:{self.port}", **options},
        )
        try:
            self.router.open(self.run)
        except BaseException:
            self.run.end()
            raise

    def deliver(self, records: list[dict[str, Any]], stream: str = "orders") -> None:
        receipt = self.router.deliver(delivery(records, stream, state=self.states.get(stream)))
        assert receipt is not None
        self.states[stream] = receipt.state

    def ask(self, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.router.close()
        self.run.end()


@pytest.fixture
def listening() -> Iterator[Callable[..., Open]]:
    """Makes routers that listen, and closes them."""
    made: list[Open] = []

    def make(**options: Any) -> Open:
        made.append(Open(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_real_prometheus_scrapes_what_was_delivered(
    listening: Callable[..., Open], prometheus_server: servers.Prometheus
) -> None:
    one = listening(
        metrics={
            "shop_revenue_dollars": Metric(column="n", labels=["k"], unit="dollars", help="Revenue."),
            "shop_orders_total": Metric(column="n", labels=["k"], type="counter"),
        }
    )
    one.deliver([{"k": 'quo"te\\ \nline', "n": 1.5}, {"k": "日本", "n": float("inf")}])
    one.deliver([{"k": "日本", "n": 2.5}])
    prometheus_server.scrape(f"127.0.0.1:{one.port}")
    found = prometheus_server.samples("shop_revenue_dollars")
    latest = {labels["k"]: samples[-1][1] for labels, samples in found}
    assert latest == {'quo"te\\ \nline': "1.5", "日本": "2.5"}
    assert {labels["stream"] for labels, _ in found} == {"orders"}
    [about] = prometheus_server.ask("metadata", metric="shop_revenue_dollars")["shop_revenue_dollars"]
    assert about == {"type": "gauge", "help": "Revenue.", "unit": "dollars"}
    assert prometheus_server.ask("metadata", metric="shop_orders")["shop_orders"][0]["type"] == "counter"


def test_format_follows_what_the_scraper_accepts(listening: Callable[..., Open]) -> None:
    one = listening()
    one.deliver([{"k": "a", "n": 1}])
    status, headers, body = one.ask(Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert (status, headers["content-type"]) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    [family] = openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    assert family.samples[0].labels == {"k": "a", "stream": "orders"}
    status, headers, body = one.ask()
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body.endswith(b'latest{k="a",stream="orders"} 1\n')


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/html", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain;version=0.0.4;q=0.3,*/*;q=0.1", "text"),
        ("application/openmetrics-text;q=0.8,text/plain;q=0.3", "openmetrics"),
        ("application/openmetrics-text;q=bad", "text"),
        ("application/openmetrics-text;q=0", "text"),
    ],
)
def test_preferred_format(accept: str, format: str) -> None:
    assert preferred_format(accept) == format


def test_body_is_compressed_for_who_takes_gzip(listening: Callable[..., Open]) -> None:
    one = listening()
    one.deliver([{"k": "a", "n": 1}])
    _, headers, body = one.ask(Accept_Encoding="br;q=0.1, gzip;q=0.5")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == one.ask(Accept_Encoding="gzip;q=0")[2] == one.ask()[2]


def test_only_get_of_metrics_is_answered(listening: Callable[..., Open]) -> None:
    one = listening()
    assert one.ask("/")[0] == 404
    assert one.ask("/metrics/x")[0] == 404
    assert one.ask("/metrics?name=x")[0] == 200
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"):
        status, headers, _ = one.ask(method=method)
        assert (method, status, headers["allow"]) == (method, 405, "GET")


def test_routes_of_one_address_share_an_endpoint(listening: Callable[..., Open]) -> None:
    one = listening()
    two = listening(port=one.port, pipeline="weekly", metrics={"latest": METRIC, "other": METRIC})
    one.deliver([{"k": "a", "n": 1}])
    two.deliver([{"k": "b", "n": 2}], "leads")
    text = one.ask()[2].decode()
    assert text.count("# TYPE latest gauge") == 1
    assert 'latest{k="a",stream="orders"} 1\nlatest{k="b",stream="leads"} 2\n' in text
    one.close()
    assert b"leads" in two.ask()[2], "it lives as long as a run holds it"
    two.close()
    with pytest.raises(ConnectionError):  # noqa: PT011 (its text is the system's)
        two.ask()


def test_label_set_of_two_pipelines_is_shown_once(listening: Callable[..., Open]) -> None:
    one = listening()
    two = listening(port=one.port, pipeline="weekly")
    one.deliver([{"k": "a", "n": 1}, {"k": "b", "n": 1}])
    two.deliver([{"k": "a", "n": 2}])
    lines = [line for line in one.ask()[2].decode().splitlines() if not line.startswith("#")]
    assert lines == ['latest{k="a",stream="orders"} 2', 'latest{k="b",stream="orders"} 1']


def test_metric_of_another_type_at_one_address_is_refused(listening: Callable[..., Open]) -> None:
    one = listening(metrics={"latest": METRIC})
    two = listening(port=one.port, route="other", metrics={"latest": Metric(column="n", type="counter")})
    one.deliver([{"k": "a", "n": 1}])
    with pytest.raises(muxly.RouteError, match=r"metric 'latest' of stream 'orders' differs in type"):
        two.deliver([{"k": "a", "n": 1}])


def test_route_that_is_configured_anew_does_not_stand_in_its_own_way(listening: Callable[..., Open]) -> None:
    """A process may hold the endpoint for longer than a configuration lasts."""
    one = listening(metrics={"latest": METRIC, "other": METRIC})
    for stream in ("orders", "leads"):
        one.deliver([{"k": "a", "n": 1}], stream)
    anew = listening(port=one.port, metrics={"latest": Metric(column="n", labels=["k"], type="counter")})
    anew.deliver([{"k": "a", "n": 2}])
    lines = [line for line in one.ask()[2].decode().splitlines() if not line.startswith("#")]
    assert lines == ['other{k="a",stream="leads"} 1', 'latest_total{k="a",stream="orders"} 2']


def test_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(muxly.RouteError, match=rf"cannot listen at 127.0.0.1:{port}: another program does"):
            Open(port=port)


def test_address_of_another_machine_is_an_error_that_says_so() -> None:
    with pytest.raises(muxly.ConfigurationError, match=r"cannot listen at 192.0.2.1:9464: .*; choose an address of th"):
        Open(listen="192.0.2.1:9464", bearer=Secret("token"))
    with pytest.raises(muxly.ConfigurationError, match=r"cannot listen at a..b:9464: .*; choose an address of this"):
        Open(listen="a..b:9464", bearer=Secret("token"))


def test_address_that_is_open_to_the_network_wants_a_token() -> None:
    with pytest.raises(muxly.ConfigurationError, match=r"0.0.0.0:9464 is open to the network; say with `bearer`"):
        Open(listen="0.0.0.0:9464")
    with pytest.raises(muxly.ConfigurationError, match=r"was not written by the operator; listen at 127.0.0.1"):
        Open(listen="0.0.0.0:9464", bearer=Secret("token"), guarded=True)


@pytest.mark.parametrize("host", ["127.0.0.1.example.org", "localhost.example.org", "[::1:2]", "127.evil"])
def test_name_that_only_looks_like_this_machine_is_open_to_the_network(host: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match=r":9464 is open to the network; say with `bearer`"):
        Open(listen=f"{host}:9464")


def test_only_who_has_the_token_may_read(listening: Callable[..., Open]) -> None:
    one = listening(bearer=Secret("the-token"))
    status, headers, _ = one.ask()
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="muxly"')
    assert one.ask(Authorization="Bearer wrong")[0] == 401
    assert one.ask(Authorization="Bearer the-token")[0] == 200
    with pytest.raises(muxly.ConfigurationError, match=r"listens at .* with other `bearer` or `basic`"):
        listening(port=one.port)
    two = listening(basic=Basic(user="me", password=Secret("pass")))
    assert two.ask(Authorization="Basic bWU6cGFzcw==")[0] == 200
    status, headers, _ = two.ask(Authorization="Basic bWU6cGFzcx==")
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="muxly"')


def test_expired_series_vanish_between_deliveries(
    listening: Callable[..., Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    one = listening(expire_seconds=100)
    one.deliver([{"k": "a", "n": 1}])
    assert b"latest{" in one.ask()[2]
    now[0] += 101
    assert b"latest{" not in one.ask()[2]


def test_number_of_dropped_series_does_not_expire(listening: Callable[..., Open]) -> None:
    one = listening(expire_seconds=100, max_series=1)
    one.deliver([{"k": "a", "n": 1}, {"k": "b", "n": 1}])
    assert b'muxly_series_dropped_total{pipeline="daily",route="metrics",stream="orders"} 1\n' in one.ask()[2]


def test_times_of_records_are_shown(listening: Callable[..., Open]) -> None:
    from datetime import UTC, datetime

    one = listening(metrics={"latest": Metric(column="n", timestamp="at")})
    one.deliver([{"n": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}])
    assert one.ask()[2].endswith(b'latest{stream="orders"} 1 1767225600000\n')


def test_slow_and_broken_clients_do_not_keep_others_waiting(listening: Callable[..., Open]) -> None:
    one = listening()
    one.deliver([{"k": "a", "n": 1}])
    idle = [socket.create_connection(("127.0.0.1", one.port), timeout=20) for _ in range(8)]
    try:
        for connection in idle:
            connection.sendall(b"GET /met")
        assert one.ask()[0] == 200
        idle[0].sendall(b"\x00\xff\r\n\r\n")
        assert idle[0].recv(200), "it is told, or cut off"
        assert one.ask()[0] == 200
    finally:
        for connection in idle:
            connection.close()
