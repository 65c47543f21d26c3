"""The names of the package: one map, which type checkers and the machine read alike."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import muxly


def seen_by_type_checkers() -> dict[str, set[str]]:
    """The names that stand below ``if TYPE_CHECKING``, by module; all are re-exported."""
    tree = ast.parse(Path(muxly.__file__).read_text(encoding="utf-8"))
    names: dict[str, set[str]] = defaultdict(set)
    for block in tree.body:
        for statement in block.body if isinstance(block, ast.If) else ():
            if isinstance(statement, ast.ImportFrom):
                assert [alias.asname for alias in statement.names] == [alias.name for alias in statement.names]
                names[str(statement.module)] |= {alias.name for alias in statement.names}
    return names


def test_type_checkers_and_python_see_the_same_names() -> None:
    seen = seen_by_type_checkers()
    assert seen.pop("muxly") == muxly._SUBMODULES
    assert seen == {module: set(names) for module, names in muxly._MODULES.items()}


def test_every_name_is_there_and_is_listed_once() -> None:
    assert dir(muxly) == sorted(set(muxly.__all__))
    assert [name for name in muxly.__all__ if getattr(muxly, name, None) is None and name != "Cursor"] == []


def test_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'muxly' has no attribute 'Rooter'"):
        _ = muxly.Rooter


def test_modules_of_the_rest_need_no_import_of_their_own() -> None:
    program = "import muxly; print(muxly.errors.FencedError.__name__, muxly.scheduler.Scheduler.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "FencedError Scheduler\n"
