"""Assertions of the conformance tests: contracts, deadlines, open files, and secrets that must stay hidden."""

from __future__ import annotations

import base64
import json
import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from muxly.component import Notice, Run
from muxly.options import Secret

__all__ = [
    "WatchedRun",
    "chain",
    "cursor_problem",
    "expect",
    "expect_hidden",
    "hashable",
    "open_files",
    "package",
    "quietly",
    "revealed",
    "traced",
    "with_references",
    "within",
]

_SCALARS = (bool, int, float, str, date, datetime, Decimal)


def expect(condition: object, contract: str, seen: object = None) -> None:
    """Fail unless the condition holds, quoting the contract and what was seen.

    Args:
        condition: Whether the contract is kept.
        contract: The contract, as a sentence.
        seen: What happened instead.

    Raises:
        AssertionError: The condition does not hold.
    """
    __tracebackhide__ = True
    if not condition:
        instead = "" if seen is None else f"\n  seen: {_shortened(seen)}"
        raise AssertionError(f"\n  the contract says: {contract}{instead}")


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


def cursor_problem(value: Any, path: str = "cursor") -> str | None:
    """Explain why a value would not come back from the store equal and of the same type; None = it would."""
    if isinstance(value, dict):
        if wrong := [key for key in value if type(key) is not str]:
            return f"{path} has the key {wrong[0]!r}, which is not text"
        return _first(cursor_problem(part, f"{path}[{key!r}]") for key, part in value.items())
    if type(value) is list:
        return _first(cursor_problem(part, f"{path}[{index}]") for index, part in enumerate(value))
    if value is not None and type(value) not in _SCALARS:
        return f"{path} is a {type(value).__name__}; a list, dict, text, number, date or Decimal comes back equal"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON cannot hold"
    return None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def hashable(value: Any) -> Any:
    """A hashable form of a value; equal for equal values, NaN included."""
    if isinstance(value, dict):
        return tuple((key, hashable(value[key])) for key in sorted(value) if value[key] is not None)
    if isinstance(value, list | tuple):
        return tuple(hashable(part) for part in value)
    if isinstance(value, float) and math.isnan(value):
        return "not a number"
    return (type(value).__name__, value) if isinstance(value, bool) else value


class WatchedRun(Run):
    """A run that keeps its notices in ``noticed`` and stops when ``stop`` is set."""

    def __init__(self) -> None:
        self.noticed: list[Notice] = []
        self.stop = threading.Event()
        super().__init__("01JW000000MUXLYTESTRUN0000", "conformance", stop=self.stop, on_notice=self.noticed.append)


def quietly(contract: str, call: Callable[[], object]) -> None:
    """Expect that a call raises nothing."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 (any is a breach)
        expect(condition=False, contract=contract, seen=f"{type(error).__name__}: {error}")


def within(seconds: float, contract: str, call: Callable[[], object]) -> None:
    """Expect that a call ends in time, with a result or an error; only an AssertionError is passed on."""
    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: _call_catching(call, errors), daemon=True)
    thread.start()
    thread.join(seconds)
    expect(not thread.is_alive(), contract, f"still busy after {seconds} s")
    if errors and isinstance(errors[0], AssertionError):
        raise errors[0]


def _call_catching(call: Callable[[], object], errors: list[Exception]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (the waiting thread examines it)
        errors.append(error)


def package(kind: type) -> str:
    """The top-level package of a class."""
    return kind.__module__.partition(".")[0]


def open_files(*, at_most: int | None = None) -> int:
    """The number of files and sockets that this process has open; 0 where the system does not say.

    Args:
        at_most: Wait up to two seconds until no more than this are open: a server that the test runs
            in this process closes a socket a moment after its client has.
    """
    folder, deadline = Path("/proc/self/fd"), time.monotonic() + 2
    if not folder.is_dir():
        return 0
    while (count := len(list(folder.iterdir()))) > (count if at_most is None else at_most):
        if time.monotonic() > deadline:
            break
        threading.Event().wait(0.02)  # time.sleep is watched in these tests
    return count


SHORTEST_SECRET = 4
"""Characters; shorter texts occur in others by chance."""

_MIXED = (0, 2, 3)
"""Number of base64 characters that 0, 1 or 2 neighbouring bytes influence: three bytes are four characters."""


def chain(error: BaseException) -> str:
    """The texts and arguments of an error and of its causes."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < 50:
        texts.append(f"{current!r} {current} {current.args!r} {vars(current)!r}")
        current = current.__cause__ or current.__context__
    return "\n".join(texts)


def traced(error: BaseException, package: str) -> str:
    """The local variables of a package's own functions in the tracebacks of an error and its causes.

    Error reporters send local variables along. Those of the libraries below are not the author's to choose.
    """
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < 500:
        for frame, _line in traceback.walk_tb(current.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] == package:
                texts += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
        current = current.__cause__ or current.__context__
    return "\n".join(texts)


def expect_hidden(secrets: list[str], places: dict[str, str]) -> None:
    """Expect that none of the texts contains a secret, in any form in which secrets travel.

    Args:
        secrets: The secrets.
        places: The texts, by the place where each was found.
    """
    for name, text in places.items():
        leaks = [form for secret in secrets for form, spelt in _forms(secret).items() if spelt in text]
        expect(
            not leaks,
            "a secret is shown nowhere; it stays a muxly.Secret until it is sent",
            f"one is in {name}, {leaks[0] if leaks else ''}",
        )


def _forms(secret: str) -> dict[str, str]:
    """The forms that a secret may take: as it is, in a URL, in JSON, in base64 at each of three offsets."""
    spellings = {"as it is": secret, "percent-encoded": quote(secret, safe=""), "in JSON": json.dumps(secret)[1:-1]}
    content = secret.encode()
    for shift in range(3):
        # Bytes before and after the secret change the characters at both ends; these are cut off.
        coded = base64.b64encode(bytes(shift) + content).decode()
        core = coded[_MIXED[shift] : len(coded) - _MIXED[-(shift + len(content)) % 3]]
        if len(core) > SHORTEST_SECRET:
            spellings[f"in base64, place {shift}"] = core
            spellings[f"in base64 for URLs, place {shift}"] = core.translate(str.maketrans("+/", "-_"))
    return spellings


def revealed(value: Any) -> list[str]:
    """All secrets in a value, except those shorter than ``SHORTEST_SECRET``."""
    if isinstance(value, Secret):
        secret = value.reveal()
        return [secret] if len(secret) >= SHORTEST_SECRET else []
    return [secret for part in _parts(value) for secret in revealed(part)]


def _parts(value: Any) -> list[Any]:
    if attrs.has(type(value)):
        return [getattr(value, field.name) for field in attrs.fields(type(value))]
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def with_references(value: Any, setenv: Callable[[str, str], None]) -> Any:
    """The value with each literal secret replaced by a reference to the environment, so that it pickles.

    Args:
        value: A component, or a part of one.
        setenv: Sets a variable of the environment.
    """
    if isinstance(value, Secret):
        return value if value.reference is not None else _reference(value, setenv)
    if attrs.has(type(value)) and (names := _init_names(value)):
        changed = {name: with_references(getattr(value, name), setenv) for name in names}
        return attrs.evolve(value, **changed) if any(changed[n] is not getattr(value, n) for n in names) else value
    if isinstance(value, dict):
        return {key: with_references(part, setenv) for key, part in value.items()} if revealed(value) else value
    if isinstance(value, list):
        return [with_references(part, setenv) for part in value] if revealed(value) else value
    return value


def _init_names(value: Any) -> list[str]:
    return [field.name for field in attrs.fields(type(value)) if field.init]


def _reference(secret: Secret, setenv: Callable[[str, str], None]) -> Secret:
    name = f"MUXLY_TEST_SECRET_{len([key for key in os.environ if key.startswith('MUXLY_TEST_SECRET_')])}"
    setenv(name, secret.reveal())
    return Secret.from_reference(f"${{{name}}}")
