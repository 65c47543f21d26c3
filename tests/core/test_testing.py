"""``muxly.testing`` says what to install."""

from __future__ import annotations

import importlib

import pytest


def test_import_of_the_test_kit_from_the_core_names_its_distribution() -> None:
    with pytest.raises(ModuleNotFoundError, match="run `pip install muxly-testing` and import them from") as caught:
        importlib.import_module("muxly.testing")
    assert caught.value.name == "muxly_testing"
    with pytest.raises(ModuleNotFoundError, match="pip install muxly-testing"):
        exec("from muxly import testing")
