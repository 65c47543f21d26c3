"""The Slack router in configurations and runs: what it takes, what it posts, and what it says of a set-up."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import muxly
import muxly.config
from muxly_routers.slack import Digest, Slack
from muxly_testing import delivery
from muxly_testing._expectations import WatchedRun
from tests.slack_server import CHANNEL, Fault, problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.slack_server import SlackServer

TOKEN = muxly.Secret("xoxb-1")
DEALS = [{"deal": f"Deal {number}", "amount": number * 1000.5, "stage": None} for number in range(30)]


@pytest.fixture
def run() -> Iterator[WatchedRun]:
    run = WatchedRun()
    yield run
    run.end()


@pytest.fixture
def post(slack_server: SlackServer, run: WatchedRun) -> Callable[..., muxly.Receipt | None]:
    """Delivers records, or a delivery, with a new router; options are given by name."""

    def deliver(
        records: Any = DEALS, *, stream: str = "deals", state: Any = None, **options: Any
    ) -> muxly.Receipt | None:
        bot = {"token": muxly.Secret(slack_server.token), "channel": CHANNEL, "base_url": slack_server.base_url}
        router = Slack(messages_per_second=1000.0, **{**bot, **options})
        router.open(run)
        try:
            return router.deliver(delivery(records, stream, state=state, batch_records=7))
        finally:
            router.close()

    return deliver


# --- options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "or token and channel of a bot; none is given"),
        ({"token": TOKEN, "webhook_url": "https://hooks.slack.com/services/x"}, "both are given"),
        ({"token": TOKEN, "channel": "#general"}, "a channel is given by its id, such as C0123ABCD, not '#general'"),
        ({"token": TOKEN}, "a channel is given by its id"),
        ({"webhook_url": "https://h", "channel": "C012"}, "belongs to one channel; leave channel out"),
        ({"webhook_url": "https://h", "attach": "csv"}, "takes no files"),
        ({"webhook_url": "https://h", "threads": "run"}, "has no threads"),
        ({"token": TOKEN, "channel": "C012", "message": "{"}, "single {"),
        ({"token": TOKEN, "channel": "C012", "message": "x", "attach": "csv"}, "attach goes with a digest"),
        ({"token": TOKEN, "channel": "C012", "message": "x", "template": "digest"}, "leave out template: digest"),
        ({"token": TOKEN, "channel": "C012", "base_url": "slack.com"}, "does not begin with https://"),
        ({"token": TOKEN, "channel": "C012", "base_url": "https://a b"}, "has spaces in it"),
        ({"token": TOKEN, "channel": "C012", "base_url": "https://me:pw@slack.com/"}, "has a user in it"),
        ({"webhook_url": "https://[::1/x"}, "webhook_url names no host, or an invalid port"),
        ({"webhook_url": "https://hooks.slack.com:https/x"}, "webhook_url names no host, or an invalid port"),
        ({"webhook_url": "https:///services/x"}, "does not begin with https:// and a host"),
        ({"token": TOKEN, "channel": "C012", "messages_per_second": 0}, "must be > 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Slack(**options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"title": "{record}"}, "{record} is not a field of a title"),
        ({"title": "{stream:,.2f}"}, "does not fit"),
        ({"rows": 100}, "must be <= 99"),
    ],
)
def test_digests_that_cannot_be_drawn_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Digest(**options)


def test_webhook_url_must_be_a_url_and_is_not_shown() -> None:
    with pytest.raises(ValueError, match="webhook_url does not begin with https://") as caught:
        Slack(webhook_url=muxly.Secret("file:///etc/passwd"))
    assert "passwd" not in str(caught.value)


def test_configuration_takes_nested_blocks_and_places_errors(tmp_path: Path) -> None:
    file = tmp_path / "muxly.yaml"
    text = """
        version: 1
        pipelines:
          crm:
            connector: {type: file, path: deals.csv}
            routes:
              sales:
                router:
                  type: slack
                  token: ${SLACK_TOKEN}
                  channel: C0123ABCD
                  message:
                    text: "{deal}"
                    blocks:
                      - {type: header, text: {type: plain_text, text: "{deal}"}}
                      - type: section
                        fields:
                          - {type: mrkdwn, text: "*Amount*\\n{amount:,.0f}"}
                  timeout_seconds: 5s
        events:
          routes:
            alerts:
              router:
                type: slack
                webhook_url: ${HOOK}
                run_events: {repeat_seconds: 4h, quiet_hours: {time_zone: Europe/Berlin}}
        """
    file.write_text("\n".join(line[8:] for line in text.splitlines()), encoding="utf-8")
    environ = {"SLACK_TOKEN": "xoxb-1", "HOOK": "https://hooks.slack.com/services/T/B/x"}
    muxly.config.load(file, environ=environ).validate()
    file.write_text(file.read_text().replace("C0123ABCD", "'#sales'"), encoding="utf-8")
    with pytest.raises(muxly.ConfigurationError, match=r"muxly\.yaml:11:20: .*a channel is given by its id"):
        muxly.config.load(file, environ=environ).validate()


def test_module_and_webhooks_do_not_load_the_sdk() -> None:
    code = (
        "import sys, muxly; from muxly_routers.slack import Slack; assert 'pyarrow' not in sys.modules;"
        "r = Slack(webhook_url='https://hooks.slack.com/services/x'); r.open(muxly.Run('1', 'p')); list(r.check());"
        "print('slack_sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_sdk_names_the_extra(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slack_sdk", None)
    monkeypatch.delitem(sys.modules, "muxly_routers.slack.bot", raising=False)
    router = Slack(token=TOKEN, channel=CHANNEL, base_url=slack_server.base_url)
    router.open(muxly.Run("01", "p"))
    with pytest.raises(muxly.PluginError, match=re.escape('pip install "muxly-routers[slack]"')):
        list(router.check())


# --- what is posted


def test_digest_counts_shows_the_first_records_and_attaches_all(post: Any, slack_server: SlackServer) -> None:
    post(attach="csv", digest=Digest(rows=3))
    (message,) = slack_server.posted()
    assert message["text"] == "deals: 30 records"
    rows = [[cell["text"] for cell in row] for row in message["blocks"][1]["rows"]]
    assert rows == [
        ["deal", "amount", "stage"],
        ["Deal 0", "0.0", "-"],
        ["Deal 1", "1000.5", "-"],
        ["Deal 2", "2001.0", "-"],
    ]
    (file,) = slack_server.files.values()
    found = list(csv.DictReader(io.StringIO(file["content"].decode())))
    assert [row["deal"] for row in found] == [row["deal"] for row in DEALS]
    assert re.fullmatch(r"deals-[0-9A-Z]{26}\.csv", file["name"])


@pytest.mark.parametrize("attach", ["jsonl", "parquet"])
def test_other_formats_of_the_file(post: Any, slack_server: SlackServer, attach: str, tmp_path: Path) -> None:
    import polars

    post(attach=attach)
    (file,) = slack_server.files.values()
    read = polars.read_ndjson if attach == "jsonl" else polars.read_parquet
    assert read(file["content"]).height == 30


def test_digest_of_chosen_columns_as_text(post: Any, slack_server: SlackServer) -> None:
    post(digest=Digest(columns=["amount", "deal"], rows=2, table="text", title="{pipeline}: {records} new"))
    (message,) = slack_server.posted()
    assert message["text"] == "conformance: 30 new"
    assert message["blocks"][1]["text"]["text"].splitlines()[1] == "amount  deal"


def test_column_that_is_not_there_stops_only_the_stream(post: Any, slack_server: SlackServer) -> None:
    with pytest.raises(muxly.StreamError, match='no column "amont"; there are deal, amount, stage'):
        post(digest=Digest(columns=["amont"]))
    with pytest.raises(muxly.StreamError, match=r'the template .* "amont"; did you mean "amount"'):
        post(message="{deal}: {amont}")
    assert slack_server.posted() == []


def test_digest_through_a_webhook(post: Any, slack_server: SlackServer) -> None:
    post(token=None, channel="", webhook_url=muxly.Secret(slack_server.webhook_url))
    (message,) = slack_server.posted()
    assert [one["type"] for one in message["blocks"]] == ["header", "table", "context"]


@pytest.mark.parametrize("way", ["bot", "webhook"])
def test_slack_is_told_to_fetch_no_links(post: Any, slack_server: SlackServer, way: str) -> None:
    """Whoever writes a record would make Slack ask any address, and show what is there."""
    hook = {"token": None, "channel": "", "webhook_url": muxly.Secret(slack_server.webhook_url)}
    post([{"deal": "https://evil.example/"}], message="{deal}", **(hook if way == "webhook" else {}))
    ((_method, given),) = [one for one in slack_server.calls if one[0] in ("chat.postMessage", "webhook")]
    given = json.loads(given["body"]) if way == "webhook" else given
    assert {str(given[name]).lower() for name in ("unfurl_links", "unfurl_media")} <= {"false", "0"}


def test_delivery_that_is_done_is_forgotten(post: Any, run: WatchedRun) -> None:
    post(message="{deal}")
    assert run.shared("slack.open", dict[str, Any]) == {}


def test_odd_streams_have_odd_titles_and_plain_file_names(post: Any, slack_server: SlackServer) -> None:
    post(DEALS[:2], stream="../../<!channel>/\n" + "x" * 300, attach="csv")
    (message,) = slack_server.posted()
    assert problems(message) == []
    assert "<!channel>" not in json.dumps(message["blocks"])
    (file,) = slack_server.files.values()
    assert re.fullmatch(r"[\w.-]{1,100}\.csv", file["name"])


@pytest.mark.parametrize("options", [{"message": "{at}"}, {"digest": Digest(rows=1)}])
def test_value_without_a_form_is_the_records_fault(post: Any, slack_server: SlackServer, options: Any) -> None:
    records = pa.table({"at": pa.array([2**62], pa.timestamp("s"))})
    with pytest.raises(muxly.RejectedError, match=r"column 'at': a value of type timestamp\[s\] has no form"):
        post(records, **options)
    assert slack_server.posted() == []


def test_message_for_each_record_is_escaped(post: Any, slack_server: SlackServer) -> None:
    post([{"deal": "<!channel> & Co", "amount": 1234567.5}], message="<!here> *{deal}*: {amount:,.2f} €")
    (message,) = slack_server.posted()
    assert message["text"] == "<!here> *&lt;!channel&gt; &amp; Co*: 1,234,567.50 €"


def test_messages_of_a_run_answer_the_first_one(post: Any, slack_server: SlackServer, run: WatchedRun) -> None:
    first = post(DEALS[:3], message="{deal}", threads="run")
    second = post(DEALS[3:5], message="{deal}", threads="run", state=first.state)
    run.id = "01JW000000MUXLYTESTRUN0001"
    post(DEALS[5:6], message="{deal}", threads="run", state=second.state)
    messages = slack_server.posted()
    parent = messages[0]["ts"]
    assert [one.get("thread_ts") for one in messages] == [None, *[parent] * 4, None]


def test_thread_is_found_again_after_a_crash(post: Any, slack_server: SlackServer) -> None:
    post(DEALS[:2], message="{deal}", threads="run")
    post(DEALS[2:4], message="{deal}", threads="run")  # the receipt's state was lost
    messages = slack_server.posted()
    assert [one.get("thread_ts") for one in messages] == [None, *[messages[0]["ts"]] * 3]


def test_state_keeps_what_others_put_there(post: Any) -> None:
    assert post(DEALS[:1], state={"runs": {"failing": {}}}, message="x").state == {"runs": {"failing": {}}}


def test_stream_without_the_columns_of_run_events_cannot_be_reported(post: Any) -> None:
    with pytest.raises(muxly.StreamError, match=r'no column "at".*set template: digest'):
        post(template="run_events")


# --- check


def test_check_says_what_is_missing(slack_server: SlackServer, run: WatchedRun) -> None:
    def check(**options: Any) -> list[muxly.Notice]:
        bot = {"token": muxly.Secret(slack_server.token), "channel": CHANNEL, "base_url": slack_server.base_url}
        router = Slack(**{**bot, **options})
        router.open(run)
        return list(router.check())

    assert check() == []
    (refused,) = check(token=muxly.Secret("xoxb-no"))
    assert (refused.level, refused.code) == ("error", "slack_refuses")
    (unknown,) = check(channel="CNOSUCH")
    assert "is not a channel that the bot can see" in unknown.message
    slack_server.scopes -= {"channels:history", "channels:read"}
    info, history = check()
    assert (info.level, "lacks the scope channels:read" in info.message) == ("warning", True)
    assert "a message whose answer was lost may come twice" in history.message
    slack_server.scopes |= {"channels:read"}
    slack_server.channels[CHANNEL]["is_member"] = False
    assert "write /invite @muxly there" in check()[0].message
    slack_server.channels[CHANNEL]["is_archived"] = True
    assert "is archived" in check()[0].message


# --- whole runs


@pytest.fixture
def project(tmp_path: Path, slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose runs are reported, with a route that can be broken."""
    monkeypatch.setenv("SLACK_TOKEN", slack_server.token)
    (tmp_path / "deals.csv").write_text("deal,amount\nA,1\nB,2\n", encoding="utf-8")
    (tmp_path / "muxly.yaml").write_text(
        f"""
version: 1
pipelines:
  crm:
    connector: {{type: file, path: deals.csv}}
    routes:
      lake: {{router: {{type: file, path: out}}}}
      sales:
        router:
          type: slack
          token: ${{SLACK_TOKEN}}
          channel: {CHANNEL}
          base_url: {slack_server.base_url}
          messages_per_second: 1000
events:
  routes:
    alerts:
      router:
        type: slack
        token: ${{SLACK_TOKEN}}
        channel: {CHANNEL}
        base_url: {slack_server.base_url}
        messages_per_second: 1000
""",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def titles(server: SlackServer) -> list[str]:
    return [message["blocks"][0]["text"]["text"] for message in server.posted()]


def test_runs_are_reported_when_something_is_wrong_and_when_it_is_well_again(
    project: Path, slack_server: SlackServer
) -> None:
    assert muxly.run("muxly.yaml").state == "succeeded"
    assert titles(slack_server) == ["deals: 2 records"]
    (project / "out").rename(project / "gone")
    (project / "out").write_text("a file in the way", encoding="utf-8")
    (project / "deals2.csv").write_text("deal,amount\nC,3\n", encoding="utf-8")
    text = (project / "muxly.yaml").read_text(encoding="utf-8").replace("deals.csv", "'deals*.csv', stream: deals")
    (project / "muxly.yaml").write_text(text, encoding="utf-8")
    for _ in range(3):
        assert muxly.run("muxly.yaml").state == "partial"
    (project / "out").unlink()
    assert muxly.run("muxly.yaml").state == "succeeded"
    assert titles(slack_server)[2:] == ["🟠 crm is behind", "🟢 crm works again"]
    trouble, well = slack_server.posted()[2:]
    assert "lake / deals* was not delivered" in json.dumps(trouble["blocks"])
    assert "in 3 runs" in json.dumps(well["blocks"])


def test_slack_that_is_down_delays_only_its_own_route(project: Path, slack_server: SlackServer) -> None:
    slack_server.faults.append(
        Fault("chat.postMessage", status=200, body={"ok": False, "error": "is_archived"}, times=2)
    )
    result = muxly.run("muxly.yaml")
    assert (result.state, result.routes["lake"].delivered, result.routes["sales"].pending) == ("partial", 2, 2)
    result = muxly.run("muxly.yaml")
    assert (result.state, result.routes["lake"].delivered, result.routes["sales"].delivered) == ("succeeded", 0, 2)
    assert titles(slack_server) == ["deals: 2 records", "🟠 crm is behind", "🟢 crm works again"]


def test_record_that_slack_does_not_take_becomes_a_dead_letter_and_the_others_arrive(
    project: Path, slack_server: SlackServer
) -> None:
    text = (project / "muxly.yaml").read_text(encoding="utf-8")
    block = '{type: "{kind}", text: {type: mrkdwn, text: "{deal}"}}'
    text = text.replace(
        "      sales:\n        router:\n",
        f"      sales:\n        max_rejected: 1\n        router:\n          message: [{block}]\n",
    )
    (project / "muxly.yaml").write_text(text, encoding="utf-8")
    rows = [f"D{number},{'nonsense' if number == 5 else 'section'}" for number in range(9)]
    (project / "deals.csv").write_text("\n".join(["deal,kind", *rows, ""]), encoding="utf-8")
    result = muxly.run("muxly.yaml")
    assert (result.state, result.routes["sales"].delivered, result.routes["sales"].rejected) == ("succeeded", 8, 1)
    assert sorted(one["text"] for one in slack_server.posted()) == sorted(f"D{n}" for n in range(9) if n != 5)


@pytest.mark.parametrize(
    ("url", "guarded"),
    [
        ("https://slack.com/api/", False),
        ("https://hooks.slack.com/services/T/B/x", False),
        ("https://example.enterprise.slack.com/api/", False),
        ("http://slack.com/api/", True),
        ("https://slack.com.evil.example/api/", True),
        ("https://evil.example/slack.com/", True),
        ("https://slack.com@evil.example/", True),
        ("https://evilslack.com/api/", True),
    ],
)
def test_only_slacks_own_hosts_need_no_guard(url: str, guarded: bool) -> None:
    router = Slack(token=TOKEN, channel=CHANNEL)
    router.open(muxly.Run("01", "p", guarded=True))
    assert router._is_guarded(url) == guarded
    router.open(muxly.Run("01", "p"))
    assert not router._is_guarded(url)


def events(*runs: str) -> list[dict[str, Any]]:
    """The records of runs of which each failed in its own way."""
    at = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
    base = {"at": at, "event": "failed", "route": None, "stream": None, "level": "error", "records": 1}
    return [{**base, "pipeline": name, "run": f"01{name}", "message": f"{name} broke"} for name in runs]


def test_runs_of_one_delivery_are_reported_one_by_one(slack_server: SlackServer, run: WatchedRun, post: Any) -> None:
    marks: list[int] = []
    slack_server.faults.append(Fault("chat.postMessage", way="reset", applied=True, skip=1))
    one = delivery(events("crm", "erp", "web"), "run_events", on_mark=marks.append)
    bot = {"token": muxly.Secret(slack_server.token), "channel": CHANNEL, "base_url": slack_server.base_url}
    router = Slack(messages_per_second=1000.0, **bot)  # type: ignore[arg-type]
    router.open(run)
    with pytest.raises(muxly.RetryableError, match="ended before the answer"):
        router.deliver(one)
    receipt = router.deliver(one)
    router.close()
    assert titles(slack_server) == ["🔴 crm failed", "🔴 erp failed", "🔴 web failed"]
    assert marks == [1, 2], "the last one is kept by the receipt, with what to remember"
    assert receipt is not None
    assert set(receipt.state["runs"]["failing"]) == {"crm", "erp", "web"}
    post(events("crm", "erp", "web"), stream="run_events", state=receipt.state)
    assert len(titles(slack_server)) == 3


def test_what_was_held_back_is_posted_first(slack_server: SlackServer, post: Any) -> None:
    held = {"kind": "partial", "pipeline": "erp", "message": "1 route is behind", "at": "2026-06-01T03:00:00+00:00"}
    receipt = post(events("crm"), stream="run_events", state={"runs": {"held": [held], "held_more": 2}})
    assert titles(slack_server) == ["🌙 While it was quiet: 3 messages", "🔴 crm failed"]
    assert receipt.state["runs"]["held"] == []


def test_report_template_is_for_any_stream_with_these_columns(slack_server: SlackServer, post: Any) -> None:
    post(events("crm"), stream="audit", template="run_events")
    post(events("erp"), stream="run_events", template="digest")
    assert titles(slack_server) == ["🔴 crm failed", "run_events: 1 record"]
