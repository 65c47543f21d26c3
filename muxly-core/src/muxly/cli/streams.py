"""``muxly streams``: what a connector can read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Command
from muxly.cli._output import current_messages, write_listing
from muxly.cli._project import Where, as_json, is_file, located
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muxly.connector import Connector
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
@located(words="[FILE | TYPE] [PIPELINE]...")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of TYPE; may be JSON.")
@as_json
def command(where: Where, options: tuple[str, ...], as_json: bool) -> None:
    """List the streams that a connector has, with their keys.

    With a configuration, also which routes of the pipeline deliver them, and in which mode. With
    TYPE, a connector's name, its options are given with -o.
    """
    kind = _kind(where, options)
    found = list(_of_type(kind, options) if kind is not None else _of_project(where))
    columns = ["stream", "primary_key", "cursor_field", "parent"]
    columns = columns if kind is not None else ["pipeline", *columns, "read", "routes"]
    shown = found if as_json else [{**one, "routes": _routes_text(one.get("routes", {}))} for one in found]
    write_listing(columns, shown, as_json=as_json, empty="the connector has no stream; `muxly check` may say why")


def _kind(where: Where, options: tuple[str, ...]) -> str | None:
    """The connector's type, if one was named in place of a configuration."""
    from muxly import _plugins

    if where.file is not None or not where.pipelines or is_file(where.pipelines[0]):
        if options:
            raise click.UsageError("-o gives options to a TYPE; for a configuration use --set")
        return None
    word = where.pipelines[0]
    return word if options or ":" in word or word in _plugins.names("connector") else None


def _routes_text(routes: dict[str, str]) -> str:
    return ", ".join(f"{name} ({mode})" for name, mode in routes.items())


def _of_type(kind: str, options: tuple[str, ...]) -> Iterator[dict[str, Any]]:

    for one in _offered(connector_of(kind, options), kind):
        yield _described(one)


def _of_project(where: Where) -> Iterator[dict[str, Any]]:
    project = where.open()
    for name in project.names():
        pipeline = project.pipeline(name)
        try:
            for one in _offered(pipeline.connector, name):
                yield {"pipeline": name, **_described(one), **_ruled(pipeline, one)}
        except ConfigurationError as error:
            raise project.placed(error, name) from error


def _offered(connector: Connector, name: str) -> list[Stream]:
    """All streams of a connector; a private copy is opened."""
    from muxly._ids import new_id
    from muxly.component import Run

    messages = current_messages()
    run = Run(new_id(), name, on_notice=lambda one: messages.say(one.level, one.message, code=one.code))
    opened = copy.deepcopy(connector)
    try:
        opened.open(run)
        return list(opened.streams())
    finally:
        opened.close()
        run.end()


def _described(one: Stream) -> dict[str, Any]:
    return {
        "stream": one.name,
        "primary_key": list(one.primary_key),
        "overwrite_key": list(one.overwrite_key),
        "cursor_field": one.cursor_field,
        "parent": one.parent,
        "sorted": one.sorted,
        "metadata": dict(one.metadata),
    }


def _ruled(pipeline: Pipeline, one: Stream) -> dict[str, Any]:
    """What the pipeline makes of a stream; one that it leaves out has no routes."""
    from muxly._runner.streams import check_modes, ruled, rules_of

    rules = rules_of(pipeline, one.name)
    if rules is None:
        return {"read": "not read", "routes": {}}
    return {"read": rules.read, "routes": check_modes(pipeline, ruled(one, rules), rules)}


def connector_of(kind: str, given: Sequence[str]) -> Connector:
    """A connector by its type.

    Args:
        kind: What ``type:`` would be.
        given: ``KEY=VALUE``; the value may be JSON, and may hold references.

    Raises:
        PluginError: There is no such connector.
        ConfigurationError: An option is unknown, missing or wrong; all of them are told.
    """
    from muxly import _plugins
    from muxly.config._build import Builder, BuildError
    from muxly.config._document import path_text

    model = _plugins.load("connector", kind)
    options = dict(_option(text) for text in given)
    _refuse_unknown(kind, model, options)
    try:
        made: Connector = Builder(Path.cwd()).build(model, options)
    except BuildError as error:
        lines = [f"connector {kind}: {path_text(path)}: {reason}" for path, reason in error.reasons]
        raise ConfigurationError("\n".join(line.replace(": : ", ": ") for line in lines)) from error
    return made


def _option(text: str) -> tuple[str, Any]:
    import json

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--option {text!r}: write KEY=VALUE")
    try:
        return key, _resolved(json.loads(value))
    except ValueError:
        return key, _resolved(value)


def _resolved(value: Any) -> Any:
    """The value with its references replaced; a secret keeps where it came from."""
    from muxly import _references
    from muxly.config._source import FromOutside

    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, str) and _references.has_reference(value):
        return FromOutside(_references.resolve(value), value)
    return value


def _refuse_unknown(kind: str, model: type, options: dict[str, Any]) -> None:
    from muxly.config._schema import fields
    from muxly.suggest import suggest

    known = {one.name: one for one in fields(model)}
    problems = []
    for key in options:
        if key not in known:
            close = suggest(key, known)
            hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
            problems.append(f'connector {kind}: there is no option "{key}"; {hint}')
    missing = [one for name, one in known.items() if one.required and name not in options]
    problems += [f"connector {kind}: -o {one.name}=... is missing: {one.help or 'required'}" for one in missing]
    if problems:
        raise ConfigurationError("\n".join(problems))
