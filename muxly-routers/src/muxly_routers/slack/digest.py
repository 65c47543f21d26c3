"""One message for a whole delivery: how many records, and the first of them as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from muxly_routers.slack import table
from muxly_routers.slack.message import SlackMessage, context, header
from muxly_routers.slack.text import escape, line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muxly_routers._templates import Template

__all__ = ["DigestLayout", "DigestContent", "digest"]


@frozen(kw_only=True)
class DigestLayout:
    """How the message looks.

    Args:
        title: Template of the title; its fields are those of ``Gathered.facts``.
        rows: So many records are shown.
        columns: These columns; none = all.
        layout: A table block, or a code fence.
    """

    title: Template
    rows: int
    columns: tuple[str, ...] = ()
    layout: Literal["block", "text"] = "block"


@frozen(kw_only=True)
class DigestContent:
    """What a delivery holds, as far as the message needs it.

    Args:
        facts: ``stream``, ``pipeline``, ``route``, ``run``, ``records``, the number of them, and ``count``, that
            number in words.
        columns: The names of the columns to show.
        first: The first records.
        file: The name of the file with all of them, if there is one.
    """

    facts: Mapping[str, Any]
    columns: Sequence[str]
    first: Sequence[Mapping[str, Any]] = field(factory=list)
    file: str | None = None


def digest(gathered: DigestContent, look: DigestLayout) -> SlackMessage:
    """The message of a delivery."""
    title = str(look.title.render(gathered.facts, escape=escape))
    blocks = [header(title)]
    if gathered.first:
        draw = table.block if look.layout == "block" else table.monospaced
        blocks.append(draw(gathered.columns, gathered.first))
    blocks.append(context(_below(gathered)))
    return SlackMessage(title, blocks)


def _below(gathered: DigestContent) -> str:
    """The line under the table."""
    records, shown, facts = gathered.facts["records"], len(gathered.first), gathered.facts
    parts = [f"the first {shown} of {records:,}"] if 0 < shown < records else []
    hidden = len(gathered.columns) - table.COLUMNS_LIMIT
    if shown and hidden > 0:
        parts.append(f"the first {table.COLUMNS_LIMIT} of {len(gathered.columns)} columns")
    if gathered.file is not None:
        parts.append(f"all of them in {_mentioned(gathered.file)}")
    parts.append(f"pipeline {_mentioned(str(facts['pipeline']))}, run {_mentioned(str(facts['run']))}")
    return " · ".join(parts)


def _mentioned(name: str) -> str:
    return escape(line(name, 120))
