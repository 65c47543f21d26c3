"""``muxly config``: validate, show and explain the configuration."""

from __future__ import annotations

import click

from muxly.cli._app import Group
from muxly.cli._output import current_messages, write, write_json
from muxly.cli._project import ProjectSelection, as_json, project_options


@click.group(
    cls=Group,
    name="config",
    examples="""
        muxly config validate
        muxly config show --resolved
        muxly config explain pipelines.daily.parallel
        muxly config schema > muxly.schema.json
    """,
)
def command() -> None:
    """Validate, show and explain the configuration."""


@command.command("validate", examples="muxly config validate muxly.yaml --profile production")
@project_options(arguments="[FILE]")
def validate(selection: ProjectSelection) -> None:
    """Check everything, also what no run would use; all mistakes at once.

    The plugins that the file names are imported; nothing is opened.
    """
    project = selection.open()
    project.configuration.validate()
    count = len(project.configuration.pipelines)
    current_messages().say("info", f"{project.configuration.path} is valid: {count} pipeline{'s'[: count != 1]}")


@command.command("show", examples="muxly config show --resolved --set pipelines.daily.parallel=8")
@project_options(arguments="[FILE]")
@click.option("--resolved", is_flag=True, help="Resolve references; secrets stay masked.")
@as_json
def show(selection: ProjectSelection, resolved: bool, as_json: bool) -> None:
    """Show the configuration with all layers merged and secrets masked."""
    shown = selection.open().configuration.show(resolved=resolved)
    if as_json:
        write_json(shown)
        return
    import yaml

    write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())


@command.command("explain", examples="muxly config explain pipelines.daily.parallel -f muxly.yaml")
@click.argument("key")
@project_options(arguments="")
def explain(selection: ProjectSelection, key: str) -> None:
    """Show every layer that gave KEY a value, and which of them counts."""
    write(str(selection.open().configuration.explain(key)))


@command.command("schema", examples="muxly config schema > muxly.schema.json")
def schema() -> None:
    """Write the JSON Schema of a configuration file, for editors.

    It holds the core's own keys and the options of every installed plugin; all plugins are imported.
    """
    from muxly import config

    write_json(config.schema())
