"""The functions that the page on architecture names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/explanation/architecture.md"
NAMED = sorted(set(re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)` \|", PAGE.read_text(encoding="utf-8"))))


def definitions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return found


def test_the_way_of_a_batch_has_at_most_twelve_steps() -> None:
    steps = re.findall(r"(?m)^\| (\d+) \|.*\.py` \| `", PAGE.read_text(encoding="utf-8"))
    assert [int(step) for step in steps] == list(range(1, len(steps) + 1))
    assert 1 <= len(steps) <= 12


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_every_function_that_the_page_names_is_in_its_file(file: str, function: str) -> None:
    (path,) = [
        folder / file
        for folder in (ROOT / "muxly-core/src/muxly", ROOT / "muxly-routers/src/muxly_routers")
        if (folder / file).exists()
    ]
    assert function in definitions(path)
