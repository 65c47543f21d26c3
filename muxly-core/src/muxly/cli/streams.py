"""``muxly streams``: the streams of a pipeline, or of a connector that the command line describes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from muxly.cli._app import Command
from muxly.cli._output import current_messages, known_names_hint, write_listing
from muxly.cli._project import ProjectSelection, as_json, is_file, project_options
from muxly.connector import Connector
from muxly.errors import ConfigurationError
from muxly.pipeline import Pipeline
from muxly.stream import Stream


@click.command(
    cls=Command,
    name="streams",
    examples="""
        muxly streams                                # of every pipeline of ./muxly.yaml
        muxly streams crm.yaml contacts --json
        muxly streams file -o path='data/*.csv'      # of a connector, without a configuration
    """,
)
@project_options(arguments="[FILE | TYPE] [PIPELINE]...")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of TYPE; may be JSON.")
@as_json
def command(selection: ProjectSelection, options: tuple[str, ...], as_json: bool) -> None:
    """List the streams that a connector has, with their keys.

    With a configuration, also which routes of the pipeline deliver them, and in which mode. With
    TYPE, a connector's name, its options are given with -o.
    """
    kind = _connector_type(selection, options)
    listed = list(_rows_of_type(kind, options) if kind is not None else _rows_of_project(selection))
    columns = ["stream", "primary_key", "cursor_field", "parent"]
    columns = columns if kind is not None else ["pipeline", *columns, "read", "routes"]
    shown = listed if as_json else [{**row, "routes": _routes_text(row.get("routes", {}))} for row in listed]
    write_listing(columns, shown, as_json=as_json, empty="the connector has no stream; `muxly check` may say why")


def _connector_type(selection: ProjectSelection, options: tuple[str, ...]) -> str | None:
    """The connector's type, if one was named instead of a configuration."""
    from muxly import _plugins

    if selection.file is not None or not selection.pipelines or is_file(selection.pipelines[0]):
        if options:
            raise click.UsageError("-o sets options of a TYPE; for a configuration use --set")
        return None
    word = selection.pipelines[0]
    return word if options or ":" in word or word in _plugins.names("connector") else None


def _routes_text(routes: dict[str, str]) -> str:
    return ", ".join(f"{name} ({mode})" for name, mode in routes.items())


def _rows_of_type(kind: str, options: tuple[str, ...]) -> Iterator[dict[str, Any]]:

    for stream in _streams_of(connector_of(kind, options), kind):
        yield _stream_row(stream)


def _rows_of_project(selection: ProjectSelection) -> Iterator[dict[str, Any]]:
    project = selection.open()
    for name in project.names():
        pipeline = project.pipeline(name)
        try:
            for stream in _streams_of(pipeline.connector, name):
                yield {"pipeline": name, **_stream_row(stream), **_stream_rules_row(pipeline, stream)}
        except ConfigurationError as error:
            raise project.with_location(error, name) from error


def _streams_of(connector: Connector, name: str) -> list[Stream]:
    """All streams of a connector; a private copy is opened."""
    from muxly._ids import new_id
    from muxly.component import Run

    messages = current_messages()
    run = Run(new_id(), name, on_notice=lambda notice: messages.say(notice.level, notice.message, code=notice.code))
    opened = copy.deepcopy(connector)
    try:
        opened.open(run)
        return list(opened.streams())
    finally:
        opened.close()
        run.end()


def _stream_row(stream: Stream) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "primary_key": list(stream.primary_key),
        "overwrite_key": list(stream.overwrite_key),
        "cursor_field": stream.cursor_field,
        "parent": stream.parent,
        "sorted": stream.sorted,
        "metadata": dict(stream.metadata),
    }


def _stream_rules_row(pipeline: Pipeline, stream: Stream) -> dict[str, Any]:
    """How the pipeline reads and delivers a stream; one that it leaves out has no routes."""
    from muxly._runner.streams import check_modes, ruled, rules_of

    rules = rules_of(pipeline, stream.name)
    if rules is None:
        return {"read": "not read", "routes": {}}
    return {"read": rules.read, "routes": check_modes(pipeline, ruled(stream, rules), rules)}


def connector_of(kind: str, given: Sequence[str]) -> Connector:
    """A connector by its type.

    Args:
        kind: Its ``type`` in a configuration.
        given: ``KEY=VALUE``; the value may be JSON, and may hold references.

    Raises:
        PluginError: There is no such connector.
        ConfigurationError: An option is unknown, missing or wrong; the message has all of them.
    """
    from muxly import _plugins
    from muxly.config._build import BuildError, OptionsBuilder
    from muxly.config._document import path_text

    model = _plugins.load("connector", kind)
    options = dict(_parsed_option(text) for text in given)
    _refuse_unknown(kind, model, options)
    try:
        connector: Connector = OptionsBuilder(Path.cwd()).build(model, options)
    except BuildError as error:
        lines = [f"connector {kind}: {path_text(path)}: {reason}" for path, reason in error.reasons]
        raise ConfigurationError("\n".join(line.replace(": : ", ": ") for line in lines)) from error
    return connector


def _parsed_option(text: str) -> tuple[str, Any]:
    import json

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--option {text!r}: write KEY=VALUE")
    try:
        return key, _with_references(json.loads(value))
    except ValueError:
        return key, _with_references(value)


def _with_references(value: Any) -> Any:
    """The value with its references replaced; a secret keeps where it came from."""
    from muxly import _references
    from muxly.config._source import ExternalText

    if isinstance(value, dict):
        return {key: _with_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item) for item in value]
    if isinstance(value, str) and _references.has_reference(value):
        return ExternalText(_references.resolve(value), value)
    return value


def _refuse_unknown(kind: str, model: type, options: dict[str, Any]) -> None:
    from muxly.config._schema import fields

    known = {field.name: field for field in fields(model)}
    problems = []
    for key in options:
        if key not in known:
            hint = known_names_hint(key, known)
            problems.append(f'connector {kind}: there is no option "{key}"; {hint}')
    missing = [option for name, option in known.items() if option.required and name not in options]
    problems += [
        f"connector {kind}: -o {option.name}=... is missing: {option.help or 'required'}" for option in missing
    ]
    if problems:
        raise ConfigurationError("\n".join(problems))
