"""The project of a command: its configuration file, its pipelines, and the ledgers of their state.

The store is imported only where a ledger is opened, because most commands need the configuration alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from muxly.cli._output import known_names_hint
from muxly.errors import ConfigurationError, MuxlyError
from muxly.pipeline import Pipeline

if TYPE_CHECKING:
    from muxly._runner.session import Home, LedgerSession
    from muxly.config import Configuration
    from muxly.store.ledger import Ledger


DEFAULTS = ("muxly.yaml", "muxly.yml", "muxly.toml", "muxly.json")
_SUFFIXES = (".yaml", ".yml", ".toml", ".json")


@frozen(kw_only=True)
class ProjectSelection:
    """The part of the command line that selects a project.

    Args:
        file: The configuration file, or its folder; None = the working directory.
        pipelines: Names of pipelines; none = all, or the only one.
        home: The folder of state; None = the one in the configuration.
        profile: One of the file's profiles.
        sets: ``KEY=VALUE`` that override the file.
    """

    file: Path | None
    pipelines: tuple[str, ...]
    home: Path | None
    profile: str | None
    sets: tuple[str, ...]

    def open(self) -> Project:
        """Load the configuration.

        Raises:
            ConfigurationError: There is no file, or it is wrong.
        """
        from muxly import config

        file = self.file or Path()
        file = default_file(file) if file.is_dir() else file
        configuration = config.load(file, profile=self.profile, sets=self.sets)
        return Project(selection=self, configuration=configuration)


@frozen(kw_only=True)
class Project:
    """A configuration that a command works with.

    Args:
        selection: The command line's choice.
        configuration: The file, loaded.
    """

    selection: ProjectSelection
    configuration: Configuration

    @property
    def home(self) -> Home:
        """The store and the spool of its pipelines."""
        from muxly._runner.session import Home

        folder = self.selection.home.absolute() if self.selection.home else self.configuration.home
        return Home(folder=folder, store=self.configuration.store_url)

    def names(self) -> list[str]:
        """The pipelines that were asked for; all of the file by default.

        Raises:
            ConfigurationError: One is unknown, or the file has none.
        """
        known = list(self.configuration.pipelines)
        for name in self.selection.pipelines:
            if name not in known:
                self.configuration.pipeline(name)
        if not known:
            raise ConfigurationError(f"{self.configuration.path} has no pipeline; write one under `pipelines:`")
        return list(dict.fromkeys(self.selection.pipelines)) or known

    def name(self) -> str:
        """The one pipeline that was asked for.

        Raises:
            ConfigurationError: Several could be meant.
        """
        names = self.names()
        if len(names) != 1:
            raise ConfigurationError(f"say which pipeline with --pipeline: {', '.join(names)}")
        return names[0]

    def pipeline(self, name: str) -> Pipeline:
        """One pipeline, built."""
        return self.configuration.pipeline(name)

    def with_location(self, error: ConfigurationError, pipeline: str, route: str | None = None) -> ConfigurationError:
        """An error with its location in the file, if it says which option it is about."""
        if not error.path or str(error).startswith(f"{self.configuration.path}:"):
            return error
        if route is None and error.path[0] == "streams" and not self._has(("pipelines", pipeline, *error.path[:2])):
            return error  # of --select, not of the file
        if error.path[:2] == ("routes", route):
            route = None  # an option of the route, not of its router
        return self.configuration.with_location(error, pipeline=pipeline, route=route)

    def _has(self, path: Sequence[str | int]) -> bool:
        """Whether the file has a key at a path of mappings."""
        value: Any = self.configuration.show()
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True


def default_file(folder: Path) -> Path:
    """The configuration file in a folder.

    Raises:
        ConfigurationError: There is none.
    """
    files = [folder / name for name in DEFAULTS if (folder / name).exists()]
    if not files:
        raise ConfigurationError(
            f"there is no {DEFAULTS[0]} in {folder.absolute()}; name a file, or let `muxly init` write one"
        )
    return files[0]


def project_options(*, arguments: str = "[FILE] [PIPELINE]...") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command ``-f``, ``-p``, ``--home``, ``--profile`` and ``--set`` as one ``ProjectSelection``.

    Args:
        arguments: How its arguments are shown; empty = it has arguments of its own.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def command_with_selection(*args: Any, **given: Any) -> Any:
            return command(_selection(given), *args, **given)

        decorated: Callable[..., Any] = command_with_selection
        for option in reversed(_options()):
            decorated = option(decorated)
        return click.argument("arguments", nargs=-1, metavar=arguments)(decorated) if arguments else decorated

    return decorate


def _options() -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    path = click.Path(path_type=Path)
    return [
        click.option("-f", "--file", type=path, help="The configuration.  [default: ./muxly.yaml, .toml or .json]"),
        click.option("-p", "--pipeline", "pipelines", multiple=True, metavar="NAME", help="A pipeline in the file."),
        click.option(
            "--home", type=path, envvar="MUXLY_HOME", show_envvar=True,
            help="Folder for state and spool.  [default: .muxly next to the file]",
        ),
        click.option("--profile", envvar="MUXLY_PROFILE", show_envvar=True, help="A profile in the file."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a value in the file."),
    ]  # fmt: skip


def _selection(given: dict[str, Any]) -> ProjectSelection:
    """Take the selection of the project out of a command's options."""
    arguments: tuple[str, ...] = given.pop("arguments", ())
    file: Path | None = given.pop("file")
    if arguments and is_file(arguments[0]):
        if file is not None:
            raise click.UsageError(f"both {arguments[0]!r} and --file name a configuration; give only one")
        file, arguments = Path(arguments[0]), arguments[1:]
    return ProjectSelection(
        file=file,
        pipelines=(*arguments, *given.pop("pipelines")),
        home=given.pop("home"),
        profile=given.pop("profile"),
        sets=given.pop("sets"),
    )


def is_file(word: str) -> bool:
    """Whether a word names a configuration file or its folder, and not a pipeline."""
    if word.lower().endswith(_SUFFIXES) or "/" in word:
        return True
    return Path(word).is_file() or any((Path(word) / name).exists() for name in DEFAULTS)


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")(command)


_EVENTS_SUFFIX = ".events"


@contextmanager
def read_ledger(home: Home, pipeline: str) -> Iterator[Ledger | None]:
    """Open a ledger for reading; None if there is no store yet. Nothing is created.

    Raises:
        StoreError: The store cannot be used as it is.
    """
    from muxly.store.database.engine import open_engine
    from muxly.store.ledger import Ledger
    from muxly.store.schema.upgrade import ensure_current, stored

    engine = open_engine(home.url())
    try:
        if stored(engine) is None:
            yield None
        else:
            ensure_current(engine)
            yield Ledger(engine, pipeline)
    finally:
        engine.dispose()


@contextmanager
def write_ledger(project: Project, pipeline: str, command: str) -> Iterator[LedgerSession]:
    """Lock one pipeline's ledger and spool for writing; the command is listed among its runs.

    Raises:
        ConfigurationError: Nothing of the pipeline has run, so there is nothing to change.
        LeaseHeldError: A run is under way.
    """
    from muxly._runner.session import open_session
    from muxly.store import runs

    with read_ledger(project.home, pipeline) as ledger:
        if ledger is None:
            raise ConfigurationError(f"nothing has run in {project.home.folder} yet; `muxly run` starts")
    with open_session(project.home, pipeline, command=command) as session:
        try:
            yield session
        except BaseException as error:
            runs.finish(session.ledger, state="failed", error=str(error), result={})
            raise
        runs.finish(session.ledger, state="succeeded", error=None, result={})


def ledger_names(project: Project) -> list[str]:
    """The pipelines that were asked for, and those that deliver their events, as the ledger names them."""
    asked = project.selection.pipelines
    events = [name for name in asked if name.endswith(_EVENTS_SUFFIX)]
    plain = tuple(name for name in asked if name not in events)
    if events and not plain:
        return events
    names = evolve(project, selection=evolve(project.selection, pipelines=plain)).names()
    if not asked and project.configuration.show().get("events"):
        events = [f"{name[:55]}{_EVENTS_SUFFIX}" for name in names]
    return [*names, *events]


def ledger_name(project: Project) -> str:
    """The one pipeline, or the one that delivers its events, that was asked for."""
    asked = project.selection.pipelines
    return asked[0] if len(asked) == 1 and asked[0].endswith(_EVENTS_SUFFIX) else project.name()


def ledger_rows(project: Project, rows: Callable[[Ledger], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of all ledgers that were asked for, each with its pipeline."""
    listed: list[dict[str, Any]] = []
    for name in ledger_names(project):
        with read_ledger(project.home, name) as ledger:
            if ledger is not None:
                listed += [{"pipeline": name, **row} for row in rows(ledger)]
    return listed


def require_known(name: str, names: Iterable[str], what: str) -> str:
    """The name, if it is one of those.

    Raises:
        ConfigurationError: It is not; the message suggests the nearest.
    """
    among = sorted(set(names))
    if name in among:
        return name
    hint = known_names_hint(name, among)
    raise ConfigurationError(f"the ledger has no {what} {name!r}; {hint}")


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that cannot be undone ``--yes``."""
    return click.option("-y", "--yes", "confirmed", is_flag=True, help="Do not ask for confirmation.")(command)


def confirm(confirmed: bool, question: str) -> None:
    """Ask before something that cannot be undone.

    Args:
        confirmed: Whether ``--yes`` was given.
        question: What is about to be done.

    Raises:
        MuxlyError: The answer is no.
        UsageError: stdin is not a terminal, so there is nobody to answer.
    """
    if confirmed:
        return
    if not is_interactive():
        raise click.UsageError(f"{question} There is no terminal to ask on: add --yes to confirm.")
    if not click.confirm(question, err=True):
        raise MuxlyError("nothing was changed")


def is_interactive() -> bool:
    """Whether stdin is a terminal, so that a question can be answered."""
    return sys.stdin.isatty()


def configured_routes(project: Project, pipeline: str) -> dict[str, Any]:
    """The routes as the file has them, by name; no plugin is imported."""
    shown = project.configuration.show()
    if pipeline.endswith(_EVENTS_SUFFIX):
        section: dict[str, Any] = shown.get("events") or {}
    else:
        section = shown.get("pipelines", {}).get(pipeline) or {}
    return dict(section.get("routes") or {})


def matching_names(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match any of the names or globs; a plain name must be among them.

    Raises:
        ConfigurationError: It is not; the message suggests the nearest.
    """
    from muxly._runner.streams import is_pattern, matches

    among = list(names)
    for pattern in patterns:
        if not is_pattern(pattern):
            require_known(pattern, among, "stream")
    return [name for name in among if matches(name, patterns)]
