"""The router tests pass for routers that keep the contract, and fail for each kind of lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muxly.testing import CollectingRouter, RouterConformance


class TestKeptInAFile(RouterConformance):
    def router(self, tmp_path: Path) -> CollectingRouter:
        self.kept = CollectingRouter(folder=tmp_path)
        return self.kept

    def arrived(self) -> list[dict[str, Any]]:
        return [record for stream in self.kept.streams for record in self.kept.records(stream)]
