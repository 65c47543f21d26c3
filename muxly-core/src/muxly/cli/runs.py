"""``muxly runs``: what ran, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import write_listing
from muxly.cli._project import Where, as_json, listed, located
from muxly.store import json_codec, runs

if TYPE_CHECKING:
    from collections.abc import Iterator

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
@located()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many of each pipeline.")
@as_json
def list_runs(where: Where, limit: int, as_json: bool) -> None:
    """List runs, the newest first."""

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        for one in runs.recent(ledger, limit):
            yield _row(one)

    found = sorted(listed(where.open(), rows), key=lambda one: one["started_at"], reverse=True)
    columns = ("id", "pipeline", "command", "state", "started_at", "seconds", "delivered", "error")
    write_listing(columns, found, as_json=as_json, empty="nothing has run yet")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    result = json_codec.decode(one["result"]) if one["result"] else {}
    finished = one["finished_at"]
    return {
        "id": one["id"],
        "command": one["command"],
        "state": one["state"],
        "started_at": one["started_at"],
        "finished_at": finished,
        "seconds": round((finished - one["started_at"]).total_seconds(), 1) if finished else None,
        "delivered": sum(route["delivered"] for route in result.get("routes", {}).values()),
        "holder": one["holder"],
        "params": json_codec.decode(one["params"]) if one["params"] else {},
        "result": result,
        "error": one["error"],
    }
