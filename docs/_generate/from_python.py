"""Hooks, errors, exit codes, commands, layers and measurements as Markdown, from where they are."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import tomli

import muxly
from muxly import errors, hookspecs
from muxly.cli import _exits
from muxly.cli._app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
_WIDTH = 96


def prose(text: str | None) -> str:
    """A docstring as Markdown: double backquotes become single ones, arguments become a list."""
    lines = []
    for line in inspect.cleandoc(text or "").replace("``", "`").splitlines():
        argument = re.match(r"    (\w+): (.*)", line)
        if line in {"Args:", "Returns:", "Raises:"}:
            continue
        lines.append(f"- `{argument[1]}`: {argument[2]}" if argument else re.sub(r"^ {8}", "  ", line))
    return "\n".join(lines)


def _signature(function: object, name: str) -> str:
    shown = str(inspect.signature(function))  # type: ignore[arg-type]
    return f"```text\n{name}{re.sub(chr(39), '', shown)}\n```"


def hooks(kind: str) -> str:
    """The hooks that provide components, or those that observe runs."""
    names = [name for name in hookspecs.__all__ if name != "hookimpl"]
    providing = ("muxly_connector", "muxly_router", "muxly_scheduler")
    chosen = [name for name in names if (name in providing) == (kind == "components")]
    parts = []
    for name in chosen:
        hook = getattr(hookspecs, name)
        parts.append(f"### `{name}`\n\n{_signature(hook, name)}\n\n{prose(hook.__doc__)}")
    return "\n\n".join(parts)


def error_tree() -> str:
    """The tree as the module draws it."""
    drawn = (errors.__doc__ or "").split("::\n", 1)[1]
    tree = [line for line in drawn.splitlines() if line.startswith("    ")]
    return "```text\n" + "\n".join(line[4:] for line in tree) + "\n```"


def error_list() -> str:
    """A heading for each error, with what it means and what it carries."""
    return "\n\n".join(f"### `{name}`\n\n{prose(error.__doc__)}" for name, error in _errors().items())


def _errors() -> dict[str, type[Exception]]:
    """All errors of the tree in its order, then those that are defined elsewhere."""
    tree = {name: error for name, error in vars(errors).items() if name in errors.__all__}
    return tree | {name: getattr(muxly, name) for name in muxly.__all__ if name.endswith("Error") and name not in tree}


def exit_codes() -> str:
    """A heading for each exit code."""
    tree = ast.parse(inspect.getsource(_exits.ExitCode))
    body = tree.body[0].body  # type: ignore[attr-defined]
    parts = []
    for code, said in zip(body[1::2], body[2::2], strict=True):
        parts.append(f"### {ast.literal_eval(code.value)}: {code.targets[0].id}\n\n{ast.literal_eval(said.value)}")
    return "\n\n".join(parts)


def commands() -> str:
    """The help of every command."""
    with click.Context(app, info_name="muxly", terminal_width=_WIDTH, max_content_width=_WIDTH) as context:
        return "\n\n".join(_command(app, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context).strip()}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            with click.Context(child, info_name=name, parent=context) as inner:
                yield from _command(child, inner)


def layers() -> str:
    """The layers of ``muxly`` that import-linter holds, each with what its modules say about themselves."""
    return _layers("layers", "muxly")


def runner_layers() -> str:
    """The same for the layers of the runner."""
    return _layers("runner-layers", "muxly._runner")


def _layers(contract_id: str, package: str) -> str:
    tools = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == contract_id]
    lines = ["| layer | modules | what lives there |", "|---|---|---|"]
    for number, layer in enumerate(layers):
        names = re.findall(r"\w+", layer)
        shown = re.sub(r"(\w+)", r"`\1`", layer).replace(" | ", ", ")
        purposes = "; ".join(_purpose(f"{package}.{name}") for name in names)
        lines.append(f"| {len(layers) - number} | {shown} | {purposes} |")
    return "\n".join(lines)


def runner_modules() -> str:
    """The modules of the runner's wings, each with its first line."""
    lines = ["| module | what is in it |", "|---|---|"]
    for wing in ("extract", "deliver", "schema"):
        folder = ROOT / "muxly-core/src/muxly/_runner" / wing
        lines += [
            f"| `{wing}/{path.name}` | {_purpose(f'muxly._runner.{wing}.{path.stem}')} |"
            for path in sorted(folder.glob("[!_]*.py"))
        ]
    return "\n".join(lines)


def benchmarks() -> str:
    """When and where the benchmarks ran last, and what they must reach."""
    results = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    return results.split("\n## ", 1)[0].split("\n\n", 2)[2]


def _purpose(name: str) -> str:
    module = importlib.util.find_spec(name)
    assert module is not None
    assert module.origin is not None
    doc = ast.get_docstring(ast.parse(Path(module.origin).read_text(encoding="utf-8"))) or "the machinery of runs"
    return doc.splitlines()[0].rstrip(".").replace("``", "`")


PARTS: dict[str, Callable[[], str]] = {
    "benchmarks": benchmarks,
    "commands": commands,
    "error list": error_list,
    "error tree": error_tree,
    "exit codes": exit_codes,
    "hooks of components": lambda: hooks("components"),
    "hooks of observers": lambda: hooks("observers"),
    "layers": layers,
    "runner layers": runner_layers,
    "runner modules": runner_modules,
}
