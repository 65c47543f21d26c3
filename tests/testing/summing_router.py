"""A router whose destination shows sums; the state that it adds to is kept in the ledger with each acknowledgement."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import muxly
from muxly_testing import RouterConformance


class AddsUp(muxly.Router):
    """Counts how often each id came, by stream, in one file for each stream.

    A repeat adds to the same sums as the first attempt, so it shows the same.
    """

    promise: ClassVar[muxly.Promise] = "idempotent"

    folder: Path = muxly.option("Where the sums are shown.")

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        sums = self.before(delivery)
        for batch in delivery.batches():
            sums.update(map(str, batch["id"].to_pylist()))
        self._show(self.file_of(delivery.stream), sums)
        return muxly.Receipt(state=dict(sums))

    def before(self, delivery: muxly.Delivery) -> Counter[str]:
        """What the delivery adds to."""
        return Counter(delivery.state or {})

    def file_of(self, stream: muxly.Stream) -> Path:
        """Where the sums of a stream are shown."""
        return self.folder / f"s{quote(stream.name, safe='')[:100].replace('.', '%2E')}.json"

    def _show(self, path: Path, sums: Counter[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(sums))
        draft.replace(path)


class AddsToWhatItSees(AddsUp):
    """Trusts what it showed itself, acknowledged or not."""

    def before(self, delivery: muxly.Delivery) -> Counter[str]:
        path = self.file_of(delivery.stream)
        return Counter(json.loads(path.read_text()) if path.exists() else {})


class Summed(RouterConformance):
    """Tries such a router; a record arrived as often as it was counted."""

    crash_points = 12
    big_batches = 2
    kind: ClassVar[type[AddsUp]] = AddsUp

    def router(self, tmp_path: Path) -> AddsUp:
        self.folder = tmp_path
        return self.kind(folder=tmp_path)

    def arrived(self) -> list[dict[str, Any]]:
        sums = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        return [{"id": name} for counts in sums for name, count in counts.items() for _ in range(count)]
