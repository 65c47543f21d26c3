"""A configuration that was loaded: its pipelines, settings, and what it can say about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from muxly._annotations import nearest, quoted
from muxly.config._explain import Explanation, explained, shown
from muxly.config._layers import MISSING, lookup
from muxly.config._location import KeyPath, Problem, Problems, parse_path
from muxly.config._validate import Examiner
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from muxly.config._envelope import Job, Spool
    from muxly.config._source import Source
    from muxly.options import Secret
    from muxly.pipeline import Pipeline, Route

T = TypeVar("T")


class Pipelines(Mapping[str, "Pipeline"]):
    """Pipelines by name; the plugins of one are imported when it is asked for."""

    def __init__(self, names: list[str], build: Callable[[str], Pipeline]) -> None:
        self._names, self._build = names, build

    def __getitem__(self, name: str) -> Pipeline:
        if name not in self._names:
            raise KeyError(name)
        return self._build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Pipelines({', '.join(self._names)})"


class Configuration:
    """A configuration whose files could be read and whose own keys are right.

    Made by ``muxly.config.load``. What a plugin reads is checked when a pipeline is asked for,
    or by ``validate``; errors carry every problem of what was asked for, one a line.

    Args:
        source: What was read.
        files: The files that were read, the main file first.
        profile: The profile that was chosen; None = none.
    """

    def __init__(self, source: Source, files: list[str], profile: str | None = None) -> None:
        self._source = source
        self._built: dict[str, Pipeline] = {}
        self._files = files
        self.profile = profile

    @property
    def path(self) -> Path:
        """The main file."""
        return self._source.path

    @property
    def folder(self) -> Path:
        """The folder of the main file, absolute; relative paths in a configuration start here."""
        return self._source.folder

    @property
    def home(self) -> Path:
        """The folder of state and spool: ``home``, or ``.muxly`` beside the main file."""
        given = lookup(self._source.value, ("home",))
        self._asked(lambda examiner: examiner.broken(("home",)))
        return self.folder / Path(".muxly" if given is MISSING else given).expanduser()

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """All pipelines by name, each built when it is asked for as ``pipeline`` does."""
        return Pipelines(self._names("pipelines"), self.pipeline)

    def pipeline(self, name: str) -> Pipeline:
        """One pipeline; imports the plugins that it uses and no others.

        Args:
            name: Its key under ``pipelines``.

        Raises:
            ConfigurationError: There is none of that name, or something in it is wrong.
        """
        if name not in self._names("pipelines"):
            raise self._no_pipeline(name)
        if name not in self._built:
            pipeline = self._asked(lambda examiner: examiner.pipeline(name))
            assert pipeline is not None
            self._built[name] = pipeline
        return self._built[name]

    @property
    def events(self) -> Mapping[str, Route]:
        """The routes of the stream ``run_events`` by name."""
        return self._asked(lambda examiner: examiner.events())

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name; their triggers hold references as they are written."""
        return self._asked(lambda examiner: examiner.jobs())

    @property
    def spool(self) -> Spool:
        """The limits that pipelines have if they set none of their own."""
        spool = self._asked(lambda examiner: examiner.spool())
        assert spool is not None
        return spool

    @property
    def store_url(self) -> Secret | None:
        """The URL of the store; None = the SQLite file in the home folder."""
        store = self._asked(lambda examiner: examiner.store())
        assert store is not None
        return store.url

    def validate(self) -> None:
        """Check everything, whatever is used; imports every plugin that the configuration names.

        Raises:
            ConfigurationError: Something is wrong; all of it, one problem a line, in the order of the file.
        """
        self._asked(lambda examiner: examiner.everything())

    def show(self, *, resolved: bool = False) -> dict[str, Any]:
        """The configuration as plain values, layers joined and secrets masked.

        Args:
            resolved: Whether to show what references stand for; secrets stay masked.
        """
        return shown(self._source, resolved=resolved)

    def explain(self, key: str) -> Explanation:
        """Every layer that gave a key a value, with its place, and which of them counts.

        Args:
            key: Such as ``pipelines.daily.routes.lake.mode``.

        Raises:
            ConfigurationError: The text is no key.
        """
        try:
            return explained(self._source, parse_path(key))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def placed(self, error: ConfigurationError, *, pipeline: str, route: str | None = None) -> ConfigurationError:
        """An error of a component with the place in the file that its path stands for.

        Args:
            error: What ``open`` or ``check`` of a component raised; ``error.path`` is the option's.
                A path that begins with ``routes`` or ``streams`` is one of the pipeline itself.
            pipeline: The component's pipeline.
            route: Its route, if it is a router; None = the connector.
        """
        of_pipeline = route is None and error.path[:1] in {("routes",), ("streams",)}
        around = ("pipelines", pipeline) if of_pipeline else self._component_path(pipeline, route)
        path = (*around, *error.path)
        return ConfigurationError(str(Problem(self._source.document.place(path), path, error.message)), path=path)

    def _component_path(self, pipeline: str, route: str | None) -> KeyPath:
        path: KeyPath = ("pipelines", pipeline)
        if route is not None:
            return (*path, "routes", route, "router")
        named = lookup(self._source.value, (*path, "connector"))
        return ("connectors", str(named)) if isinstance(named, str) else (*path, "connector")

    def _names(self, section: str) -> list[str]:
        return list(self._source.value.get(section) or {})

    def _asked(self, ask: Callable[[Examiner], T]) -> T:
        """What an examiner finds, if it finds nothing wrong."""
        problems = Problems(files=self._files)
        found = ask(Examiner(self._source, problems))
        problems.raise_any()
        return found

    def _no_pipeline(self, name: str) -> ConfigurationError:
        known = self._names("pipelines")
        close = nearest(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
        return ConfigurationError(f"{self.path}: there is no pipeline {quoted(name)}; {hint}", path=("pipelines",))
