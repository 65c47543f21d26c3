"""Command lines run inside the test's own process, and projects for them to work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from muxly.cli._app import app

DAILY: dict[str, Any] = {
    "connector": {"type": "muxly_testing:FakeConnector", "records": 30},
    "routes": {"lake": {"router": {"type": "file", "path": "out", "format": "jsonl"}}},
}


def muxly(*words: object, stdin: str | None = None) -> Result:
    """Run a command line; a traceback would be a failure of the test."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def answer(*words: object) -> Any:
    """The JSON that a command line writes to stdout; it must succeed."""
    result = muxly(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def project(folder: Path, pipelines: dict[str, Any] | None = None, **more: Any) -> Path:
    """A configuration file with pipelines, by default one named daily."""
    file = folder / "muxly.json"
    file.write_text(json.dumps({"version": 1, "pipelines": pipelines or {"daily": DAILY}, **more}))
    return file


def route(**options: Any) -> dict[str, Any]:
    """A route with a chaos router in append mode."""
    return {"router": {"type": "muxly_testing:ChaosRouter", **options}, "mode": "append"}


def pipeline(routes: dict[str, Any], **connector: Any) -> dict[str, Any]:
    """A pipeline that reads fake records and gives up quickly."""
    retry = {"first_seconds": 0.001, "limit_seconds": 0.01, "attempts": 2}
    source = {"type": "muxly_testing:FakeConnector", "records": 30, **connector}
    return {"connector": source, "routes": routes, "retry": retry}


def refusing(*, required: bool = True) -> dict[str, Any]:
    """A route whose router is always wrong."""
    return {**route(faults=[{"method": "deliver", "action": "RouteError", "times": 0}]), "required": required}
