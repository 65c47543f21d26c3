"""One object per process and key, whatever the threads do, closed when nobody holds it."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

import muxly

KEYS = (f"test-{number}" for number in itertools.count())


class Server:
    """Counts how many of its kind are open at the same time."""

    alive = 0
    most = 0

    def __init__(self) -> None:
        self.closed = 0
        time.sleep(0.001)
        Server.alive += 1
        Server.most = max(Server.most, Server.alive)

    def close(self) -> None:
        time.sleep(0.001)
        self.closed += 1
        Server.alive -= 1


def run() -> muxly.Run:
    return muxly.Run("01J", "daily")


def test_runs_share_one_object_and_the_last_one_closes_it() -> None:
    key, one, other = next(KEYS), run(), run()
    server = one.shared(key, Server)
    assert other.shared(key, Server) is one.shared(key, Server) is server
    one.end()
    assert server.closed == 0
    other.end()
    other.end()
    assert server.closed == 1


def test_later_run_gets_a_new_object() -> None:
    key, one, other = next(KEYS), run(), run()
    first = one.shared(key, Server)
    one.end()
    assert other.shared(key, Server) is not first
    other.end()


def test_objects_without_close_are_shared_too() -> None:
    key, one = next(KEYS), run()
    assert one.shared(key, dict) is one.shared(key, dict)
    one.end()


def test_failed_attempt_to_make_it_is_tried_again() -> None:
    key, one = next(KEYS), run()
    with pytest.raises(ZeroDivisionError, match="division"):
        one.shared(key, lambda: 1 // 0)
    assert one.shared(key, lambda: 5) == 5
    one.end()


def test_shared_none_is_made_once() -> None:
    key, one, made = next(KEYS), run(), list[None]()
    for _ in range(2):
        one.shared(key, lambda: made.append(None))
    assert len(made) == 1
    one.end()


def test_object_that_fails_to_close_does_not_keep_others_open() -> None:
    class Failing:
        def close(self) -> None:
            raise OSError("cannot be closed")

    one, server_key, failing_key = run(), next(KEYS), next(KEYS)
    one.shared(failing_key, Failing)
    server = one.shared(server_key, Server)
    with pytest.raises(OSError, match="cannot be closed"):
        one.end()
    assert server.closed == 1
    later = run()
    assert later.shared(failing_key, lambda: 7) == 7
    later.end()


def test_two_are_never_open_at_once_in_a_storm_of_runs() -> None:
    """A port can be bound once: while the old one closes, the new one waits."""
    key, failed = next(KEYS), list[str]()
    Server.alive = Server.most = 0

    def storm() -> None:
        for _ in range(20):
            one = run()
            if one.shared(key, Server).closed:
                failed.append("a closed one was given")
            one.end()

    threads = [threading.Thread(target=storm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (Server.most, Server.alive) == (1, 0)


def test_making_one_object_does_not_hold_up_another() -> None:
    slow, quick, going = next(KEYS), next(KEYS), threading.Event()
    one = run()

    def wait() -> int:
        going.wait(10)
        return 1

    thread = threading.Thread(target=lambda: one.shared(slow, wait))
    thread.start()
    assert one.shared(quick, lambda: 2) == 2
    going.set()
    thread.join()
    one.end()


def test_run_that_has_ended_gets_nothing_more() -> None:
    """A thread that was left behind asks; nobody would ever close what it got."""
    key, one = next(KEYS), run()
    one.shared(key, Server)
    one.end()
    with pytest.raises(muxly.StoppedError, match="the run has ended"):
        one.shared(key, Server)
    later = run()
    assert later.shared(key, dict) == {}
    later.end()
