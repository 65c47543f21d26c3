"""Shortcuts of the tests of loading."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

import muxly
from muxly import config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from muxly.config import Configuration

SHELF = "{type: 'tests.core.config.components:Shelf', path: out}"
NUMBERS = "{type: 'tests.core.config.components:Numbers', token: t}"


def write(folder: Path, text: str, name: str = "muxly.yaml") -> Path:
    """A file with the text; ``SHELF`` and ``NUMBERS`` in it stand for a router and a connector."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).replace("SHELF", SHELF).replace("NUMBERS", NUMBERS), encoding="utf-8")
    return path


def load(
    path: Path,
    *,
    profile: str | None = None,
    sets: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    """The configuration in an environment of its own."""
    return config.load(path, profile=profile, sets=sets, environ=environ or {})


def errors(
    path: Path,
    *,
    profile: str | None = None,
    sets: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """What is wrong with a configuration, files named by their names alone."""
    with pytest.raises(muxly.ConfigurationError, match=": ") as caught:
        load(path, profile=profile, sets=sets, environ=environ).validate()
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]
