"""``muxly runs``: past runs, and how each ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import write_listing
from muxly.cli._project import ProjectSelection, as_json, ledger_rows, project_options
from muxly.store import json_codec, runs

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="runs",
    default="list",
    examples="""
        muxly runs list
        muxly runs list muxly.yaml crm --limit 5 --json
    """,
)
def command() -> None:
    """What ran when, and how it ended; commands that changed the ledger too."""


@command.command("list", examples="muxly runs list --limit 5")
@project_options()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Show this many per pipeline.")
@as_json
def list_runs(selection: ProjectSelection, limit: int, as_json: bool) -> None:
    """List runs, the newest first."""

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        for run in runs.recent(ledger, limit):
            yield _row(run)

    listed = sorted(ledger_rows(selection.open(), rows), key=lambda row: row["started_at"], reverse=True)
    columns = ("id", "pipeline", "command", "state", "started_at", "seconds", "delivered", "error")
    write_listing(columns, listed, as_json=as_json, empty="nothing has run yet")


def _row(run: dict[str, Any]) -> dict[str, Any]:
    result = json_codec.decode(run["result"]) if run["result"] else {}
    finished = run["finished_at"]
    return {
        "id": run["id"],
        "command": run["command"],
        "state": run["state"],
        "started_at": run["started_at"],
        "finished_at": finished,
        "seconds": round((finished - run["started_at"]).total_seconds(), 1) if finished else None,
        "delivered": sum(route["delivered"] for route in result.get("routes", {}).values()),
        "holder": run["holder"],
        "params": json_codec.decode(run["params"]) if run["params"] else {},
        "result": result,
        "error": run["error"],
    }
