"""Waiting before calls: full-jitter back-off after failures, and a bucket that keeps calls under a rate.

The runner tries a route's deliveries again in ``StreamDelivery.deliver``, and a partition in ``Extraction._read``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import field, frozen
from attrs.validators import ge, gt

from muxly.errors import RetryableError

__all__ = ["Backoff", "RateBucket", "Retry"]

T = TypeVar("T")

RETRY_AFTER_LIMIT_SECONDS = 3600.0


@frozen(kw_only=True)
class Backoff:
    """Full-jitter exponential back-off, a pure function of attempt and chance.

    Args:
        first_seconds: Upper bound of the first wait, above 0.
        limit_seconds: Upper bound of any wait, above 0.
        attempts: Tries in all, 1 or more; the last failure is final.

    The upper bound doubles from wait to wait; the wait is uniform between 0 and the bound
    (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """

    first_seconds: float = field(default=0.5, validator=gt(0))
    limit_seconds: float = field(default=60.0, validator=gt(0))
    attempts: int = field(default=8, validator=ge(1))

    def bound(self, attempt: int) -> float:
        """Longest wait in seconds after the given failed attempt, counted from 1."""
        return min(self.limit_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 63))

    def wait(self, attempt: int, *, retry_after: float | None = None, chance: float | None = None) -> float:
        """Seconds to wait after the given failed attempt.

        Args:
            attempt: Which attempt failed, counted from 1.
            retry_after: What the other side asked for, in seconds. Honoured up to one hour;
                negative and not-a-number values are ignored.
            chance: Uniform in [0, 1); default drawn here.
        """
        drawn = self.bound(attempt) * (random.random() if chance is None else chance)
        if retry_after is None or not retry_after >= 0:
            return drawn
        return max(drawn, min(retry_after, RETRY_AFTER_LIMIT_SECONDS))

    def spent(self, attempt: int) -> bool:
        """Whether the given failed attempt was the last one."""
        return attempt >= self.attempts


class Retry:
    """Tries something again after a ``RetryableError``, until the back-off is spent.

    ::

        Retry(Backoff(), run.sleep).call(lambda: self._session.get(url))

    Args:
        backoff: How often, and how long to wait in between.
        sleep: Waits; ``run.sleep`` in a component, which ends at once when the run stops.
        on_retry: Called before each wait with the reason and the number of seconds.
    """

    def __init__(
        self,
        backoff: Backoff,
        sleep: Callable[[float], object],
        *,
        on_retry: Callable[[Exception, float], object] = lambda error, seconds: None,
    ) -> None:
        self._backoff, self._sleep, self._on_retry, self._failed = backoff, sleep, on_retry, 0

    def call(
        self,
        attempt: Callable[[], T],
        *,
        failed: Callable[[], object] = lambda: None,
        after: type[Exception] = RetryableError,
    ) -> T:
        """Return the result of the first attempt that succeeds.

        Args:
            attempt: Called until it returns; any error that is not an ``after`` is raised at once.
            failed: Called after each failure, also after the last one, before the wait.
            after: After which errors it is tried again.
        """
        while True:
            try:
                return attempt()
            except after as error:
                failed()
                self.wait(error)

    def wait(self, error: Exception) -> None:
        """Wait after a failure, as long as the back-off and the other side ask.

        Raises:
            Exception: ``error`` itself, if no attempt is left.
        """
        self._failed += 1
        if self._backoff.spent(self._failed):
            raise error
        retry_after = error.retry_after if isinstance(error, RetryableError) else None
        seconds = self._backoff.wait(self._failed, retry_after=retry_after)
        self._on_retry(error, seconds)
        self._sleep(seconds)

    def start_over(self) -> None:
        """Forget the failures so far: something went well in between."""
        self._failed = 0


class RateBucket:
    """A token bucket: at most ``burst`` calls at once and ``rate`` calls a second on average.

    Thread-safe; share one between streams and runs with ``run.shared(key, make)``.

    Args:
        rate: Calls per second, above 0.
        burst: Calls that may come at once, 1 or more.
        clock: Monotonic seconds; a test gives its own.
    """

    def __init__(self, rate: float, *, burst: float = 1, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate > 0 and burst >= 1):
            raise ValueError(f"rate must be above 0 and burst at least 1, not {rate} and {burst}")
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._at = float(burst), clock()
        self._paused_until = self._at
        self._lock = threading.Lock()

    def reserve(self, calls: float = 1) -> float:
        """Take tokens now; returns how many seconds to wait before the calls may be made."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            self._tokens -= calls
            return max(0.0, -self._tokens / self._rate, self._paused_until - now)

    def pause(self, seconds: float) -> None:
        """Let no call start for so many seconds, as a ``Retry-After`` asks; at most one hour."""
        if seconds > 0:
            with self._lock:
                until = self._clock() + min(seconds, RETRY_AFTER_LIMIT_SECONDS)
                self._paused_until = max(self._paused_until, until)

    def take(self, sleep: Callable[[float], object], calls: float = 1) -> None:
        """Wait for the tokens with ``run.sleep``, which ends at once when the run stops."""
        seconds = self.reserve(calls)
        if seconds > 0:
            sleep(seconds)
