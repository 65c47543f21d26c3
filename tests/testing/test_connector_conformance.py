"""The connector tests pass for connectors that keep the contract."""

from __future__ import annotations

from pathlib import Path

from muxly_testing import ConnectorConformance, FakeConnector


class TestPlain(ConnectorConformance):
    def connector(self, tmp_path: Path) -> FakeConnector:
        return FakeConnector(records=300, batch_records=40)


class TestWideWithPartitionsAndChildren(ConnectorConformance):
    def connector(self, tmp_path: Path) -> FakeConnector:
        return FakeConnector(
            names=["one", "two"], records=150, batch_records=20, partitions=3, wide=True, children=True, cursor_every=2
        )


class TestByDay(ConnectorConformance):
    def connector(self, tmp_path: Path) -> FakeConnector:
        return FakeConnector(records=300, by_day=True, per_day=25, partitions=2, gone=[26, 27], cursor_kind="mapping")


class TestUnsortedRecordsWithoutKeys(ConnectorConformance):
    def connector(self, tmp_path: Path) -> FakeConnector:
        return FakeConnector(
            records=200, keyed=False, in_order=False, arrow=False, cursor_every=0, bad=[5], cursor_kind="datetime"
        )
