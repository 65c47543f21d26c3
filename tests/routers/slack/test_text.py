"""What a message says is within Slack's limits, and nothing that a record brings has a meaning of its own."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

import muxly
from muxly_routers._templates import Template
from muxly_routers.slack import message as table
from muxly_routers.slack.delivery import DigestContent, DigestLayout, digest
from muxly_routers.slack.message import (
    MessageTemplate,
    SlackMessage,
    context,
    escape,
    fenced,
    header,
    line,
    section,
    shortened,
)
from tests.slack_server import problems

HOSTILE = (
    "<!channel>",
    "<!here|here>",
    "<@U024BE7LH>",
    "<#C024BE7LR>",
    "<!subteam^S01>",
    "<http://evil.example|your bank>",
    "&lt;!channel&gt;",
    "```<!everyone>```",
    "{{7*7}} {0.__class__} ${HOME}",
    "\x00\x1b[31m\u202e",
    "*bold* _it_ ~gone~ `code`",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
)


def mentions(text: str) -> list[str]:
    """What Slack would take for a mention or a link."""
    return re.findall(r"<[@#!a-zA-Z][^>]*>", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_record_is_only_text(text: str) -> None:
    escaped = escape(text)
    assert mentions(escaped) == []
    assert html.unescape(escaped) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_does_not_end_its_code_fence(text: str) -> None:
    block = fenced(text)
    assert block.count("```") == 2
    assert mentions(block) == []


@given(st.text(max_size=400), st.integers(100, 300))
def test_short_text_is_a_beginning_and_says_how_much_is_missing(text: str, limit: int) -> None:
    escaped = escape(text)
    cut = shortened(escaped, limit)
    assert len(cut) <= limit
    if cut != escaped:
        kept, _, rest = cut.rpartition("…")
        assert escaped.startswith(kept.removesuffix("\n```"))
        assert not re.search(r"&[a-z]*$", kept)
        assert int(re.findall(r"[\d,]+", rest)[0].replace(",", "")) > 0


def test_cut_leaves_no_half_link_and_no_open_fence() -> None:
    assert "<http" not in shortened("x" * 50 + "<http://a.example|" + "b" * 200 + ">", 120)
    assert shortened("```\n" + "x" * 500, 200).count("```") == 2


def test_line_is_one_line() -> None:
    assert line(" a\r\n\tb\u2028c ", 10) == "a b c"
    assert line("abcdef", 4) == "abc…"


def test_message_says_what_was_left_out() -> None:
    long = SlackMessage("t", [header("h" * 400), section("s" * 9000), context("c" * 9000)] + [section("x")] * 80)
    assert problems(long.payload) == []
    assert len(long.blocks) == 50
    assert long.blocks[-1]["elements"][0]["text"] == "… and 34 more blocks"
    assert re.search(r"\(6,\d\d\d more characters\)", long.blocks[1]["text"]["text"])
    alone = SlackMessage("t" * 50_000).payload["text"]
    assert len(alone) <= 40_000
    assert re.search(r"\(10,\d\d\d more characters\)$", alone)


def test_slack_looks_for_nothing_in_a_text_that_the_text_does_not_mark() -> None:
    assert SlackMessage("t", [section("#general")]).blocks[0]["text"]["verbatim"] is True
    option = {"text": {"type": "mrkdwn", "text": "#general"}, "value": "1"}
    deep = {"type": "actions", "elements": [{"type": "checkboxes", "options": [option]}]}
    (shown,) = SlackMessage("t", [deep]).blocks
    assert shown["elements"][0]["options"][0]["text"]["verbatim"] is True
    own = {"type": "section", "text": {"type": "mrkdwn", "text": "#general", "verbatim": False}}
    assert SlackMessage("t", [own]).blocks[0]["text"]["verbatim"] is False


def test_empty_text_objects_become_a_dash() -> None:
    fields = [{"type": "mrkdwn", "text": ""}]
    message = SlackMessage("t", [section(""), {"type": "section", "fields": fields}])
    assert problems(message.payload) == []


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.decimals(), st.binary(max_size=9)
)


@given(st.lists(st.text(), min_size=1, max_size=25, unique=True), st.data())
def test_every_table_is_one_that_slack_takes(columns: list[str], data: st.DataObject) -> None:
    records = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, VALUES)), max_size=8))
    block = table.table_block(columns, records)
    assert problems({"text": "t", "blocks": [block]}) == []
    Block.parse(block).validate_json()  # type: ignore[union-attr]
    text = table.text_table(columns, records)
    assert problems({"text": "t", "blocks": [text]}) == []
    assert text["text"]["text"].count("```") == 2
    assert mentions(text["text"]["text"]) == []


def test_table_of_many_wide_records_stays_within_its_limit() -> None:
    columns = [f"column {number}" for number in range(30)]
    records = [dict.fromkeys(columns, "x" * 5000)] * 200
    assert problems({"text": "t", "blocks": [table.table_block(columns, records)]}) == []


def test_cells_are_as_people_read_them() -> None:
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    record = {"a": None, "b": True, "c": at, "d": date(2026, 3, 1), "e": Decimal("1.50"), "f": b"\x01", "g": "x\ny"}
    rows = table.table_block(list(record), [record])["rows"]
    shown = [cell["text"] for cell in rows[1]]
    assert shown == ["-", "true", "2026-03-01 12:30:00Z", "2026-03-01", "1.50", "01", "x y"]


def test_numbers_stand_at_the_right() -> None:
    settings = table.table_block(["n", "s", "b"], [{"n": 1, "s": "1", "b": True}, {"n": None, "s": None, "b": None}])
    assert [one["align"] for one in settings["column_settings"]] == ["right", "left", "left"]


def test_text_table_is_aligned_whatever_the_script() -> None:
    text = table.text_table(["city", "°C"], [{"city": "東京", "°C": 9.5}, {"city": "Rom", "°C": 12.0}])
    assert text["text"]["text"].splitlines() == ["```", "city    °C", "────  ────", "東京   9.5", "Rom   12.0", "```"]


def test_text_table_says_how_many_records_it_leaves_out() -> None:
    text = table.text_table(["a"], [{"a": "x" * 24}] * 200)["text"]["text"]
    (left,) = re.findall(r"… and (\d+) more", text)
    assert text.count("x" * 24) + int(left) == 200


def look(**more: Any) -> DigestLayout:
    return DigestLayout(**{"title": Template.parse("{stream}: {records:,} records"), "rows": 10, **more})


def gathered(records: int, first: list[dict[str, Any]], **more: Any) -> DigestContent:
    facts = {"stream": "deals <!here>", "pipeline": "crm", "route": "sales", "run": "01J", "records": records}
    columns = list(first[0]) if first else []
    return DigestContent(**{"facts": facts, "columns": columns, "first": first, **more})


def test_digest_counts_shows_and_names_the_file() -> None:
    message = digest(gathered(1461, [{"a": 1}, {"a": 2}], file="deals-01J.csv"), look())
    assert [one["type"] for one in message.blocks] == ["header", "table", "context"]
    assert message.text == "deals &lt;!here&gt;: 1,461 records"
    below = message.blocks[-1]["elements"][0]["text"]
    assert below == "the first 2 of 1,461 · all of them in deals-01J.csv · pipeline crm, run 01J"


def test_digest_without_rows_has_no_table() -> None:
    message = digest(gathered(5, []), look(rows=0))
    assert [one["type"] for one in message.blocks] == ["header", "context"]


def test_digest_says_that_there_are_more_columns() -> None:
    message = digest(gathered(1, [{f"c{number}": number for number in range(33)}]), look())
    assert "the first 20 of 33 columns" in message.blocks[-1]["elements"][0]["text"]


@pytest.mark.parametrize("text", HOSTILE)
def test_template_writes_mentions_and_records_do_not(text: str) -> None:
    message = MessageTemplate.parse("<!here> *{name}* closed").render({"name": text})
    assert mentions(message.text) == ["<!here>"]


@pytest.mark.parametrize("value", ["!channel", "!here|x", "@U024BE7LH", "#C024BE7LR", "!subteam^S01"])
@pytest.mark.parametrize("template", ["<{url}|open>", "<{none}{url}>", "see <{url}"])
def test_record_does_not_make_a_mention_of_a_link_that_the_template_writes(template: str, value: str) -> None:
    text = MessageTemplate.parse(template).render({"url": value, "none": None}).text
    assert not re.search(r"<[!@#]", text)


def test_record_does_not_choose_the_words_of_a_link_by_its_address() -> None:
    template = MessageTemplate.parse("<{url}|open> <https://a.example/{path}/x|{name}> a < {name} <@{user}>")
    record = {"url": "https://evil.example/?a=1&b=2|your bank", "path": "a b\nc|d", "name": "A | B", "user": "U1"}
    assert template.render(record).text == (
        "<https://evil.example/?a=1&amp;b=2%7Cyour%20bank|open> <https://a.example/a%20b%0Ac%7Cd/x|A | B> "
        "a < A | B <@U1>"
    )


def test_record_does_not_end_a_code_block_of_the_template() -> None:
    text = MessageTemplate.parse("```{log}``` `{log}`").render({"log": "a```<!here>"}).text
    assert text == "```a'''&lt;!here&gt;``` `a```&lt;!here&gt;`"


def test_record_writes_no_markdown() -> None:
    block = {"type": "markdown", "text": "**{name}** [open]({link})"}
    hostile = "[your bank](https://evil.example) <!channel> # x\n# y"
    (shown,) = MessageTemplate.parse([block]).render({"name": hostile, "link": "https://a.example/"}).blocks
    assert shown["text"].startswith(r"**\[your bank\]\(https://evil\.example\) &lt;\!channel&gt; \# x")
    assert not re.search(r"(?<!\\)[\[#]", shown["text"].replace("[open]", ""))


def test_kind_of_a_block_that_a_record_names_is_the_one_that_counts() -> None:
    template = MessageTemplate.parse([{"type": "{kind}", "text": "{name}"}])
    (shown,) = template.render({"kind": "markdown", "name": "[a](b)"}).blocks
    assert shown["text"] == r"\[a\]\(b\)"


def test_addresses_and_raw_cells_have_no_markup_to_escape() -> None:
    blocks = [
        {"type": "image", "image_url": "{url}", "alt_text": "{name}"},
        {
            "type": "actions",
            "elements": [{"type": "button", "url": "{url}", "text": {"type": "plain_text", "text": "x"}}],
        },
        {"type": "table", "rows": [[{"type": "raw_text", "text": "{name}"}]]},
    ]
    image, actions, table_ = MessageTemplate.parse(blocks).render({"url": "https://a/?b=1&c=2", "name": "A & B"}).blocks
    assert (image["image_url"], image["alt_text"]) == ("https://a/?b=1&c=2", "A &amp; B")
    assert actions["elements"][0]["url"] == "https://a/?b=1&c=2"
    assert table_["rows"][0][0]["text"] == "A & B"


def test_template_of_blocks_keeps_their_shape() -> None:
    source = {
        "text": "{name}",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "{amount}"}},
            {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Owner*\n{owner|nobody}"}]},
        ],
    }
    message = MessageTemplate.parse(source).render({"name": "A & B", "amount": 12.5, "owner": None})
    assert message.payload["text"] == "A &amp; B"
    assert message.blocks[0]["text"]["text"] == "12.5"
    assert message.blocks[1]["fields"][0]["text"] == "*Owner*\nnobody"
    assert problems(message.payload) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (False, "false"), (0.0, "0.0"), ("<", "&lt;"), ([1, "<"], '[1, "&lt;"]')]
)
def test_template_that_is_only_one_place_is_a_text(value: Any, text: str) -> None:
    assert MessageTemplate.parse("{value}").render({"value": value}).text == text
    assert MessageTemplate.parse({"text": "{value}"}).render({"value": value}).text == text


def test_template_of_blocks_alone_takes_its_notification_from_them() -> None:
    blocks = [{"type": "divider"}, section("{name} closed")]
    assert MessageTemplate.parse(blocks).render({"name": "x"}).text == "x closed"
    assert MessageTemplate.parse([{"type": "divider"}]).render({}).text == "-"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{", "single {"),
        ({"text": "a", "color": "b"}, "not color"),
        ({}, "not nothing"),
        ({"blocks": "x"}, "list of mappings"),
        ([{"text": "x"}], r"blocks\[0\] has no type"),
        ({"text": 5}, "text of a message is a text"),
        ({"text": "x", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "{a:!r}"}}]}, "format"),
    ],
)
def test_template_that_is_none_is_refused(source: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MessageTemplate.parse(source)


def test_record_that_does_not_fit_is_rejected() -> None:
    template = MessageTemplate.parse("{amount:,.2f}")
    with pytest.raises(muxly.RejectedError, match="does not fit a value of type list"):
        template.render({"amount": [1]})
    with pytest.raises(muxly.RejectedError, match="empty text"):
        MessageTemplate.parse("{name}").render({"name": " "})
