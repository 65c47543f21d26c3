"""The fenced snippets of a page, and what it takes to run them as a reader would."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli
import yaml
from attrs import define, field, frozen

import muxly.config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.forked_commands import Commands

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "docs" / "examples" / "quickstart"
_FENCE = re.compile(r"^(?P<indent> *)```(?P<facts>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_OURS = re.compile(r"muxly [^$`;|&<>*?(){}#]*")
_INSTALLS = re.compile(r"(pip|uv|uvx|git|docker) ")
# What a run says of itself every few seconds, on a busy machine.
_PROGRESS = re.compile(r"\S+: \S+: [\d,]+ (of [\d,]+ )?read; .* (waiting|stopped)$")
# What differs from run to run: ULIDs, times, durations, counters of time, folders.
_VOLATILE = [
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00"), "<time>"),
    (re.compile(r"\bin \d+(\.\d+)? s\b"), "in <n> s"),
    (re.compile(r"\s+"), " "),
]


@frozen
class Snippet:
    """One fenced snippet.

    Args:
        language: The first word of its fence.
        title: The file that it is, if it says so.
        text: What it holds.
        line: Where it begins.
    """

    language: str
    title: str | None
    text: str
    line: int


def snippets(page: str) -> Iterator[Snippet]:
    """All fenced snippets of a page, in order."""
    for found in _FENCE.finditer(page):
        title = _TITLE.search(found["facts"])
        language = found["facts"].split(maxsplit=1)[0] if found["facts"].strip() else ""
        text = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Snippet(language, title[1] if title else None, text, page.count("\n", 0, found.start()) + 1)


@define
class Reader:
    """Somebody who does what a page says, from its first snippet to its last, in a folder of their own.

    The folder begins as a copy of the quickstart's.

    Args:
        folder: Where the page begins; made.
        commands: What runs the commands of Muxly.
        environ: What commands see.
    """

    folder: Path
    commands: Commands
    environ: dict[str, str] = field(factory=dict)
    _names: dict[str, Any] = field(factory=lambda: {"__name__": "page"})
    _place: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        shutil.copytree(QUICKSTART, self.folder, ignore=shutil.ignore_patterns("out", ".muxly"))
        shutil.copytree(self.folder, self.folder / "docs" / "examples" / "quickstart")
        self._place = self.folder
        scripts = str(Path(sys.executable).parent)
        plugins = str(self.folder / ".plugins")
        self.environ |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "160"}
        self.environ |= {"PYTHONPATH": plugins, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder)}

    def do(self, snippet: Snippet) -> None:
        """Do what a snippet says.

        Raises:
            AssertionError: It does not do what the page says.
        """
        if snippet.title is not None:
            self._write(snippet)
        doing: dict[str, Callable[[Snippet], None]] = {
            "console": self._console,
            "json": lambda one: json.loads(one.text),
            "python": self._python,
            "toml": lambda one: tomli.loads(one.text),  # type: ignore[dict-item]
            "yaml": self._yaml,
        }
        if snippet.language in doing:
            doing[snippet.language](snippet)

    def _write(self, snippet: Snippet) -> None:
        assert snippet.title is not None
        path = self._place / snippet.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(snippet.text, encoding="utf-8")

    def _yaml(self, snippet: Snippet) -> None:
        """A configuration is valid; one without `version` is a part that is joined to the file before it."""
        content = yaml.safe_load(snippet.text)
        path = self._place / (snippet.title or "muxly.yaml")
        if "version" not in content:
            content = _joined(yaml.safe_load(path.read_text(encoding="utf-8")), content)
            path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        elif snippet.title is None:
            path.write_text(snippet.text, encoding="utf-8")
        if not path.name.startswith("broken"):
            known = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)", snippet.text), "a-secret")
            muxly.config.load(path, environ=known).validate()

    def _python(self, snippet: Snippet) -> None:
        """Run it, unless it is a file; what it prints is what its comments say."""
        if snippet.title is not None:
            compile(snippet.text, snippet.title, "exec")
            return
        printed = io.StringIO()
        with contextlib.chdir(self._place), contextlib.redirect_stdout(printed):
            exec(compile(snippet.text, f"snippet in line {snippet.line}", "exec"), self._names)
        expected = re.findall(r"print\(.*\)  # (.*)", snippet.text)
        if expected:
            assert _plain(printed.getvalue()) == _plain("\n".join(expected))

    def _console(self, snippet: Snippet) -> None:
        for command, expected in _commands(snippet.text):
            self._command(command, expected)

    def _command(self, command: str, expected: list[str]) -> None:
        """Run a command; it succeeds, and says what the page says, with `...` for any number of lines."""
        command = re.sub(r"^pip install uv && uv run ", "", command)
        if install := re.fullmatch(r"pip install (\./\S+)", command):
            self._install(install[1])
            return
        if _INSTALLS.match(command):
            return
        code, output = self._muxly(command) if _OURS.fullmatch(command) else self._shell(command)
        assert code == 0, f"{command}\n{output}"
        said = [_plain(line) for line in output.splitlines() if line.strip() and not _PROGRESS.match(line)]
        assert _says(said, [_plain(line) for line in expected]), f"$ {command}\n{output}\nnot:\n{expected}"

    def _muxly(self, command: str) -> tuple[int, str]:
        """Exit code and output of a command of Muxly."""
        said = self.folder.with_name("said")
        said.unlink(missing_ok=True)
        code = self.commands.run(shlex.split(command)[1:], self._place, self.environ, said)
        return code, said.read_text(encoding="utf-8")

    def _shell(self, command: str) -> tuple[int, str]:
        """Exit code and output of any other command; it may go to another folder."""
        state = f'{command}\nstatus=$?; pwd > "$HOME/.place"; exit $status'
        done = subprocess.run(
            ["bash", "-c", state],
            cwd=self._place,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self._place = Path((self.folder / ".place").read_text(encoding="utf-8").strip())
        return done.returncode, done.stdout

    def _install(self, project: str) -> None:
        """Build and install a distribution of the page where its commands find it."""
        target = self.environ["PYTHONPATH"]
        uv = shutil.which("uv", path=self.environ["PATH"])
        assert uv, "uv is not on the path; pip install uv"
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", target, str(self._place / project)]
        subprocess.run(command, check=True, cwd=ROOT, timeout=120)


def _plain(text: str) -> str:
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return text.strip()


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console, without its `$`, and the lines that it is to say."""
    command, expected = "", list[str]()
    for line in text.splitlines():
        if command.endswith("\\"):
            command = f"{command[:-1]}{line.strip()}"
        elif line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], []
        elif line.strip():
            assert command, f"a console begins with a command after '$ ', not with {line!r}"
            expected.append(line)
    yield command, expected


def _says(said: list[str], expected: list[str]) -> bool:
    """Whether lines are the expected ones; `...` stands for any lines or the rest of one, `…` for some text."""
    if not expected:
        return True
    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line == "..." else re.escape(line).replace("…", ".*?").replace(r"\.\.\.", ".*") + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in said)) is not None


def _joined(before: Any, part: Any) -> Any:
    """Mappings are joined, as the layers of a configuration are; all else is replaced."""
    if not (isinstance(before, dict) and isinstance(part, dict)):
        return part
    return {**before, **{key: _joined(before.get(key), value) for key, value in part.items()}}
