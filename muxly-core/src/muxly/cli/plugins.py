"""``muxly plugins``: the installed plugins."""

from __future__ import annotations

from typing import Any

import click

from muxly.cli._app import Group
from muxly.cli._output import ExitCode, write_listing
from muxly.cli._project import as_json


@click.group(
    cls=Group,
    name="plugins",
    default="list",
    invoke_without_command=False,
    examples="""
        muxly plugins                # what `type:` can be
        muxly plugins --json
        muxly plugins doctor         # import each one and say what is wrong with it
    """,
)
def command() -> None:
    """List the installed connectors, routers, schedulers and observers.

    They are found by the metadata of installed distributions; the list imports none of them.
    """


@command.command("list", examples="muxly plugins list --kind router")
@click.option("--kind", type=click.Choice(["connector", "router", "scheduler", "hooks"]), help="Only these.")
@as_json
def list_plugins(kind: str | None, as_json: bool) -> None:
    """List plugins from metadata alone."""
    from muxly import _plugins

    plugins = [_described(plugin) for plugin in _plugins.installed() if kind in {None, plugin.kind}]
    write_listing(
        ("kind", "name", "distribution", "version", "problem"),
        plugins,
        as_json=as_json,
        empty="no plugin is installed; `pip install muxly-connector-file muxly-routers` installs the first ones",
    )


def _described(plugin: Any) -> dict[str, Any]:
    keys = ("kind", "name", "distribution", "version", "value", "problem")
    return {key: getattr(plugin, key) for key in keys}


@command.command("doctor", examples="muxly plugins doctor")
@as_json
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Import every plugin and report each.

    The exit code is 1 if one of them cannot be used.
    """
    from muxly import _plugins

    plugins = [{**_described(plugin), "problem": _problem(plugin)} for plugin in _plugins.installed()]
    shown = [{**row, "state": "broken" if row["problem"] else "works"} for row in plugins]
    write_listing(
        ("kind", "name", "state", "distribution", "version", "problem"), shown, as_json=as_json, empty="no plugin"
    )
    if any(row["problem"] for row in plugins):
        ctx.exit(ExitCode.FAILED)


def _problem(plugin: Any) -> str | None:
    from muxly import _plugins
    from muxly.errors import MuxlyError

    if plugin.problem:
        return str(plugin.problem)
    try:
        if plugin.kind == "hooks":
            plugin.import_value()
        else:
            _plugins.load(plugin.kind, plugin.name)
    except MuxlyError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return f"{type(error).__name__}: {error}"
    return None
