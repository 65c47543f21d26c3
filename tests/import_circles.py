"""Circles of imports between the modules of the distributions; ``python tests/import_circles.py`` prints them.

Every import counts: for types only, inside a function, and of a name from a package's ``__init__``. Python
tolerates many of these circles, a reader does not: of the modules in one, none can be understood alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]
"""The modules that each module imports."""


def import_graph(root: Path) -> Graph:
    """The imports among all modules below ``muxly-*/src``."""
    files = {
        _module(path.relative_to(source)): path for source in root.glob("muxly-*/src") for path in source.rglob("*.py")
    }
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    return {
        name: {target for target in _imports(tree, trees) if target in trees} - {name} for name, tree in trees.items()
    }


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in known else node.module


def circles(graph: Graph) -> list[list[str]]:
    """The largest groups of modules in which each leads to every other."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(group) for group in groups if group)


def _reachable(graph: Graph, start: str) -> set[str]:
    reached, pending = set[str](), [start]
    while pending:
        fresh = graph[pending.pop()] - reached
        reached |= fresh
        pending += fresh
    return reached


if __name__ == "__main__":
    found = circles(import_graph(Path(__file__).parent.parent))
    for circle in found:
        print(*circle, sep=" <-> ")
    sys.exit(bool(found))
