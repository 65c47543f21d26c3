"""The pages: every snippet does what the page says, and everything that has a name has a heading."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click
import pytest

import muxly
import muxly.config
from muxly import _plugins, hookspecs
from muxly.cli._app import app
from muxly.cli._output import ExitCode
from tests.integration.forked_commands import Commands
from tests.integration.snippets import ROOT, Reader, snippets

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("README.md")),
    *sorted(ROOT.glob("muxly-*/README.md")),
    *(path for path in sorted(DOCS.rglob("*.md")) if DOCS / "examples" not in path.parents),
]
# Languages whose snippets are run or checked; `text` is a picture, and `csv` a file of the page.
LANGUAGES = {"console", "csv", "json", "python", "text", "toml", "yaml"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def headings(page: str) -> set[str]:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    return set(re.findall(r"^#+ `?([^`\n]+)`?$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    """Runs the commands of all pages."""
    with Commands() as process:
        yield process


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_snippets_do_what_the_page_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    reader = Reader(tmp_path / "reader", commands)
    monkeypatch.syspath_prepend(str(tmp_path / "reader"))
    for snippet in snippets(path.read_text(encoding="utf-8")):
        try:
            reader.do(snippet)
        except Exception as error:
            raise AssertionError(f"{name(path)}:{snippet.line}: {error}") from error


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_snippets_are_in_languages_that_are_checked(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = list(snippets(text))
    assert {one.language for one in found} <= LANGUAGES
    assert text.count("```") == 2 * len(found), "a fence is not closed"


def test_generated_parts_are_fresh() -> None:
    command = [sys.executable, str(DOCS / "_generate"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("path", sorted((DOCS / "reference").glob("*.md")), ids=name)
def test_no_limit_is_told_twice(path: Path) -> None:
    assert not re.search(r"(, (?:at least|above|at most|below) [\d.]+)\1", path.read_text(encoding="utf-8"))


def test_every_name_of_the_package_has_a_heading() -> None:
    errors = {one for one in muxly.__all__ if one.endswith("Error")}
    there = headings("python-api.md")
    assert {one for one in muxly.__all__ if f"muxly.{one}" not in there} - errors == {"__version__"}
    assert errors - headings("errors.md") == set()


def test_every_hook_has_a_heading() -> None:
    assert {one for one in hookspecs.__all__ if one.startswith("muxly_")} <= headings("hooks.md")


def test_every_exit_code_has_a_heading() -> None:
    assert {f"{code.value}: {code.name}" for code in ExitCode} <= headings("exit-codes.md")


def every_command(command: click.Command, path: str) -> list[str]:
    found = [path]
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for one in command.list_commands(context):
                child = command.get_command(context, one)
                assert child is not None
                found += every_command(child, f"{path} {one}")
    return found


def test_every_command_has_a_heading() -> None:
    assert set(every_command(app, "muxly")) <= headings("cli.md")


def test_every_option_of_a_component_has_a_heading() -> None:
    for key, written in muxly.config.schema()["$defs"].items():
        kind, _, plugin = key.partition(".")
        if kind in {"connector", "router"} and plugin:
            assert set(written["properties"]) - {"type"} <= headings(f"{kind}-{plugin}.md")


@pytest.mark.parametrize("kind", ["connector", "router"])
def test_every_component_has_a_page_and_is_shown_at_work(kind: Literal["connector", "router"]) -> None:
    wanted = {f"{kind}-{plugin}.md" for plugin in _plugins.names(kind)}
    assert {one for one in wanted if not (DOCS / "reference" / one).exists()} == set()
    guides = [path.read_text(encoding="utf-8") for path in (*DOCS.glob("how-to/*.md"), *DOCS.glob("tutorial/*.md"))]
    assert {one for one in wanted if not any(f"](../reference/{one}" in guide for guide in guides)} == set()


def test_every_how_to_is_on_the_first_page() -> None:
    first = (DOCS / "index.md").read_text(encoding="utf-8")
    assert [path.name for path in (DOCS / "how-to").glob("*.md") if f"](how-to/{path.name})" not in first] == []


def test_delivery_says_what_each_router_promises() -> None:
    lines = (DOCS / "explanation" / "delivery.md").read_text(encoding="utf-8").splitlines()
    for plugin in _plugins.names("router"):
        router = cast("type[muxly.Router]", _plugins.load("router", plugin))
        promise = router.promise.replace("_", " ")
        (line,) = [one for one in lines if one.startswith(f"| [`{plugin}`]")]
        assert promise in line


def test_every_key_of_a_configuration_has_a_heading() -> None:
    schema = muxly.config.schema()
    keys = set(schema["properties"]) - {"$schema"}
    for model in ("Pipeline", "Route", "StreamRules", "Columns", "BatchLimits", "Backoff", "Spool", "Store"):
        keys |= set(schema["$defs"][model]["properties"])
    assert keys <= headings("configuration.md")


def test_every_column_and_event_of_run_events_is_described() -> None:
    from muxly._runner import events

    text = (DOCS / "reference" / "run-events.md").read_text(encoding="utf-8")
    said = set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    told = set(re.findall(r"``(\w+)``", events.EventLog.__doc__ or ""))
    assert set(events.schema().names) <= said
    assert told <= said


def test_architecture_names_every_layer_and_word() -> None:
    text = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "muxly-core/src/muxly"
    modules = {path.stem for path in package.iterdir() if not path.name.startswith(("__p", "__i", "py."))}
    assert {one for one in modules if f"`{one}`" not in text} == set()


def test_error_that_the_readme_shows_is_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = re.findall(r"`(muxly\.yaml:13:17: .*?)`\n", (ROOT / "README.md").read_text(encoding="utf-8"))
    lines = ["# A comment."] * 5
    lines += ["version: 1", "pipelines:", "  daily:", "    connector: {type: file, path: data}"]
    lines += ["    routes:", "      lake:", "        router: {type: file, path: out,", "        format: parqet}"]
    monkeypatch.chdir(tmp_path)
    Path("muxly.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(muxly.ConfigurationError, match=re.escape(shown)):
        muxly.config.load("muxly.yaml").validate()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    """The site is built strictly, but not everybody reads the pages there."""
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    local = [one for one in links if "://" not in one]
    lost = [one for one in local if one.partition("#")[0] and not (path.parent / one.partition("#")[0]).exists()]
    assert lost == []
    lost = [one for one in local if "#" in one and one.partition("#")[2] not in anchors(path, one.partition("#")[0])]
    assert lost == []


def anchors(page: Path, target: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site both make them."""
    text = (page.parent / target if target else page).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}
