"""The result of a run, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from muxly.cli._exits import ExitCode
from muxly.cli._output import table, write, write_json, write_table

if TYPE_CHECKING:
    from muxly.cli._errors import Messages
    from muxly.pipeline import RouteResult, RunResult

_STATES = {"succeeded": ExitCode.DELIVERED, "partial": ExitCode.PARTIAL, "failed": ExitCode.FAILED}
# What came, and what became of it: the two sides of the account.
_CAME = {"pending_before": "waited", "sealed": "+ read", "replayed": "+ replayed"}
_WENT = {
    "delivered": "= delivered",
    "rejected": "+ rejected",
    "filtered": "+ filtered",
    "dropped": "+ dropped",
    "superseded": "+ superseded",
    "quarantined": "+ quarantined",
    "pending": "+ waits",
}
_ALWAYS = {"pending_before", "sealed", "delivered", "pending"}


def code_of(result: RunResult, signalled: ExitCode | None) -> ExitCode:
    """The exit code of one run.

    Args:
        result: What it did.
        signalled: The code of the signal that stopped it, if one did.
    """
    if result.state == "stopped":
        return signalled or ExitCode.PARTIAL
    return _STATES[result.state]


def result_as_json(result: RunResult) -> dict[str, Any]:
    """The result as JSON values; its accounts say whether they balance."""
    shown: dict[str, Any] = attrs.asdict(result)
    for name, route in result.routes.items():
        shown["routes"][name]["balanced"] = _balanced(route)
    return shown


def _balanced(route: RouteResult) -> bool:
    return all(one.balanced for one in route.streams.values())


def write_result(result: RunResult, *, as_json: bool) -> None:
    """Write the result to stdout: a line of JSON, or the account of each route."""
    if as_json:
        write_json(result_as_json(result), one_line=True)
        return
    seconds = (result.finished_at - result.started_at).total_seconds()
    title = f"{result.pipeline}: {result.state} in {seconds:.1f} s (run {result.id})"
    rows = [(name, stream, one) for name, route in result.routes.items() for stream, one in _by_stream(route)]
    if not rows:
        write(title)
        return
    keys = [*_columns_shown(_CAME, rows), *_columns_shown(_WENT, rows)]
    headings = {**_CAME, **_WENT}
    lines = [(name, stream, *(getattr(one, key) for key in keys)) for name, stream, one in rows]
    write_table(table(("route", "stream", *(headings[key] for key in keys)), lines, title))


def _by_stream(route: RouteResult) -> list[tuple[str | None, RouteResult]]:
    return list(route.streams.items()) or [(None, route)]


def _columns_shown(side: dict[str, str], rows: list[tuple[str, str | None, RouteResult]]) -> list[str]:
    return [key for key in side if key in _ALWAYS or any(getattr(one, key) for _name, _stream, one in rows)]


def say_errors(result: RunResult, messages: Messages) -> None:
    """Say on stderr what went wrong, and the next step."""
    said = set()
    for name, stream in result.streams.items():
        if stream.error:
            said.add(stream.error)
            text = _named(f"stream {name!r}: ", stream.error)
            messages.say("error", f"{result.pipeline}: {text}", stream=name)
    for name, route in result.routes.items():
        if route.error:
            said.add(route.error)
            level = "error" if route.required else "warning"
            text = _named(f"route {name!r}: ", route.error)
            messages.say(level, f"{result.pipeline}: {text}", route=name)  # type: ignore[arg-type]
    if result.error and not any(_repeats(result.error, one) for one in said):
        messages.say("error" if result.state == "failed" else "warning", f"{result.pipeline}: {result.error}")
    _say_rejected(result, messages)
    if result.resume_at is not None:
        messages.say("warning", f"{result.pipeline}: the source refuses until {result.resume_at.isoformat()}")


def _named(name: str, error: str) -> str:
    """An error behind the name of what it is about, which it may begin with already."""
    return name + error.removeprefix(name)


def _repeats(error: str, said: str) -> bool:
    """Whether the run's error is one that was said of a route or stream, there perhaps with its place in the file."""
    return said in error or said.endswith(error.partition(": ")[2] or error)


def _say_rejected(result: RunResult, messages: Messages) -> None:
    unread = sum(one.rejected for one in result.streams.values())
    refused = sum(one.rejected for one in result.routes.values())
    for count, what in ((unread, "could not be read"), (refused, "refused by the destination")):
        if count:
            hint = "`muxly dead-letters list` shows them"
            messages.say("warning", f"{result.pipeline}: records {what}: {count:,}; {hint}")
