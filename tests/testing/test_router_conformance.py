"""The router tests pass for routers that keep the contract, whatever they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import muxly
from muxly_testing import ChaosRouter, CollectingRouter, Fault, RouterConformance
from tests.testing.summing_router import Summed


class Kept(RouterConformance):
    """Tries a router that keeps what it got in a file."""

    crash_points = 8
    kind: ClassVar[type[CollectingRouter]] = CollectingRouter
    options: ClassVar[dict[str, Any]] = {}

    def router(self, tmp_path: Path) -> CollectingRouter:
        self.kept = self.kind(folder=tmp_path, **self.options)
        return self.kept

    def arrived(self) -> list[dict[str, Any]]:
        return [record for stream in self.kept.streams for record in self.kept.records(stream)]


class TestEffectivelyOnce(Kept):
    crash_points = 24


class Guarded(ChaosRouter):
    """Has a password, and a deadline for what the destination answers."""

    password: muxly.Secret = muxly.option("A secret.", default=muxly.Secret("correct horse/battery"))
    answers: bool = muxly.option("Whether the destination answers.", default=True)

    def open(self, run: muxly.Run) -> None:
        if not self.answers:
            run.sleep(0.1)
            raise muxly.RetryableError("the destination did not answer within 0.1 s; look whether it is up")
        super().open(run)


class TestWithAllHooks(Kept):
    """The destination asks to wait, and the router passes that on."""

    crash_points = 2
    kind = Guarded
    asks = Fault(method="deliver", action="RetryableError", retry_after=0.2, times=2)

    def slow(self, tmp_path: Path) -> CollectingRouter:
        self.kept = Guarded(folder=tmp_path, faults=[self.asks])
        return self.kept

    def broken(self, tmp_path: Path) -> CollectingRouter:
        return Guarded(folder=tmp_path, answers=False)

    hanging = broken


class TestWaitingItself(TestWithAllHooks):
    """The destination asks to wait, and the router waits."""

    asks = Fault(method="deliver", action="sleep", seconds=0.2, times=2)


class TestMarkingAsItGoes(Kept):
    """As a router for single messages does."""

    options: ClassVar[dict[str, Any]] = {"mark_every": 3}
    crash_points = 16
    big_batches = 8
    memory_bytes = 8 << 20


class Forgetful(ChaosRouter):
    """Knows no id again, and does not say that it would."""

    modes: ClassVar[frozenset[str]] = frozenset({"append"})
    promise: ClassVar[muxly.Promise] = "at_least_once"


class TestAtLeastOnce(Kept):
    kind = Forgetful
    options: ClassVar[dict[str, Any]] = {"lie": "forgets"}


class Upserting(CollectingRouter):
    """Has one mode, which is not append."""

    modes: ClassVar[frozenset[str]] = frozenset({"upsert"})
    promise: ClassVar[muxly.Promise] = "idempotent"


class TestIdempotent(Kept):
    kind = Upserting


class Replacing(CollectingRouter):
    """Knows full reads only."""

    modes: ClassVar[frozenset[str]] = frozenset({"replace"})


class TestReplaceOnly(Kept):
    kind = Replacing


class TestStateInTheLedger(Summed):
    """Each delivery is given what the last acknowledged one left, and a killed one left nothing."""
