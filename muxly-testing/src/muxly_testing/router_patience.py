"""Tests of a router whose destination asks to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from muxly.errors import RetryableError
from muxly_testing.expectations import expect
from muxly_testing.router_trials import RouterTrials
from muxly_testing.watching import WatchedRun, within

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from muxly.router import Delivery, Router

__all__ = ["RouterPatience"]

TRIES = 6
LONGEST_SECONDS = 5.0


class RouterPatience(RouterTrials):
    """A destination that asks to wait is not pushed, and not given up."""

    patience_seconds: ClassVar[float] = 30.0
    """How long it may take until the destination that ``slow`` gives has everything."""

    def test_destination_that_asks_to_wait_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: WatchedRun
    ) -> None:
        """With ``run.sleep``, or by a ``RetryableError`` that says how long."""
        router = self._slow(tmp_path, monkeypatch)
        contract = f"a destination that asks to wait has everything within {self.patience_seconds} s"
        within(self.patience_seconds, contract, lambda: self._deliver_patiently(router, run))
        self.expect_arrived(range(6), "a destination asked to wait", tries=TRIES)

    def _slow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
        why = "slow() gives no router whose destination asks to wait"
        return cast("Router", self._or_skip(self.slow(tmp_path / "inside" / "deep"), monkeypatch, why))

    def _deliver_patiently(self, router: Router, run: WatchedRun) -> None:
        """As the runner does: the same delivery again, after what was marked, when the time has come."""
        one = self.numbered(range(6))
        for _ in range(TRIES):
            one = self.again(one)
            if (error := self._error_of_delivery(router, run, one)) is None:
                return
            expect(isinstance(error, RetryableError), "being asked to wait is a RetryableError", repr(error))
            assert isinstance(error, RetryableError)
            expect(
                error.retry_after is not None and error.retry_after > 0,
                "what the destination asked for is passed on as RetryableError(..., retry_after=seconds)",
                repr(error),
            )
            run.sleep(min(error.retry_after or 0.0, LONGEST_SECONDS))
        expect(condition=False, contract=f"the destination takes everything within {TRIES} tries")

    def _error_of_delivery(self, router: Router, run: WatchedRun, one: Delivery) -> Exception | None:
        try:
            self.deliver_reopened(router, run, one)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is looked at)
            return error
        return None

    def test_stopping_run_ends_waiting_for_the_destination(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: WatchedRun
    ) -> None:
        """The stop comes while it waits."""
        router = self._slow(tmp_path, monkeypatch)
        sleep = run.sleep

        def stopped(seconds: float) -> None:
            run.stop.set()
            sleep(seconds)

        monkeypatch.setattr(run, "sleep", stopped)
        within(
            self.stop_seconds,
            f"a router that waits ends within {self.stop_seconds} s when the run is stopped",
            lambda: self._error_of_delivery(router, run, self.numbered(range(6))),
        )
