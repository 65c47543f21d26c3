"""Back-off is a function of numbers; the bucket never lets more through than its rate."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.001, 100), st.floats(0.001, 1000))
def test_wait_is_within_a_bound_that_doubles_up_to_the_limit(
    attempt: int, chance: float, first: float, limit: float
) -> None:
    backoff = muxly.Backoff(first_seconds=first, limit_seconds=limit)
    assert 0 <= backoff.wait(attempt, chance=chance) <= backoff.bound(attempt) <= limit
    assert backoff.bound(attempt + 1) in {limit, 2 * backoff.bound(attempt)} or attempt > 63


def test_jitter_is_full() -> None:
    waits = [muxly.Backoff(first_seconds=8).wait(1) for _ in range(500)]
    assert min(waits) < 1
    assert max(waits) > 7


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(None, 0.0), (0.0, 0.0), (7.5, 7.5), (1e9, 3600.0), (math.inf, 3600.0), (-5.0, 0.0), (math.nan, 0.0)],
)
def test_retry_after_is_honoured_up_to_an_hour_and_nonsense_is_ignored(asked: float | None, wait: float) -> None:
    assert muxly.Backoff().wait(1, retry_after=asked, chance=0.0) == wait


def test_retry_after_never_shortens_the_wait() -> None:
    assert muxly.Backoff(first_seconds=10).wait(1, retry_after=1, chance=0.9) == 9


def test_last_attempt_is_final() -> None:
    assert [muxly.Backoff(attempts=3).spent(attempt) for attempt in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize(
    "wrong", [{"first_seconds": 0}, {"limit_seconds": -1}, {"attempts": 0}, {"first_seconds": math.nan}]
)
def test_backoff_refuses_what_would_never_wait_or_never_try(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' must be >"):
        muxly.Backoff(**wrong)  # type: ignore[arg-type]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def bucket(rate: float, burst: float = 1) -> tuple[muxly.RateBucket, Clock]:
    clock = Clock()
    return muxly.RateBucket(rate, burst=burst, clock=clock), clock


def test_burst_passes_at_once_and_then_the_rate_holds() -> None:
    limiter, _ = bucket(2, burst=3)
    assert [limiter.reserve() for _ in range(5)] == [0, 0, 0, 0.5, 1.0]


def test_idle_time_fills_the_bucket_up_to_its_burst() -> None:
    limiter, clock = bucket(2, burst=3)
    for _ in range(3):
        limiter.reserve()
    clock.now += 1e6
    assert [limiter.reserve() for _ in range(4)] == [0, 0, 0, 0.5]


@given(st.lists(st.floats(0, 5), min_size=1, max_size=50), st.floats(0.1, 10), st.floats(1, 10))
def test_calls_never_exceed_burst_and_rate(pauses: list[float], rate: float, burst: float) -> None:
    limiter, clock = bucket(rate, burst)
    begun = clock.now
    for number, pause in enumerate(pauses, start=1):
        clock.now += pause
        clock.now += limiter.reserve()
        assert number <= burst + rate * (clock.now - begun) + 1e-6


def test_pause_holds_all_calls_for_so_long_and_no_longer() -> None:
    limiter, clock = bucket(0.001)
    limiter.pause(5)
    assert limiter.reserve() == 5
    clock.now += 5000
    assert limiter.reserve() == 0


@pytest.mark.parametrize("nonsense", [0, -5, math.nan])
def test_pause_of_nothing_changes_nothing(nonsense: float) -> None:
    limiter, _ = bucket(1, burst=2)
    limiter.pause(nonsense)
    assert limiter.reserve() == 0


def test_pause_is_at_most_one_hour_and_a_shorter_one_does_not_end_it() -> None:
    limiter, _ = bucket(1)
    limiter.pause(math.inf)
    limiter.pause(1)
    assert limiter.reserve() == 3600


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (math.nan, 1), (1, 0)])
def test_bucket_refuses_what_would_let_nothing_through(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0 and burst at least 1"):
        muxly.RateBucket(rate, burst=burst)


def test_take_waits_with_the_given_sleep() -> None:
    limiter, _ = bucket(4)
    slept: list[float] = []
    for _ in range(3):
        limiter.take(slept.append)
    assert slept == [0.25, 0.5]


def test_threads_share_one_rate() -> None:
    limiter, _ = bucket(1)
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.append(limiter.reserve())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == list(range(50))


def test_patience_tries_again_and_waits_as_it_is_asked() -> None:
    waits: list[float] = []
    errors = [muxly.RetryableError("busy", retry_after=2.0), muxly.RetryableError("busy")]
    failures: list[None] = []

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    retry = muxly.Retry(muxly.Backoff(first_seconds=1e-9), waits.append)
    assert retry.call(attempt, failed=lambda: failures.append(None)) == "done"
    assert [round(seconds, 3) for seconds in waits] == [2.0, 0.0]
    assert len(failures) == 2


def test_patience_ends_with_the_last_error_and_tells_of_it() -> None:
    error, failures = muxly.RetryableError("busy"), list[None]()

    def attempt() -> None:
        raise error

    retry = muxly.Retry(muxly.Backoff(attempts=3), lambda seconds: None)
    with pytest.raises(muxly.RetryableError, match="busy"):
        retry.call(attempt, failed=lambda: failures.append(None))
    assert len(failures) == 3


def test_patience_has_no_end_as_long_as_something_goes_well_in_between() -> None:
    retry, error = muxly.Retry(muxly.Backoff(attempts=2), lambda seconds: None), muxly.RetryableError("busy")
    for _ in range(5):
        retry.wait(error)
        retry.start_over()
    retry.wait(error)
    with pytest.raises(muxly.RetryableError, match="busy"):
        retry.wait(error)


def test_patience_is_for_some_errors() -> None:
    def attempt() -> None:
        raise ValueError("wrong")

    retry = muxly.Retry(muxly.Backoff(), lambda seconds: pytest.fail("it waited"))
    with pytest.raises(ValueError, match="wrong"):
        retry.call(attempt)


def test_patience_tells_before_it_waits() -> None:
    told: list[object] = []
    retry = muxly.Retry(
        muxly.Backoff(first_seconds=1e-9, attempts=3),
        told.append,
        on_retry=lambda error, seconds: told.append(str(error)),
    )
    retry.wait(muxly.RetryableError("busy", retry_after=2.0))
    assert told == ["busy", 2.0]
