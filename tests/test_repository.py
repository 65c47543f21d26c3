"""Rules of the repository that a machine can check."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from tests.import_circles import circles, import_graph

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MEMBERS = sorted(path.parent.name for path in ROOT.glob("muxly-*/pyproject.toml"))
PACKAGES = sorted(path.parent for path in ROOT.glob("muxly-*/src/*/__init__.py"))
EXAMPLES = sorted(path.parent for path in ROOT.glob("docs/examples/*/pyproject.toml"))
VERSION = "0.1.0"

MACHINERY = {"__main__", "auth", "cli", "config", "integration", "schedulers", "server", "spool", "store"}
MOVED = {"testing"}
"""Modules of ``muxly`` that raise an error on import, which says what to import instead."""
HEAVY = set(
    re.findall(r"\w+", "alembic arro3 cattrs click duckdb fsspec jsonschema numpy pandas polars psycopg pyarrow rich")
) | {"sqlalchemy", "yaml"}
VAGUE = set(re.findall(r"\w+", "manager handler helper helpers util utils common base data info process service misc"))
# What a user asked for by name, and what SQLAlchemy, socketserver and httpcore call.
ALLOWED_NAMES = {
    "SchedulerIntegration",
    "get_extra_info",
    "process_bind_param",
    "process_result_value",
    "service_actions",
}

# Spelt so that this file does not break the rules that it holds.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b")
PLACES = re.compile(r"pypi[.]org|pythonhosted[.]org|npmjs[.]org|debian[.]org|(?<![\w./])/(?:work|root|opt)/")

PIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*( ; python_full_version [<>=]+ '[0-9.*]+')?")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is in git, or would be after the next ``git add``."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def names() -> list[str]:
    """Their paths from the root."""
    return [path.relative_to(ROOT).as_posix() for path in tracked()]


@cache
def texts() -> dict[str, str]:
    """The text files among them, by path from the root."""
    found = {}
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found[path.relative_to(ROOT).as_posix()] = content.decode("utf-8", "replace")
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """The Python files among them, parsed."""
    return {name: ast.parse(text) for name, text in texts().items() if name.endswith(".py")}


@cache
def project(folder: str = ".") -> dict[str, Any]:
    return tomli.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))


def initial(package: Path) -> str:
    """The text of a package's ``__init__.py``."""
    return (package / "__init__.py").read_text(encoding="utf-8")


def is_ours(name: str) -> bool:
    """Whether a path is code of a distribution, of an example or of a tool; not a test."""
    return not name.startswith("tests/")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "muxly")


def requirements(table: dict[str, Any]) -> Iterator[str]:
    """Every requirement written in a pyproject.toml, groups and the build system included."""
    yield from table["project"].get("dependencies", [])
    yield from table["build-system"]["requires"]
    for group in table["project"].get("optional-dependencies", {}).values():
        yield from group
    for group in table.get("dependency-groups", {}).values():
        # Groups are never published; a bare member of the workspace is the code beside.
        yield from (entry for entry in group if isinstance(entry, str) and entry not in MEMBERS)


# Distributions


def test_workspace_lists_every_distribution_of_the_repository() -> None:
    assert sorted(project()["tool"]["uv"]["workspace"]["members"]) == MEMBERS
    assert set(project()["tool"]["uv"]["sources"]) == {"muxly", *MEMBERS}


@pytest.mark.parametrize("member", [".", *MEMBERS])
def test_distributions_share_version_licence_and_pythons(member: str) -> None:
    ours, root = project(member)["project"], project()["project"]
    assert ours["version"] == VERSION
    shared = ("requires-python", "license", "license-files", "readme", "authors")
    assert {key: ours[key] for key in shared} == {key: root[key] for key in shared}
    pythons = [line for line in root["classifiers"] if "Python ::" in line]
    assert [line for line in ours["classifiers"] if "Python ::" in line] == pythons
    assert (ROOT / member / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert len((ROOT / member / "README.md").read_text(encoding="utf-8")) > 200


@pytest.mark.parametrize("member", [".", *MEMBERS, *(path.relative_to(ROOT).as_posix() for path in EXAMPLES)])
def test_distributions_need_each_other_within_one_minor_version(member: str) -> None:
    major, minor, _ = (int(part) for part in VERSION.split("."))
    ours = [requirement for requirement in requirements(project(member)) if re.match(r"muxly-", requirement)]
    assert ours or member == "muxly-core"
    within = f">={major}.{minor},<{major}.{minor + 1}"
    assert [requirement for requirement in ours if not requirement.endswith(within)] == []


@pytest.mark.parametrize("member", [".", *MEMBERS])
def test_every_requirement_has_a_range(member: str) -> None:
    required = set(requirements(project(member))) - {"muxly[all]"}
    assert [requirement for requirement in required if not re.search(r">=|==", requirement)] == []


def pins() -> list[str]:
    """The versions that are written down, for all Pythons."""
    written: list[str] = project()["tool"]["uv"]["constraint-dependencies"]
    return written


def test_versions_are_written_down_by_name_alone() -> None:
    written = pins()
    assert [one for one in written if not PIN.fullmatch(one)] == []
    assert written == sorted(set(written))
    assert {one.partition("==")[0] for one in written} & {"muxly", *MEMBERS} == set()
    # A version for some Pythons only has another beside it for the others.
    names = Counter(one.partition("==")[0] for one in written)
    assert [one for one in written if (" ; " in one) != (names[one.partition("==")[0]] > 1)] == []


@pytest.mark.parametrize("member", [".", *MEMBERS])
def test_every_requirement_has_a_version_that_is_written_down(member: str) -> None:
    table = {**project(member), "build-system": {"requires": []}}
    written = {one.partition("==")[0] for one in pins()} | {"muxly", *MEMBERS}
    assert [one for one in requirements(table) if normalised(re.split(r"[\[<>=]", one)[0]) not in written] == []


def test_what_is_installed_has_the_version_that_is_written_down() -> None:
    written = {tuple(re.split(r"==| ; ", one)[:2]) for one in pins()}
    names = {name for name, *_ in written}
    here = {(normalised(one.metadata["Name"]), one.version) for one in distributions()}
    other = sorted(f"{name} {version}" for name, version in here - written if name in names)
    assert other == [], "run `uv sync --group dev`; after a change of requirements, `uvx nox -s upgrade`"


def test_code_of_every_distribution_is_checked() -> None:
    sources = sorted(path.parent.relative_to(ROOT).as_posix() for path in PACKAGES)
    tools = project()["tool"]
    assert sorted(tools["mypy"]["mypy_path"]) == sources
    assert set(sources) <= set(tools["mypy"]["files"])
    assert sorted(tools["ruff"]["src"]) == sources
    names = sorted(path.name for path in PACKAGES)
    assert sorted(tools["coverage"]["run"]["source_pkgs"]) == names
    assert sorted(tools["importlinter"]["root_packages"]) == names


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_packages_are_typed(package: Path) -> None:
    assert (package / "py.typed").read_bytes() == b""


def normalised(distribution: str) -> str:
    """A name as the index compares it: of slack-sdk, the metadata say slack_sdk."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def at_run_time(tree: ast.Module) -> ast.Module:
    """Without what is imported for types only."""
    return ast.Module([node for node in tree.body if not is_type_checking(node)], [])


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def distributions_by_package() -> dict[str, list[str]]:
    """Which distributions bring a package; what is installed for editing tells no names of packages."""
    return {**packages_distributions(), **{path.name: [path.parts[-3]] for path in PACKAGES}}


@pytest.mark.parametrize("member", MEMBERS)
def test_what_a_distribution_imports_it_requires(member: str) -> None:
    declared = {
        normalised(re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0])
        for requirement in requirements(project(member))
    }
    providers = distributions_by_package()
    missing = set()
    for file, tree in modules().items():
        if file.startswith(f"{member}/src/"):
            own = file.split("/")[2]
            names = {name.partition(".")[0] for name in imported(at_run_time(tree))} - sys.stdlib_module_names - {own}
            missing |= {
                name
                for name in names
                if not declared & {normalised(provider) for provider in providers.get(name, [name])}
            }
    assert missing == set()


@pytest.mark.parametrize("member", MEMBERS)
def test_entry_points_lead_to_modules(member: str) -> None:
    table = project(member)["project"]
    groups = {**table.get("entry-points", {}), "scripts": table.get("scripts", {})}
    targets = [target.partition(":")[0] for group in groups.values() for target in group.values()]
    assert [target for target in targets if importlib.util.find_spec(target) is None] == []


def test_only_the_test_kit_is_a_pytest_plugin_and_nobody_gets_it_unasked() -> None:
    tables = {member: project(member)["project"] for member in [".", *MEMBERS]}
    plugins = [member for member, table in tables.items() if "pytest11" in table.get("entry-points", {})]
    assert plugins == ["muxly-testing"]
    extras = {
        (member, extra)
        for member, table in tables.items()
        for extra, names in {"": table["dependencies"], **table.get("optional-dependencies", {})}.items()
        if any(name.startswith("muxly-testing") for name in names)
    }
    assert extras == {(".", "testing")}


# Files


def test_git_holds_no_lock_file_and_no_generated_file() -> None:
    unwanted = re.compile(r"(^|/)(uv\.lock|pylock.*\.toml|\.muxly|__pycache__|site|dist|build|\.venv)(/|$)")
    assert [name for name in names() if unwanted.search(name)] == []


def test_files_name_no_registry_and_no_folder_of_one_machine() -> None:
    found = [(name, match.group()) for name, text in texts().items() for match in PLACES.finditer(text)]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    found = [(name, match.group()) for name, text in texts().items() for match in UNFINISHED.finditer(text)]
    assert found == []


def test_packages_hold_code_only() -> None:
    inside = [name for name in names() if re.match(r"muxly-[a-z-]+/src/", name)]
    assert [name for name in inside if not name.endswith((".py", "/py.typed"))] == []


def test_text_files_end_with_one_newline() -> None:
    pages = {name: text for name, text in texts().items() if name.endswith((".md", ".toml", ".yaml", ".yml"))}
    assert [name for name, text in pages.items() if text and (not text.endswith("\n") or text.endswith("\n\n"))] == []


def test_changelog_fragments_are_one_line_of_a_known_type() -> None:
    types = {entry["directory"] for entry in project()["tool"]["towncrier"]["type"]}
    named = re.compile(rf"changelog\.d/\+[a-z0-9-]+\.({'|'.join(sorted(types))})\.md")
    fragments = {name: text for name, text in texts().items() if re.match(r"changelog\.d/(?!README\.md)", name)}
    assert [name for name in fragments if not named.fullmatch(name)] == []
    assert [name for name, text in fragments.items() if len(text.strip().splitlines()) != 1] == []


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    command = texts()[".ci/run"].strip().splitlines()[-1]
    assert command == "pip install uv && uvx nox"
    assert command in texts()["README.md"]
    assert command.removeprefix("pip install uv && ") in texts()["CONTRIBUTING.md"]


def test_contributing_lists_every_session_of_nox() -> None:
    sessions = {}
    for node in functions(modules()["noxfile.py"]):
        found = [one for one in map(ast.unparse, node.decorator_list) if one.startswith("nox.session")]
        if found:
            sessions[node.name] = "default=False" not in found[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", texts()["CONTRIBUTING.md"], re.MULTILINE)
    assert {name: "(not run by default)" not in what for name, what in rows} == sessions


# Code


def test_files_have_at_most_600_lines() -> None:
    lengths = {name: texts()[name].count("\n") for name in modules()}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_functions_have_at_most_60_lines() -> None:
    long = []
    for name, tree in modules().items():
        for node in functions(tree):
            # The contract in a docstring is prose: it may be as long as it must.
            documented = ast.get_docstring(node, clean=False) is not None
            begin = node.body[0].end_lineno if documented else node.lineno
            if (node.end_lineno or 0) - (begin or 0) > 60:
                long.append(f"{name}:{node.lineno} {node.name}")
    assert long == []


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_names_say_what_a_thing_is() -> None:
    vague = []
    for file, tree in modules().items():
        if is_ours(file) and words(Path(file).stem) & VAGUE:
            vague.append(file)
        for node in ast.walk(tree) if is_ours(file) else ():
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            # The name of a test is a sentence.
            if not node.name.startswith("test_") and node.name not in ALLOWED_NAMES and words(node.name) & VAGUE:
                vague.append(f"{file}:{node.lineno} {node.name}")
    assert vague == []


def public_modules() -> list[str]:
    """What users may import: packages and their direct modules, except for the machinery of ``muxly``."""
    found = []
    for package in PACKAGES:
        found.append(package.name)
        for path in sorted([*package.glob("[!_]*.py"), *package.glob("[!_]*/__init__.py")]):
            name = path.parent.name if path.name == "__init__.py" else path.stem
            if package.name != "muxly" or name not in {*MACHINERY, *MOVED}:
                found.append(f"{package.name}.{name}")
    return found


@pytest.mark.parametrize("name", public_modules())
def test_public_modules_list_their_names_in_order(name: str) -> None:
    module = importlib.import_module(name)
    listed: list[str] = list(getattr(module, "__all__", ()))
    assert listed == sorted(listed)
    assert [public for public in listed if not hasattr(module, public)] == []
    own = {public for public, value in vars(module).items() if getattr(value, "__module__", None) == name}
    defined = {public for public in own if callable(getattr(module, public))}
    # A plugin's hook, `muxly_router`, is found by pluggy, not imported by people.
    assert sorted(public for public in defined - set(listed) if not public.startswith(("_", "muxly_"))) == []


@pytest.mark.parametrize("package", [path for path in PACKAGES if "def __getattr__(" in initial(path)], ids=str)
def test_names_imported_on_first_use_are_those_of_type_checkers(package: Path) -> None:
    blocks = [node for node in ast.parse(initial(package)).body if is_type_checking(node)]
    imports = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names if node.module != package.name}
    module = importlib.import_module(package.name)
    assert dir(module) == list(module.__all__)
    assert sorted(homes) == [name for name in module.__all__ if name != "__version__"]
    for name, home in homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(home or ""), name)


@pytest.mark.parametrize("name", ["muxly", "muxly_testing"])
def test_import_of_a_package_of_names_is_light(name: str) -> None:
    program = f"import sys, {name}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert sorted(set(ran.stdout.split()) & HEAVY) == []


# Numbers of the house: each stops a drift that no single change shows.

MODULES_PER_1000_LINES = 4.5
TYPE_CHECKING_SHARE = 0.40
REPEATED_CLASS_NAMES = 10
QUESTION = re.compile(r"(What|How|Whether|Which|Where|Why)\b")


@cache
def code() -> dict[str, ast.Module]:
    """The modules of the distributions that define something, without migrations, which never change."""
    ours = {name: tree for name, tree in modules().items() if re.match(r"muxly-[a-z-]+/src/(?!.*/migrations/)", name)}
    return {name: tree for name, tree in ours.items() if any(map(defines, tree.body))}


def defines(node: ast.stmt) -> bool:
    """Whether a statement is more than a docstring, an import or the list of what is exported."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) != "__all__"
    return not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)


def test_files_end_where_ideas_end() -> None:
    lines = sum(texts()[name].count("\n") for name in code())
    assert round(1000 * len(code()) / lines, 2) <= MODULES_PER_1000_LINES


def test_few_files_import_for_types_only() -> None:
    guarded = [name for name, tree in code().items() if any(map(is_type_checking, tree.body))]
    assert round(len(guarded) / len(code()), 2) < TYPE_CHECKING_SHARE


def test_a_class_name_means_one_class() -> None:
    homes: dict[str, list[str]] = {}
    for name, tree in code().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    repeated = {name: files for name, files in homes.items() if len(files) > 1}
    assert len(repeated) < REPEATED_CLASS_NAMES, repeated


def test_module_docstrings_are_statements() -> None:
    docs = {name: ast.get_docstring(tree) or "" for name, tree in code().items()}
    assert [name for name, doc in docs.items() if QUESTION.match(doc)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(import_graph(ROOT)) == []


# Borders


def contract(name: str) -> dict[str, Any]:
    """A contract of import-linter, by its id."""
    contracts: list[dict[str, Any]] = project()["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["id"] == name)


def test_plugins_may_import_no_part_of_the_machinery() -> None:
    children = {path.stem for path in (ROOT / "muxly-core/src/muxly").iterdir() if path.name != "__pycache__"}
    private = {name for name in children if name.startswith("_") and not name.startswith("__")}
    machinery = private | (children & (MACHINERY - {"__main__"}))
    assert set(contract("public-part")["forbidden_modules"]) == {f"muxly.{name}" for name in machinery}
    assert set(contract("plugins-are-islands")["modules"]) == {path.name for path in PACKAGES} - {"muxly"}


def test_examples_use_only_the_public_part() -> None:
    public = {*public_modules(), *(f"muxly.{name}" for name in importlib.import_module("muxly").__all__)}
    found = []
    for file, tree in modules().items():
        if file.startswith("docs/examples/"):
            ours = {name for name in imported(tree) if name.partition(".")[0] == "muxly"}
            found += [f"{file}: {name}" for name in sorted(ours - public)]
    assert found == []
