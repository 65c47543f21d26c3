"""Conformance tests shared by connectors and routers."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import threading
import time
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from muxly.component import Component, Notice, Run
from muxly.errors import MuxlyError
from muxly_testing._expectations import (
    WatchedRun,
    chain,
    expect,
    expect_hidden,
    open_files,
    package,
    quietly,
    revealed,
    traced,
    with_references,
    within,
)

__all__ = ["ComponentConformance"]

CONTRACTS = ("muxly.connector", "muxly.router", "muxly.scheduler")


class ComponentConformance:
    """Tests of options, opening and closing, secrets and resources; the base of both conformance classes."""

    stop_seconds: ClassVar[float] = 10.0
    """Seconds within which a component must end when its run stops, or its system is unreachable."""

    hang_seconds: ClassVar[float] = 15.0
    """Seconds within which the component that ``hanging`` gives must give up a system that never answers."""

    @abstractmethod
    def component(self, tmp_path: Path) -> Component:
        """The component under test; overridden by the two conformance classes."""
        raise NotImplementedError

    @abstractmethod
    def work(self, component: Component) -> object:
        """Do with the opened component all that a run does; overridden by the two conformance classes.

        Returns:
            Values from the component that the runner keeps; they must contain no secret.
        """
        raise NotImplementedError

    def broken(self, tmp_path: Path) -> Component | None:
        """The component with options that cannot work: a closed port, a wrong password.

        Override it so that errors are tested too; None = there is no such set-up.
        """
        return None

    def hanging(self, tmp_path: Path) -> Component | None:
        """The component with a system that accepts the connection and never answers, and short deadlines.

        Override it to test that the component gives up by itself; None = its system
        cannot hang. The test does not stop the run.
        """
        return None

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
        """The component, not opened, its secrets in the environment."""
        made: Component = with_references(self.component(tmp_path / "inside" / "deep"), monkeypatch.setenv)
        self._package = package(type(made))
        return made

    @pytest.fixture
    def run(self) -> Iterator[WatchedRun]:
        """A run; its shared objects are closed at the end."""
        run = WatchedRun()
        yield run
        run.end()

    @pytest.fixture
    def opened(self, made: Component, run: Run) -> Iterator[Component]:
        """A private copy of the component, opened as the runner does it."""
        component = copy.deepcopy(made)
        component.open(run)
        yield component
        component.close()

    @pytest.fixture(autouse=True)
    def _no_sleep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let components wait with ``run.sleep`` only, which ends when the run stops."""
        sleep = time.sleep

        def watched(seconds: float) -> None:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            expect(
                caller.partition(".")[0] != self._package or seconds < 0.1,
                "a component waits with run.sleep(seconds), which ends at once when the run stops",
                f"time.sleep({seconds}) in {caller}",
            )
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", watched)

    _package = ""

    def test_options_are_keyword_only(self, made: Component) -> None:
        """Options may be added and reordered without breaking anyone."""
        fields = attrs.fields(type(made))
        positional = [field.name for field in fields if field.init and not field.kw_only]
        expect(not positional, "all options of a component are keyword-only", positional)

    def test_options_hide_no_method(self, made: Component) -> None:
        """An option named ``read`` would replace the method."""
        contract = next(kind for kind in type(made).__mro__ if kind.__module__ in CONTRACTS)
        hidden = [field.name for field in attrs.fields(type(made)) if hasattr(contract, field.name)]
        expect(not hidden, f"an option is not named like a part of muxly.{contract.__name__}", hidden)

    def test_unopened_component_pickles_and_comes_back_equal(self, made: Component) -> None:
        """It travels to the workers of an executor."""
        again = pickle.loads(pickle.dumps(made))  # noqa: S301 (our own bytes)
        expect(again == made, "an unopened component pickles, and comes back equal", f"{made!r} became {again!r}")

    def test_opening_a_copy_leaves_the_value_as_it_was(self, made: Component, run: Run) -> None:
        """The runner opens copies; the user's component stays a value."""
        before = repr(made)
        component = copy.deepcopy(made)
        component.open(run)
        component.close()
        expect(repr(made) == before, "open changes only the copy that is opened", f"{before} became {made!r}")
        pickle.dumps(made)

    def test_close_may_come_twice_and_without_open(self, made: Component, run: Run) -> None:
        """``close`` is called after a failed ``open`` too."""
        never = copy.deepcopy(made)
        quietly("close is called after a failed open, so it works without one", never.close)
        quietly("close may be called more than once", never.close)
        component = copy.deepcopy(made)
        component.open(run)
        component.close()
        quietly("close may be called more than once", component.close)

    def test_component_can_be_opened_again(self, made: Component, run: Run) -> None:
        """After an error the runner closes and opens it before the next attempt."""
        component = copy.deepcopy(made)
        for _ in range(2):
            component.open(run)
            self.work(component)
            component.close()

    def test_check_returns_notices(self, opened: Component) -> None:
        """``muxly check`` shows them."""
        notices: list[object] = list(opened.check())
        wrong = [notice for notice in notices if not isinstance(notice, Notice)]
        expect(not wrong, "check returns muxly.Notice objects", wrong)
        errors = [notice.message for notice in notices if isinstance(notice, Notice) and notice.level == "error"]
        expect(not errors, "check finds no error in a set-up that works", errors)

    def test_secrets_are_shown_nowhere(
        self,
        made: Component,
        run: WatchedRun,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Not in ``repr``, pickles, logs, warnings, output, notices or what the runner keeps; not encoded either."""
        caplog.set_level(logging.DEBUG)
        component = copy.deepcopy(made)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            component.open(run)
            kept = self.work(component)
            places = {
                **_representations(component),
                "pickle": repr(pickle.dumps(made)),
                "what it gives to keep": repr(kept),
            }
            component.close()
        places |= _outputs(capfd, caplog, run)
        places["a warning"] = "\n".join(str(warning.message) for warning in warned)
        expect_hidden(revealed(made), places)

    def test_component_prints_nothing(self, opened: Component, capfd: pytest.CaptureFixture[str]) -> None:
        """Standard output belongs to the command line; ``run.notice`` informs people."""
        self.work(opened)
        out = capfd.readouterr().out
        expect(not out, "a component prints nothing; it uses run.notice or logging", out)

    def test_close_lets_go_of_threads_and_files(self, made: Component) -> None:
        """A server may run a job ten thousand times."""
        self._cycle(made)
        threads, files = set(threading.enumerate()), open_files()
        for _ in range(3):
            self._cycle(made)
        left = [thread.name for thread in set(threading.enumerate()) - threads if not thread.daemon]
        expect(not left, "close ends the threads that open began", left)
        more = open_files(at_most=files) - files
        expect(more <= 0, "close releases all files and sockets", f"{more} more are open after 3 runs")

    def _cycle(self, made: Component) -> None:
        run = WatchedRun()
        component = copy.deepcopy(made)
        component.open(run)
        self.work(component)
        component.close()
        run.end()

    def test_broken_setup_gives_a_typed_error_without_secrets(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        run: WatchedRun,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """An error says what and where, and never the password."""
        caplog.set_level(logging.DEBUG)
        component = self._or_skip(
            self.broken(tmp_path / "inside" / "deep"), monkeypatch, "broken() gives no component out of reach"
        )
        error = self._error_in_time(
            component, run, self.stop_seconds, "a system that is out of reach is noticed in time"
        )
        expect(isinstance(error, MuxlyError), "what goes wrong outside is a MuxlyError of the right kind", repr(error))
        assert isinstance(error, MuxlyError)
        expect(len(str(error)) > 10, "an error says what, where and the next step", str(error))
        expect(str(pickle.loads(pickle.dumps(error))) == str(error), "errors pickle", repr(error))  # noqa: S301
        places = {"the error": chain(error), "local variables": traced(error, self._package)}
        expect_hidden(revealed(component), {**places, **_representations(component), **_outputs(capfd, caplog, run)})
        quietly("close works after a failure", component.close)

    def test_system_that_never_answers_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: WatchedRun
    ) -> None:
        """By the component's own deadline: the run is not stopped."""
        component = self._or_skip(
            self.hanging(tmp_path / "inside" / "deep"), monkeypatch, "hanging() gives no component that hangs"
        )
        contract = f"a system that takes the connection and never answers is given up after {self.hang_seconds} s"
        error = self._error_in_time(component, run, self.hang_seconds, contract)
        expect(
            isinstance(error, MuxlyError),
            "a system that never answered is a MuxlyError, such as RetryableError, and no success",
            repr(error),
        )
        quietly("close works after a failure", component.close)

    def _or_skip(self, given: Component | None, monkeypatch: pytest.MonkeyPatch, why: str) -> Component:
        """The component that a hook gave, with its secrets in the environment; skips the test if it gave none."""
        if given is None:
            pytest.skip(why)
        self._package = package(type(given))
        component: Component = with_references(given, monkeypatch.setenv)
        return component

    def _error_in_time(self, component: Component, run: Run, seconds: float, contract: str) -> BaseException | None:
        errors: list[BaseException | None] = []
        within(seconds, contract, lambda: errors.append(_error_of(self, component, run)))
        return errors[0]


def _representations(component: Component) -> dict[str, str]:
    return {
        "repr": repr(component),
        "str": f"{component}",
        "attrs.asdict": repr(attrs.asdict(component)),
    }


def _outputs(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, run: WatchedRun) -> dict[str, str]:
    """Everything that was printed, logged (with all attributes of the log records) or noticed."""
    out, err = capfd.readouterr()
    logged = [f"{record.getMessage()} {vars(record)!r}" for record in caplog.records]
    return {"output": out + err, "log": "\n".join([*logged, caplog.text]), "notices": repr(run.noticed)}


def _error_of(test: ComponentConformance, component: Component, run: Run) -> BaseException | None:
    try:
        component.open(run)
        test.work(component)
    except BaseException as error:  # noqa: BLE001 (any error is examined)
        return error
    return None
