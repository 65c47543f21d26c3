"""The ledgers that commands look at, or write under the pipeline's lease."""

from __future__ import annotations

import difflib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from muxly.errors import ConfigurationError, MuxlyError
from muxly.store import runs
from muxly.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from muxly._runner.session import Home, LedgerSession
    from muxly.cli._error_locations import Project

_EVENTS = ".events"


@contextmanager
def looking(home: Home, pipeline: str) -> Iterator[Ledger | None]:
    """A ledger that can only be read; None if there is no store yet. Nothing is created.

    Raises:
        StoreError: The store cannot be used as it is.
    """
    from muxly.store.database.engine import open_engine
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
def writing(project: Project, pipeline: str, command: str) -> Iterator[LedgerSession]:
    """The right to write one pipeline's ledger and spool; the command is listed among its runs.

    Raises:
        ConfigurationError: Nothing of the pipeline has run, so there is nothing to change.
        LeaseHeldError: A run is under way.
    """
    from muxly._runner.session import open_session

    with looking(project.home, pipeline) as ledger:
        if ledger is None:
            raise ConfigurationError(f"nothing has run in {project.home.folder} yet; `muxly run` begins")
    with open_session(project.home, pipeline, command=command) as session:
        try:
            yield session
        except BaseException as error:
            runs.finish(session.ledger, state="failed", error=str(error), result={})
            raise
        runs.finish(session.ledger, state="succeeded", error=None, result={})


def ledger_names(project: Project) -> list[str]:
    """The pipelines that were asked for, and those that deliver their events, as the ledger names them."""
    asked = project.where.pipelines
    events = [name for name in asked if name.endswith(_EVENTS)]
    plain = tuple(name for name in asked if name not in events)
    if events and not plain:
        return events
    names = evolve(project, where=evolve(project.where, pipelines=plain)).names()
    if not asked and project.configuration.show().get("events"):
        events = [f"{name[:55]}{_EVENTS}" for name in names]
    return [*names, *events]


def ledger_name(project: Project) -> str:
    """The one pipeline, or the one that delivers its events, that was asked for."""
    asked = project.where.pipelines
    return asked[0] if len(asked) == 1 and asked[0].endswith(_EVENTS) else project.name()


def listed(project: Project, rows: Callable[[Ledger], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of all ledgers that were asked for, each with its pipeline."""
    found: list[dict[str, Any]] = []
    for name in ledger_names(project):
        with looking(project.home, name) as ledger:
            if ledger is not None:
                found += [{"pipeline": name, **row} for row in rows(ledger)]
    return found


def known(name: str, names: Iterable[str], what: str) -> str:
    """The name, if it is one of those.

    Raises:
        ConfigurationError: It is not; the nearest is told.
    """
    among = sorted(set(names))
    if name in among:
        return name
    close = difflib.get_close_matches(name, among, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(among) or 'none'}"
    raise ConfigurationError(f"the ledger has no {what} {name!r}; {hint}")


def yes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that cannot be undone ``--yes``."""
    return click.option("-y", "--yes", "sure", is_flag=True, help="Do not ask.")(command)


def ask(sure: bool, question: str) -> None:
    """Ask before something that cannot be undone.

    Args:
        sure: Whether ``--yes`` was given.
        question: What is about to be done.

    Raises:
        MuxlyError: The answer is no.
        UsageError: Nobody is there to answer.
    """
    if sure:
        return
    if not is_answering():
        raise click.UsageError(f"{question} Nobody can be asked here: add --yes if that is meant.")
    if not click.confirm(question, err=True):
        raise MuxlyError("nothing was changed")


def is_answering() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty()


def routes_of(project: Project, pipeline: str) -> dict[str, Any]:
    """The routes as the file has them, by name; no plugin is imported."""
    shown = project.configuration.show()
    if pipeline.endswith(_EVENTS):
        section: dict[str, Any] = shown.get("events") or {}
    else:
        section = shown.get("pipelines", {}).get(pipeline) or {}
    return dict(section.get("routes") or {})


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that any of the names or globs chooses; a plain name must be there.

    Raises:
        ConfigurationError: It is not.
    """
    from muxly._runner.streams import is_pattern, matches

    among = list(names)
    for pattern in patterns:
        if not is_pattern(pattern):
            known(pattern, among, "stream")
    return [name for name in among if matches(name, patterns)]
