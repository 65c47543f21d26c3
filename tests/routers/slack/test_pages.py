"""The pages show messages as they are posted."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from muxly_routers.slack.delivery import DigestContent, digest, held_message, notification_message
from muxly_routers.slack.options import Digest, ReportKind
from muxly_routers.slack.run_reports import reports
from tests.routers.slack.test_reports import ALL, Story, ended, event
from tests.slack_pictures import drawn

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "router-slack.md").read_text(encoding="utf-8")
FENCES = [re.sub(r"(?m)^ {0,2}", "", one).strip() for one in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]
RUN = "01M84H55QDM1KQ250N3NHJG159"
REFUSED = "cannot connect to db.example:5432: connection refused; see whether the server runs"


def on(hour: int, run: str = RUN) -> dict[str, Any]:
    return {"at": Story().now + timedelta(hours=hour - 12), "run": run}


def behind(hour: int, run: str = RUN) -> list[dict[str, Any]]:
    failed = event("delivery_failed", level="error", route="warehouse", stream="weather", message=REFUSED)
    return [{**one, "records": 2922, **on(hour, run)} for one in (failed, *ended("partial"))]


def good(hour: int, run: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**one, "records": 2922, **on(hour, run)} for one in (*more, *ended("succeeded"))]


def test_page_shows_the_digest() -> None:
    table = pyarrow.csv.read_csv(DOCS / "examples" / "quickstart" / "data" / "weather.csv")
    facts = {"stream": "weather", "pipeline": "weather", "route": "team", "run": RUN}
    gathered = DigestContent(
        facts={**facts, "records": table.num_rows, "count": f"{table.num_rows:,} records"},
        columns=table.schema.names,
        first=table.slice(0, 3).to_pylist(),
        file="weather-01M84H56N00TVV5H4RD6DG0JHT.csv",
    )
    assert drawn(digest(gathered, Digest().look()).payload) in FENCES


def test_page_shows_the_reports() -> None:
    story = Story()
    shown = []
    changed = event("schema_changed", stream="weather", message="humidity double", level="warning")
    for hour, records in (
        (12, behind(12, "a")),
        (13, behind(13, "b")),
        (18, behind(15)),
        (19, good(17, "01M84HB3E5M2QJ7W8V9Y0Z1A2B")),
        (20, good(18, "01M84HB3E5M2QJ7W8V9Y0Z1A2C", changed)),
    ):
        story.now = Story().now + timedelta(hours=hour - 12)
        shown += [drawn(notification_message(one).payload) for one in story.tell(reports(records)).notifications]
    assert len(shown) == 4
    for picture in shown[1:]:
        assert picture in FENCES


def test_page_shows_what_was_held_back() -> None:
    held = [
        {"kind": "partial", "pipeline": "weather", "message": "1 route is behind", "at": "2026-06-01T23:00:00+00:00"},
        {"kind": "recovered", "pipeline": "weather", "message": "", "at": "2026-06-02T02:00:00+00:00"},
    ]
    assert drawn(held_message(held, 0).payload) in FENCES


@pytest.mark.parametrize("kind", sorted(ALL.kinds))
def test_page_names_each_kind_of_report(kind: str) -> None:
    assert kind in ReportKind.__args__  # type: ignore[attr-defined]
    assert re.search(rf"^\| `{kind}` \| .+ \|$", PAGE, re.MULTILINE)
