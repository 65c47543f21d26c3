"""Finding the secrets of a component, and looking for them where they must not be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from muxly.options import Secret
from muxly.testing.expectations import expect

if TYPE_CHECKING:
    from collections.abc import Callable


def chain(error: BaseException) -> str:
    """The texts of an error and of all errors behind it."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < 50:
        texts.append(f"{current!r} {current}")
        current = current.__cause__ or current.__context__
    return "\n".join(texts)


def expect_hidden(secrets: list[str], places: dict[str, str]) -> None:
    """Expect that no secret is in any of the texts."""
    for name, text in places.items():
        found = [secret for secret in secrets if secret in text]
        expect(not found, "a secret is shown nowhere; it stays a muxly.Secret until it is sent", f"one is in {name}")


def revealed(value: Any) -> list[str]:
    """All secrets in a value, except short ones, which other texts contain by chance."""
    if isinstance(value, Secret):
        secret = value.reveal()
        return [secret] if len(secret) >= 4 else []
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
