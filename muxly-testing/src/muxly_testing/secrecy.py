"""Finding the secrets of a component, and looking for them where they must not be."""

from __future__ import annotations

import base64
import json
import os
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from muxly.options import Secret
from muxly_testing.expectations import expect

if TYPE_CHECKING:
    from collections.abc import Callable

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
