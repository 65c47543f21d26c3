"""Assertions that say what the contract says, and what was seen instead."""

from __future__ import annotations

import base64
import json
import math
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from muxly.component import Notice, Run
from muxly.options import Secret

__all__ = ["WatchedRun", "open_files", "package", "quietly", "within"]


_SCALARS = (bool, int, float, str, date, datetime, Decimal)


def expect(condition: object, contract: str, seen: object = None) -> None:
    """Fail with both sides unless the condition holds.

    Args:
        condition: Whether the contract is kept.
        contract: What the contract says, as a sentence.
        seen: What happened instead.

    Raises:
        AssertionError: It does not hold.
    """
    __tracebackhide__ = True
    if not condition:
        found = "" if seen is None else f"\n  seen: {shown(seen)}"
        raise AssertionError(f"\n  the contract says: {contract}{found}")


def shown(value: object) -> str:
    """A short form of a value for a message."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


def cursor_problem(value: Any, path: str = "cursor") -> str | None:
    """Why a value would not come back from the store equal and of the same type, or None."""
    if isinstance(value, dict):
        if wrong := [key for key in value if type(key) is not str]:
            return f"{path} has the key {wrong[0]!r}, which is not text"
        return _first(cursor_problem(one, f"{path}[{key!r}]") for key, one in value.items())
    if type(value) is list:
        return _first(cursor_problem(one, f"{path}[{index}]") for index, one in enumerate(value))
    if value is not None and type(value) not in _SCALARS:
        return f"{path} is a {type(value).__name__}; a list, dict, text, number, date or Decimal comes back equal"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON cannot hold"
    return None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((one for one in problems if one is not None), None)


def hashable(value: Any) -> Any:
    """A hashable form of a value; equal for equal values, NaN included."""
    if isinstance(value, dict):
        return tuple((key, hashable(value[key])) for key in sorted(value) if value[key] is not None)
    if isinstance(value, list | tuple):
        return tuple(hashable(one) for one in value)
    if isinstance(value, float) and math.isnan(value):
        return "not a number"
    return (type(value).__name__, value) if isinstance(value, bool) else value


def counted(records: Iterable[Mapping[str, Any]]) -> Counter[Any]:
    """How often each record is there; a null and a missing value are the same."""
    return Counter(hashable(record) for record in records)


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
    """Expect that a call ends in time; what it returns or raises does not matter."""
    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: _gather(call, errors), daemon=True)
    thread.start()
    thread.join(seconds)
    expect(not thread.is_alive(), contract, f"still busy after {seconds} s")
    if errors and isinstance(errors[0], AssertionError):
        raise errors[0]


def _gather(call: Callable[[], object], errors: list[Exception]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (the thread that waits looks at it)
        errors.append(error)


def package(kind: type) -> str:
    """The top-level package of a class."""
    return kind.__module__.partition(".")[0]


def open_files(*, at_most: int | None = None) -> int:
    """How many files and sockets this process holds; 0 where the system does not tell.

    Args:
        at_most: Wait up to two seconds until there are so few: a server that the test runs in this
            process lets go of a socket a moment after its client has.
    """
    folder, patience = Path("/proc/self/fd"), time.monotonic() + 2
    if not folder.is_dir():
        return 0
    while (held := len(list(folder.iterdir()))) > (held if at_most is None else at_most):
        if time.monotonic() > patience:
            break
        threading.Event().wait(0.02)  # time.sleep is watched in these tests
    return held


SHORTEST = 4
"""Shorter texts are in others by chance."""

_MIXED = (0, 2, 3)
"""So many characters of base64 depend on so many bytes beside: three bytes are four characters."""


def chain(error: BaseException) -> str:
    """The texts and arguments of an error and of all errors behind it."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < 50:
        texts.append(f"{current!r} {current} {current.args!r} {vars(current)!r}")
        current = current.__cause__ or current.__context__
    return "\n".join(texts)


def traced(error: BaseException, package: str) -> str:
    """The local variables of a package's own functions that the error came through.

    Error reporters send them along. Those of the libraries below are not the author's to choose.
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
    """Expect that no secret is in any of the texts, in none of the forms in which secrets travel."""
    for name, text in places.items():
        found = [form for secret in secrets for form, spelt in forms(secret).items() if spelt in text]
        expect(
            not found,
            "a secret is shown nowhere; it stays a muxly.Secret until it is sent",
            f"one is in {name}, {found[0] if found else ''}",
        )


def forms(secret: str) -> dict[str, str]:
    """How a secret may be spelt: as it is, in a URL, in JSON, in base64 at each of the three places of a byte."""
    found = {"as it is": secret, "percent-encoded": quote(secret, safe=""), "in JSON": json.dumps(secret)[1:-1]}
    content = secret.encode()
    for shift in range(3):
        # What stands before and after changes the characters at both ends, which are left away.
        coded = base64.b64encode(bytes(shift) + content).decode()
        core = coded[_MIXED[shift] : len(coded) - _MIXED[-(shift + len(content)) % 3]]
        if len(core) > SHORTEST:
            found[f"in base64, place {shift}"] = core
            found[f"in base64 for URLs, place {shift}"] = core.translate(str.maketrans("+/", "-_"))
    return found


def revealed(value: Any) -> list[str]:
    """All secrets in a value, except short ones, which other texts contain by chance."""
    if isinstance(value, Secret):
        secret = value.reveal()
        return [secret] if len(secret) >= SHORTEST else []
    return [secret for part in _parts(value) for secret in revealed(part)]


def _parts(value: Any) -> list[Any]:
    if attrs.has(type(value)):
        return [getattr(value, field.name) for field in attrs.fields(type(value))]
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def with_references(value: Any, setenv: Callable[[str, str], None]) -> Any:
    """The value with each bare secret moved into the environment, so that it pickles."""
    if isinstance(value, Secret):
        return value if value.reference is not None else _reference(value, setenv)
    if attrs.has(type(value)) and (names := _init_names(value)):
        changed = {name: with_references(getattr(value, name), setenv) for name in names}
        return attrs.evolve(value, **changed) if any(changed[n] is not getattr(value, n) for n in names) else value
    if isinstance(value, dict):
        return {key: with_references(one, setenv) for key, one in value.items()} if revealed(value) else value
    if isinstance(value, list):
        return [with_references(one, setenv) for one in value] if revealed(value) else value
    return value


def _init_names(value: Any) -> list[str]:
    return [field.name for field in attrs.fields(type(value)) if field.init]


def _reference(secret: Secret, setenv: Callable[[str, str], None]) -> Secret:
    name = f"MUXLY_TEST_SECRET_{len([key for key in os.environ if key.startswith('MUXLY_TEST_SECRET_')])}"
    setenv(name, secret.reveal())
    return Secret.from_reference(f"${{{name}}}")
