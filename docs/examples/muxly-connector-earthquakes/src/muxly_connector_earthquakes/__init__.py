"""Reads the earthquake catalogue of the US Geological Survey (earthquake.usgs.gov/fdsnws/event/1)."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import muxly

__all__ = ["Earthquakes"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Earthquakes(muxly.Connector):
    """One stream, ``earthquakes``, in the order of their time."""

    base_url: str = muxly.option("Root of the service.", default="https://earthquake.usgs.gov/fdsnws/event/1")
    since: str = muxly.option("Where the first run begins: a date or time, UTC.", default="2026-01-01")
    min_magnitude: float = muxly.option("Weaker ones are left out.", default=4.5)
    page_records: int = muxly.option("Records of one page, at most 20,000.", default=1000)

    def streams(self) -> list[muxly.Stream]:
        """The catalogue is sorted by time, so reading can resume after any page."""
        return [muxly.Stream("earthquakes", primary_key="id", cursor_field="time", sorted=True)]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        """From the cursor on, page by page; the runner drops the earthquake at the cursor, which comes again."""
        start, offset = cursor.isoformat() if cursor else self.since, 1
        while page := self._page(starttime=start, offset=offset):
            records = [_record(feature) for feature in page]
            yield muxly.Batch(records, cursor=records[-1]["time"])
            offset += len(page)

    def _page(self, **query: object) -> list[Any]:
        query |= {"minmagnitude": self.min_magnitude, "limit": self.page_records}
        query |= {"format": "geojson", "orderby": "time-asc"}
        return list(_get(f"{self.base_url}/query?{urllib.parse.urlencode(query)}")["features"])


def _record(feature: Any) -> dict[str, Any]:
    longitude, latitude, depth = feature["geometry"]["coordinates"]
    return {
        "id": feature["id"],
        "time": EPOCH + timedelta(milliseconds=feature["properties"]["time"]),
        "magnitude": feature["properties"]["mag"],
        "place": feature["properties"]["place"],
        "longitude": longitude,
        "latitude": latitude,
        "depth_km": depth,
    }


def _get(url: str) -> Any:
    """The JSON at an address; every failure becomes the error that tells the runner what to do."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            wait = error.headers.get("Retry-After", "")
            seconds = float(wait) if wait.isdigit() else None
            raise muxly.RetryableError(f"{url} answered {error.code}", retry_after=seconds) from error
        raise muxly.StreamError(f"{url} answered {error.code} {error.reason}; check the options") from error
    except (OSError, ValueError) as error:
        raise muxly.RetryableError(f"{url} cannot be read: {error}") from error


@muxly.hookimpl
def muxly_connector() -> type[muxly.Connector]:
    """What the entry point ``earthquakes`` provides."""
    return Earthquakes
