"""Mistakes that mypy has to find; an ``ignore`` that is not needed is an error itself."""

from __future__ import annotations

from collections.abc import Iterator

import muxly
from muxly_testing import FakeConnector


class Countries(muxly.Connector):
    base_url: str
    page: int = muxly.option("Records of one page.", default=100)
    regions: list[str] = muxly.option("Only these.", default="all")  # type: ignore[arg-type]

    def streams(self) -> list[str]:  # type: ignore[override]
        return ["countries"]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        yield {"id": 1}  # type: ignore[misc]


class Post(muxly.Router):
    def deliver(self, delivery: muxly.Delivery) -> str:  # type: ignore[override]
        return delivery.id


def mistakes() -> None:
    Countries("https://example.com")  # type: ignore[call-arg]
    Countries()  # type: ignore[call-arg]
    Countries(base_url="https://example.com", page="many")  # type: ignore[arg-type]
    Countries(base_url="https://example.com", pages=10)  # type: ignore[call-arg]
    Countries(base_url="https://example.com").page = "many"  # type: ignore[assignment]
    FakeConnector(records="many")  # type: ignore[arg-type]
    muxly.Route("lake", Countries(base_url="x"))  # type: ignore[arg-type]
    muxly.Route("lake", Post(), mode="merge")  # type: ignore[arg-type]
    muxly.Secret(1)  # type: ignore[arg-type]
    muxly.Receipt([1])  # type: ignore[list-item]
    muxly.Batch([], "cursor", "countries")  # type: ignore[call-arg]
    muxly.Stream("countries", ("id",), ("day",))  # type: ignore[call-arg]
