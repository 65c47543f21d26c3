"""What users write: a connector, a router, a pipeline in Python. It has to pass ``mypy --strict``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Literal, assert_type

import muxly
from muxly_testing import CollectingRouter, ConnectorConformance, FakeConnector, Fault, RouterConformance, delivery


class Countries(muxly.Connector):
    """A connector in a few lines."""

    base_url: str = muxly.option("Root of the API.", default="https://countries.example/v3")
    token: muxly.Secret | None = muxly.option("Access token.", default=None)
    regions: list[str] = muxly.option("Only these.", factory=list)
    page: int = 100

    def streams(self) -> list[muxly.Stream]:
        return [muxly.Stream("countries", primary_key=("cca3",), lookback=60, sorted=True)]

    def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        parts = [muxly.Partition(region, cursor, payload={"region": region}) for region in self.regions]
        return muxly.Plan(parts, cursor)

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        yield muxly.Batch([{"cca3": "DEU", "area": 357_114.0}], cursor="DEU")
        yield muxly.Batch(
            None, replaces=["2026-01-01"], rejected=[muxly.Rejected("no code", record={"name": "?"}, place="page 2")]
        )


class Site(muxly.Options):
    """Options nest."""

    url: str
    weight: float = 1.0


class Post(muxly.Router):
    """A router in a few lines."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "upsert"})
    promise: ClassVar[muxly.Promise] = "at_least_once"
    concurrency: ClassVar[int] = 4

    sites: list[Site]
    level: Literal["low", "high"] = muxly.option("How loud.", default="low")

    def open(self, run: muxly.Run) -> None:
        self.bucket = run.shared("post", lambda: muxly.RateBucket(5, burst=10))
        assert_type(self.bucket, muxly.RateBucket)

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        rejected: list[muxly.Rejected] = []
        for index, record in enumerate(delivery.records(), start=delivery.delivered):
            assert_type(record, dict[str, Any])
            if not record:
                rejected.append(muxly.Rejected("it is empty", index=index))
            delivery.mark(index + 1)
        return muxly.Receipt(rejected, state={"last": delivery.id})


class TestCountries(ConnectorConformance):
    def connector(self, tmp_path: object) -> Countries:
        return Countries(regions=["Europe"])


class TestPost(RouterConformance):
    def router(self, tmp_path: object) -> Post:
        return Post(sites=[Site(url="https://example.com")])

    def arrived(self) -> list[dict[str, Any]]:
        return []


def embedded() -> float:
    """Muxly inside another program."""
    lake = CollectingRouter()
    pipeline = muxly.Pipeline(
        "daily",
        Countries(token=muxly.Secret("x"), page=10),
        routes=[
            muxly.Route("lake", lake, columns=muxly.Columns(exclude=["area"]), batch={"records": 100}),
            muxly.Route("posts", Post(sites=[]), where="area > 10", required=False, streams="countries"),
        ],
        streams={"countries": muxly.StreamRules(read="full"), "*": {"new_columns": "freeze"}},
    )
    result = muxly.run(pipeline, home=".muxly", params={"day": "2026-01-01"})
    assert_type(result, muxly.RunResult)
    assert_type(result.routes["lake"].delivered, int)
    assert_type(result.resume_at, datetime | None)
    result.raise_for_status()
    frame = muxly.read(Countries(), "countries").to_pandas()
    table = muxly.read("countries", "countries", base_url="https://countries.example").to_arrow()
    return float(len(frame) + table.num_rows + len(lake.records("countries")))


def tried_out() -> None:
    """What ``muxly_testing`` gives."""
    connector = FakeConnector(records=10, faults=[Fault(method="read", action="RetryableError", at=1)])
    assert_type(connector.expected(), list[dict[str, Any]])
    Post(sites=[]).deliver(delivery([{"id": 1}], "countries", mode="upsert"))
