"""Plugins: found by their metadata, and imported when a pipeline uses them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from muxly.component import Component
from muxly.errors import PluginError
from muxly.suggest import suggest

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    import pluggy


Kind = Literal["connector", "router", "scheduler", "hooks"]
GROUPS: dict[Kind, str] = {
    "connector": "muxly.connectors",
    "router": "muxly.routers",
    "scheduler": "muxly.schedulers",
    "hooks": "muxly.hooks",
}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


@frozen(kw_only=True)
class Plugin:
    """One entry point, known from metadata alone.

    Args:
        kind: What it provides.
        name: The ``type:`` in the configuration.
        value: Where its code is, such as ``"muxly_routers.file"``.
        distribution: The distribution that ships it.
        version: That distribution's version.
        problem: Why it cannot be used, if that is known without importing it.
    """

    kind: Kind
    name: str
    value: str
    distribution: str
    version: str
    problem: str | None = None

    def import_value(self) -> Any:
        """Import the plugin.

        Raises:
            PluginError: The import raised; names the distribution, its version and the cause.
        """
        module, _, attribute = self.value.partition(":")
        try:
            value = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                value = getattr(value, part)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the {self.kind} plugin {self.name!r} of {self.distribution} {self.version} cannot be "
                f"imported: {type(error).__name__}: {error}"
            ) from error
        return value


def installed() -> tuple[Plugin, ...]:
    """All installed plugins, sorted by kind and name; nothing of them is imported."""
    import sys

    return _installed(tuple(sys.path))


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    from importlib.metadata import distributions

    plugins: dict[tuple[str, str, str], Plugin] = {}
    for distribution in distributions():
        for plugin in _provided_by(distribution):
            # The first on the path is the one that is imported.
            plugins.setdefault((plugin.kind, plugin.name, plugin.distribution), plugin)
    return tuple(plugins[key] for key in sorted(plugins))


def _provided_by(distribution: Distribution) -> list[Plugin]:
    """Its plugins; one whose metadata cannot be read has none, and must not hide those of others."""
    try:
        # Most distributions have no plugin: reading their other metadata too would take most of the time.
        if "muxly." not in (distribution.read_text("entry_points.txt") or ""):
            return []
        kinds: dict[str, Kind] = {group: kind for kind, group in GROUPS.items()}
        entries = [entry for entry in distribution.entry_points if entry.group in kinds]
        return [_plugin(kinds[entry.group], entry, distribution) for entry in entries]
    except Exception:  # noqa: BLE001 (whatever a damaged file makes the standard library raise)
        import logging

        message = "the metadata of an installed distribution is damaged; its plugins are ignored: %s"
        logging.getLogger(__name__).warning(message, getattr(distribution, "_path", distribution))
        return []


def _plugin(kind: Kind, entry: EntryPoint, distribution: Distribution) -> Plugin:
    problem = None if _NAME.match(entry.name) else "its name may contain only lower-case letters, digits, - and _"
    return Plugin(
        kind=kind,
        name=entry.name,
        value=entry.value,
        distribution=distribution.metadata["Name"],
        version=distribution.version,
        problem=problem,
    )


def forget() -> None:
    """Look at the installed distributions again next time; after installing one in a notebook."""
    _installed.cache_clear()


def names(kind: Kind) -> list[str]:
    """The names that can be written as ``type:`` for that kind."""
    return sorted({plugin.name for plugin in installed() if plugin.kind == kind and plugin.problem is None})


def find(kind: Kind, name: str) -> Plugin:
    """The plugin of that kind and name.

    Raises:
        PluginError: None has that name (names the nearest), or several distributions claim it.
    """
    usable = (plugin for plugin in installed() if plugin.kind == kind and plugin.problem is None)
    claiming = [plugin for plugin in usable if plugin.name == name]
    if not claiming:
        raise PluginError(_unknown(kind, name))
    if len(claiming) > 1:
        owners = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in claiming)
        raise PluginError(f"{owners} both provide a {kind} named {name!r}; uninstall one of them")
    return claiming[0]


def _unknown(kind: Kind, name: str) -> str:
    known = names(kind)
    close = suggest(name, known)
    if close:
        return f'there is no {kind} named {name!r}; did you mean "{close}"?'
    listing = ", ".join(known) if known else "none"
    return f"there is no {kind} named {name!r}; installed: {listing}; install plugins with pip"


def load(kind: Kind, name: str) -> type[Component]:
    """The component class behind a ``type:``; imports its plugin.

    Args:
        kind: ``"connector"``, ``"router"`` or ``"scheduler"``.
        name: A plugin's name, or ``"module:Class"`` for a class of your own.

    Raises:
        PluginError: It cannot be found, imported, or provides something else.
    """
    if _PATH.match(name):
        plugin = Plugin(kind=kind, name=name, value=name, distribution="this environment", version="(local)")
    else:
        plugin = find(kind, name)
    return _component(plugin, plugin.import_value())


def _component(plugin: Plugin, value: Any) -> type[Component]:
    from muxly.connector import Connector
    from muxly.router import Router
    from muxly.scheduler import Scheduler

    contract = {"connector": Connector, "router": Router, "scheduler": Scheduler}[plugin.kind]
    component = value if isinstance(value, type) else _provided(plugin, value)
    if not (isinstance(component, type) and issubclass(component, contract)):
        raise PluginError(
            f"the {plugin.kind} plugin {plugin.name!r} of {plugin.distribution} provides {component!r}, "
            f"which is not a subclass of muxly.{contract.__name__}"
        )
    return component


def _provided(plugin: Plugin, module: Any) -> Any:
    classes = _called(plugin, module)
    if len(classes) != 1:
        raise PluginError(
            f"the {plugin.kind} plugin {plugin.name!r} of {plugin.distribution} needs one function "
            f"muxly_{plugin.kind}() marked @muxly.hookimpl that returns the class; found {len(classes)}"
        )
    return classes[0]


def _called(plugin: Plugin, module: Any) -> list[Any]:
    """What the plugin's hook returns, in a list."""
    try:
        hooks = _new_hooks()
        hooks.register(module)
        hook: Callable[[], list[Any]] = getattr(hooks.hook, f"muxly_{plugin.kind}")
        return hook()
    except Exception as error:
        raise PluginError(
            f"the {plugin.kind} plugin {plugin.name!r} of {plugin.distribution} {plugin.version} cannot be used: "
            f"{type(error).__name__}: {error}"
        ) from error


def _new_hooks() -> pluggy.PluginManager:
    import pluggy

    from muxly import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def observers(extra: tuple[object, ...] = ()) -> tuple[pluggy.PluginManager, list[PluginError]]:
    """The hooks of all installed observers, and the errors of those that cannot be imported.

    Args:
        extra: Objects with ``@muxly.hookimpl`` methods that observe this run only.
    """
    hooks, errors = _new_hooks(), list[PluginError]()
    for plugin in installed():
        if plugin.kind == "hooks":
            try:
                _observe(hooks, plugin)
            except PluginError as error:
                errors.append(error)
    for observer in extra:
        hooks.register(observer)
    return hooks, errors


def _observe(hooks: pluggy.PluginManager, plugin: Plugin) -> None:
    module, name = plugin.import_value(), f"{plugin.distribution}:{plugin.name}"
    try:
        hooks.register(module, name=name)
    except Exception as error:
        # What was registered before the mistake was noticed would be called all the same.
        if hooks.has_plugin(name):
            hooks.unregister(name=name)
        raise PluginError(f"the hooks of {plugin.distribution} {plugin.version} cannot be used: {error}") from error
