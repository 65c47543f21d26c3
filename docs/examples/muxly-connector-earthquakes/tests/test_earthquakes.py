"""The connector against a small catalogue that is served on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from muxly_connector_earthquakes import Earthquakes

import muxly
from muxly_testing import ConnectorConformance

FIRST = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)


def feature(number: int) -> dict[str, Any]:
    """Every third earthquake has the time of the one before it: ties are where cursors go wrong."""
    time = FIRST + (number - (number % 3 == 2)) * 60_000
    properties = {"time": time, "mag": 4.0 + number % 30 / 10, "place": f"{number} km N of nowhere"}
    return {"id": f"us{number:04}", "properties": properties, "geometry": {"coordinates": [number / 10, 1.5, 10]}}


class Catalogue(BaseHTTPRequestHandler):
    features: ClassVar[list[dict[str, Any]]] = [feature(number) for number in range(120)]
    troubles: ClassVar[list[tuple[int, dict[str, str]]]] = []

    def do_GET(self) -> None:
        if self.troubles:
            status, headers = self.troubles.pop(0)
            self._answer(status, b"busy", headers)
            return
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        start = datetime.fromisoformat(query["starttime"])
        start_ms = start.replace(tzinfo=start.tzinfo or UTC).timestamp() * 1000
        found = [one for one in self.features if self._matches(one, start_ms, float(query["minmagnitude"]))]
        first = int(query["offset"]) - 1
        page = found[first : first + int(query["limit"])]
        self._answer(200, json.dumps({"type": "FeatureCollection", "features": page}).encode(), {})

    def _matches(self, one: dict[str, Any], start_ms: float, magnitude: float) -> bool:
        return bool(one["properties"]["time"] >= start_ms and one["properties"]["mag"] >= magnitude)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Catalogue) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestConformance(ConnectorConformance):
    @pytest.fixture(autouse=True)
    def _served(self, url: str) -> None:
        self.url = url

    def connector(self, tmp_path: Path) -> Earthquakes:
        return Earthquakes(base_url=self.url, page_records=16, min_magnitude=0)

    def broken(self, tmp_path: Path) -> Earthquakes:
        return Earthquakes(base_url="http://127.0.0.1:9")


def read(connector: Earthquakes, cursor: object = None) -> list[dict[str, Any]]:
    (stream,) = connector.streams()
    batches = connector.read(stream, muxly.Partition(), cursor)
    return [record for batch in batches for record in batch.to_arrow()[0].to_pylist()]


def test_records_have_time_place_and_strength(url: str) -> None:
    first = read(Earthquakes(base_url=url, min_magnitude=0))[1]
    assert first == {
        "id": "us0001",
        "time": datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
        "magnitude": 4.1,
        "place": "1 km N of nowhere",
        "longitude": 0.1,
        "latitude": 1.5,
        "depth_km": 10,
    }


def test_weak_ones_are_left_out(url: str) -> None:
    assert {record["magnitude"] >= 6 for record in read(Earthquakes(base_url=url, min_magnitude=6))} == {True}


def test_busy_service_is_tried_again_when_it_says(url: str) -> None:
    Catalogue.troubles.append((429, {"Retry-After": "7"}))
    with pytest.raises(muxly.RetryableError, match="answered 429") as caught:
        read(Earthquakes(base_url=url))
    assert caught.value.retry_after == 7


def test_wrong_question_stops_the_stream(url: str) -> None:
    Catalogue.troubles.append((400, {}))
    with pytest.raises(muxly.StreamError, match="answered 400 Bad Request; check the options"):
        read(Earthquakes(base_url=url))


def test_plugin_is_found_by_its_name() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="muxly.connectors", name="earthquakes")
    assert found.load().muxly_connector() is Earthquakes
