"""A router whose library is missing says what to install."""

from __future__ import annotations

import re

import pytest

import muxly
from muxly_routers._extras import needs


def test_missing_library_names_the_extra_that_brings_it() -> None:
    message = 'needs the package no_such_sdk, which is not installed; run: pip install "muxly-routers[s3]"'
    with pytest.raises(muxly.PluginError, match=re.escape(message)), needs("s3"):
        import no_such_sdk  # type: ignore[import-not-found]  # noqa: F401


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), needs("s3"):
        raise ValueError("mine")
