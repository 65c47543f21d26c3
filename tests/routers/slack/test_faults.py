"""What becomes of messages when Slack is slow, refuses, breaks off, or takes them without saying so."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pytest

import muxly
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers.slack import QuietHours, RunEvents, Slack
from muxly_routers.slack import client as refusals
from muxly_routers.slack.client import UnansweredError
from muxly_routers.slack.outbox import is_new
from muxly_testing import delivery
from muxly_testing._expectations import WatchedRun
from tests.slack_server import CHANNEL, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slack_server import SlackServer

POST = "chat.postMessage"
WAYS = [
    pytest.param(Fault(POST, status=500, body="<html>oops</html>", applied=True), id="500"),
    pytest.param(Fault(POST, status=502, applied=True), id="502"),
    pytest.param(Fault(POST, status=200, body={"ok": False, "error": "internal_error"}, applied=True), id="internal"),
    pytest.param(Fault(POST, way="reset", applied=True), id="reset"),
    pytest.param(Fault(POST, way="hang", applied=True), id="hang"),
    pytest.param(Fault(POST, way="drip", applied=True), id="drip"),
    pytest.param(Fault(POST, status=200, body="<html>a portal</html>", applied=True), id="no JSON"),
    pytest.param(Fault(POST, status=200, body="[" * 100_000, applied=True), id="deep JSON"),
    pytest.param(Fault(POST, status=200, body="[]", applied=True), id="no object"),
]


class Try:
    """Delivers as the runner does: after an error another copy is opened, in the same run."""

    def __init__(self, server: SlackServer) -> None:
        self.server, self.run = server, WatchedRun()
        self.options: dict[str, Any] = {}

    def router(self, **more: Any) -> Slack:
        bot = {"token": muxly.Secret(self.server.token), "channel": CHANNEL, "base_url": self.server.base_url}
        hook = "webhook_url" in {**self.options, **more}
        given = {} if hook else bot
        usual = {"message": "{n}", "messages_per_second": 1000.0, "timeout_seconds": 10.0}
        return Slack(**{**given, **usual, **self.options, **more})

    def once(self, one: muxly.Delivery, **more: Any) -> muxly.Receipt | None:
        router = self.router(**more)
        router.open(self.run)
        try:
            return router.deliver(one)
        finally:
            router.close()

    def until_done(self, one: muxly.Delivery, tries: int = 5, **more: Any) -> list[muxly.RetryableError]:
        """Deliver again after each retryable error; the errors."""
        errors: list[muxly.RetryableError] = []
        while len(errors) < tries:
            try:
                self.once(one, **more)
            except muxly.RetryableError as error:
                errors.append(error)
            else:
                return errors
        raise AssertionError(f"not done after {tries} tries: {errors}")

    def texts(self) -> list[str]:
        return [message["text"] for message in self.server.posted()]


@pytest.fixture
def attempt(slack_server: SlackServer) -> Iterator[Try]:
    made = Try(slack_server)
    yield made
    made.run.end()


def numbers(count: int, **facts: Any) -> muxly.Delivery:
    return delivery([{"n": f"record {number}"} for number in range(count)], "deals", **facts)


@pytest.mark.parametrize("fault", WAYS)
def test_message_whose_answer_was_lost_is_found_and_not_repeated(attempt: Try, fault: Fault) -> None:
    fault = Fault(**{**vars_of(fault), "skip": 1})
    attempt.server.faults.append(fault)
    errors = attempt.until_done(numbers(4), timeout_seconds=seconds_of(fault))
    (lost,) = [one for one in errors if isinstance(one, UnansweredError)][:1]
    assert lost.retry_after == 2.0
    assert attempt.texts() == ["record 0", "record 1", "record 2", "record 3"]


@pytest.mark.parametrize("fault", WAYS)
def test_message_that_was_lost_is_posted_again(attempt: Try, fault: Fault) -> None:
    attempt.server.faults.append(Fault(**{**vars_of(fault), "applied": False}))
    attempt.until_done(numbers(2), timeout_seconds=seconds_of(fault))
    assert attempt.texts() == ["record 0", "record 1"]


def seconds_of(fault: Fault) -> float:
    """A short deadline only where one is waited for."""
    return 0.7 if fault.way in ("hang", "drip") else 10.0


def vars_of(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in Fault.__slots__ if not name.startswith("__")}


@pytest.mark.parametrize("scope", [True, False], ids=["history", "no history"])
@pytest.mark.parametrize("way", ["bot", "webhook"])
def test_lost_answer_doubles_at_most_one_message(attempt: Try, way: str, scope: bool) -> None:
    if not scope:
        attempt.server.scopes.discard("channels:history")
    hook: dict[str, Any] = {"webhook_url": muxly.Secret(attempt.server.webhook_url)} if way == "webhook" else {}
    method = "webhook" if way == "webhook" else POST
    attempt.server.faults.append(Fault(method, way="reset", applied=True, skip=2))
    attempt.until_done(numbers(5), **hook)
    twice = [text for text, count in Counter(attempt.texts()).items() if count > 1]
    assert set(attempt.texts()) == {f"record {number}" for number in range(5)}
    assert twice == ([] if scope and way == "bot" else ["record 2"])


def test_dropping_what_is_uncertain_doubles_and_loses_nothing_that_arrived(attempt: Try) -> None:
    attempt.server.faults.append(Fault("webhook", way="reset", applied=True, skip=2))
    hook = muxly.Secret(attempt.server.webhook_url)
    assert len(attempt.until_done(numbers(5), webhook_url=hook, on_ambiguous="drop")) == 1
    assert attempt.texts() == [f"record {number}" for number in range(5)]
    assert [one.code for one in attempt.run.noticed][-1] == "slack_message_dropped"


def test_outage_drops_at_most_one_message_for_each_try(attempt: Try) -> None:
    attempt.server.faults.append(Fault("webhook", status=503, times=3))
    hook = muxly.Secret(attempt.server.webhook_url)
    one = numbers(8)
    assert len(attempt.until_done(one, webhook_url=hook, on_ambiguous="drop")) == 3
    assert attempt.texts() == [f"record {number}" for number in range(3, 8)]


def runs(*outcomes: str, **facts: Any) -> muxly.Delivery:
    """A delivery of run_events: runs one after another, which ended so."""
    from muxly._runner.events import schema

    empty = dict.fromkeys(schema().names)
    told = [
        {
            **empty,
            "at": datetime.now(UTC),
            "event": outcome,
            "pipeline": f"p{number}",
            "run": f"r{number}",
            "level": "error",
        }
        for number, outcome in enumerate(outcomes)
    ]
    return delivery(pa.Table.from_pylist(told, schema=schema()), "run_events", **facts)


def quiet_now() -> RunEvents:
    """Quiet hours that began an hour ago and end in an hour."""
    start, end = (datetime.now(UTC) + timedelta(hours=one) for one in (-1, 1))
    return RunEvents(quiet_hours=QuietHours(time_zone="UTC", start=f"{start:%H:%M}", end=f"{end:%H:%M}"))


def test_report_that_was_dropped_does_not_take_with_it_what_was_held_back(attempt: Try) -> None:
    attempt.server.faults.append(Fault("webhook", way="reset", applied=True))
    hook = muxly.Secret(attempt.server.webhook_url)
    attempt.options = {"webhook_url": hook, "message": None, "on_ambiguous": "drop", "run_events": quiet_now()}
    one = runs("partial", "failed")
    with pytest.raises(UnansweredError, match="ended before the answer"):
        attempt.once(one)
    receipt = attempt.once(one)
    assert [text.partition(" ")[2] for text in attempt.texts()] == ["p1 failed"]
    assert receipt is not None
    assert [held["pipeline"] for held in receipt.state["runs"]["held"]] == ["p0"]


def test_what_was_held_back_is_told_once_though_a_report_after_it_is_not_taken(attempt: Try) -> None:
    """A webhook cannot look up what it posted; this process remembers."""
    held = {"kind": "partial", "pipeline": "p9", "message": "", "at": datetime.now(UTC).isoformat()}
    attempt.server.faults.append(Fault("webhook", status=503, skip=2))
    attempt.options = {"webhook_url": muxly.Secret(attempt.server.webhook_url), "message": None}
    one = runs("failed", "failed", state={"runs": {"held": [held]}})
    assert len(attempt.until_done(one)) == 1
    assert [text.partition(" ")[2] for text in attempt.texts()] == [
        "While it was quiet: 1 message",
        "p0 failed",
        "p1 failed",
    ]


def test_file_of_a_digest_whose_answer_was_dropped_comes_all_the_same(attempt: Try) -> None:
    attempt.server.scopes.discard("channels:history")
    attempt.server.faults.append(Fault(POST, way="reset", applied=True))
    attempt.until_done(numbers(3), message=None, attach="csv", on_ambiguous="drop")
    assert [("files" in one) for one in attempt.server.messages] == [False, True]


def test_closed_port_is_no_uncertainty(attempt: Try) -> None:
    attempt.server.loopback.stop_listening()
    one = numbers(2)
    for _ in range(3):
        with pytest.raises(
            muxly.RetryableError, match=r"no connection to 127\.0\.0\.1.*is the server running"
        ) as caught:
            attempt.once(one, on_ambiguous="drop", webhook_url=muxly.Secret(attempt.server.webhook_url))
        assert not isinstance(caught.value, UnansweredError)
    assert one.delivered == 0


@pytest.mark.parametrize("value", ["0", "0.05", "-7", "nan", "soon", None, "Mon, 01 Jan 2024 00:00:00 GMT"])
def test_rate_limit_is_waited_for_in_the_delivery(attempt: Try, value: str | None, monkeypatch: Any) -> None:
    slept: list[float] = []
    monkeypatch.setattr(attempt.run, "sleep", slept.append)
    headers = {} if value is None else {"Retry-After": value}
    attempt.server.faults.append(Fault(POST, status=429, headers=headers, body={"ok": False, "error": "ratelimited"}))
    assert attempt.until_done(numbers(2)) == []
    assert attempt.texts() == ["record 0", "record 1"]


def test_wait_is_as_long_as_slack_asks(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(attempt.run, "sleep", slept.append)
    attempt.server.faults.append(Fault(POST, status=429, headers={"Retry-After": "30"}))
    attempt.until_done(numbers(1))
    assert max(slept) == pytest.approx(30, abs=1)


def test_long_wait_is_left_to_the_runner(attempt: Try) -> None:
    attempt.server.faults.append(Fault(POST, status=429, headers={"Retry-After": "600"}))
    with pytest.raises(muxly.RetryableError, match="asks to wait for 600 s") as caught:
        attempt.once(numbers(1))
    assert caught.value.retry_after == 600


def test_rate_limit_without_end_is_left_to_the_runner(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt.run, "sleep", lambda seconds: None)
    attempt.server.faults.append(Fault(POST, status=429, headers={"Retry-After": "1"}, times=100))
    with pytest.raises(refusals.RateLimitedError, match="for 1 s") as caught:
        attempt.once(numbers(1))
    assert (caught.value.retry_after, len(attempt.server.called(POST))) == (1.0, 0)


def test_pace_is_one_for_all_who_post_to_the_channel(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(attempt.run, "sleep", slept.append)
    attempt.once(numbers(3), messages_per_second=1.0)
    attempt.once(numbers(2), messages_per_second=1.0)
    assert [round(one) for one in slept] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("word", "step"),
    [
        ("invalid_auth", "copy the Bot User OAuth Token"),
        ("token_revoked", "install the app to the workspace again"),
        ("not_in_channel", "write /invite @muxly there"),
        ("channel_not_found", "copy the id at the bottom of the channel's details"),
        ("is_archived", "unarchive it, or name another channel"),
        ("missing_scope", "lacks the scope chat:write"),
        ("some_new_word", "explained at docs.slack.dev"),
    ],
)
def test_refusal_says_what_to_do(attempt: Try, word: str, step: str) -> None:
    more = {"needed": "chat:write", "provided": "files:write"} if word == "missing_scope" else {}
    attempt.server.faults.append(Fault(POST, status=200, body={"ok": False, "error": word, **more}))
    with pytest.raises(muxly.RouteError, match=f"{word}.*{step}"):
        attempt.once(numbers(1))


def test_refusals_of_the_server_itself(attempt: Try) -> None:
    channel = attempt.server.channels[CHANNEL]
    with pytest.raises(muxly.RouteError, match="invalid_auth"):
        attempt.once(numbers(1), token=muxly.Secret("xoxb-no"))
    with pytest.raises(muxly.RouteError, match="channel_not_found: CNOSUCH is not a channel"):
        attempt.once(numbers(1), channel="CNOSUCH")
    channel["is_member"] = False
    with pytest.raises(muxly.RouteError, match="/invite @muxly"):
        attempt.once(numbers(1))
    channel |= {"is_member": True, "is_archived": True}
    with pytest.raises(muxly.RouteError, match="is archived"):
        attempt.once(numbers(1))
    attempt.server.scopes.discard("chat:write")
    channel["is_archived"] = False
    with pytest.raises(muxly.RouteError, match="lacks the scope chat:write"):
        attempt.once(numbers(1))


@pytest.mark.parametrize("word", ["msg_too_long", "invalid_blocks", "msg_blocks_too_long", "no_text"])
def test_message_that_slack_does_not_take_is_the_records_fault(attempt: Try, word: str) -> None:
    attempt.server.faults.append(Fault(POST, status=200, body={"ok": False, "error": word}, skip=1))
    one = numbers(3)
    with pytest.raises(muxly.RejectedError, match=word):
        attempt.once(one)
    assert (one.delivered, attempt.texts()) == (1, ["record 0"])


def test_refused_blocks_are_explained_in_slacks_words(attempt: Try) -> None:
    picture = {"type": "no such block"}
    with pytest.raises(muxly.RejectedError, match=r"invalid_blocks \(\[ERROR\] unsupported type: no such block \[json"):
        attempt.once(numbers(1), message=[picture])


@pytest.mark.parametrize(
    ("status", "word", "kind", "match"),
    [
        (404, "no_service", muxly.RouteError, "make a new one"),
        (404, "no_team", muxly.RouteError, "names no workspace"),
        (403, "action_prohibited", muxly.RouteError, "ask its administrator"),
        (410, "channel_is_archived", muxly.RouteError, "unarchive"),
        (400, "invalid_blocks", muxly.RejectedError, "refuses the message"),
        (400, "\x1b[31mwhat\nnow", muxly.RouteError, r"answers 400 \[31mwhat now"),
        (429, "ratelimited", refusals.RateLimitedError, "asks to wait"),
        (500, "rollup_error", UnansweredError, "answers 500"),
        (302, "", muxly.RouteError, "answers 302"),
    ],
)
def test_answers_of_a_webhook(attempt: Try, status: int, word: str, kind: type[Exception], match: str) -> None:
    headers = {"Location": f"{attempt.server.root}/elsewhere", "Retry-After": "600"}
    attempt.server.faults.append(Fault("webhook", status=status, body=word, headers=headers))
    with pytest.raises(kind, match=match):
        attempt.once(numbers(1), webhook_url=muxly.Secret(attempt.server.webhook_url))
    assert attempt.server.calls == []


def test_answer_does_not_show_the_secrets_that_it_repeats(attempt: Try) -> None:
    hook = attempt.server.hook
    for status, body in ((404, f"cannot POST {hook}"), (503, f"<h1>{hook.rpartition('/')[2]}</h1>")):
        attempt.server.faults.append(Fault("webhook", status=status, body=body))
        with pytest.raises(muxly.MuxlyError, match=rf"answers {status} .*\*\*\*") as caught:
            attempt.once(numbers(1), webhook_url=muxly.Secret(attempt.server.webhook_url))
        assert "hookhook" not in str(caught.value)
    token, control = attempt.server.token, "\x1b[31m" + "x" * 9000
    refused: list[dict[str, Any]] = [
        {"error": f"no_such {token}{control}"},
        {"error": "missing_scope", "needed": f"{token}{control}"},
        {"error": "invalid_blocks", "errors": [f"{token}{control}"]},
        {"error": "internal_error", "response_metadata": [1], "errors": 7},
        {"error": "invalid_blocks", "response_metadata": [1], "errors": 7},
    ]
    for one in refused:
        attempt.server.faults.append(Fault(POST, status=200, body={"ok": False, **one}))
        with pytest.raises(muxly.MuxlyError, match=r"chat\.postMessage") as caught:
            attempt.once(numbers(1))
        assert token not in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600


def test_answer_that_names_no_message_is_an_uncertain_one(attempt: Try) -> None:
    attempt.server.faults.append(Fault(POST, status=200, body={"ok": True}))
    with pytest.raises(UnansweredError, match="names no message"):
        attempt.once(numbers(1))


def test_redirects_are_not_followed_with_the_token(attempt: Try) -> None:
    attempt.server.faults.append(Fault(POST, status=302, headers={"Location": f"{attempt.server.root}/api/auth.test"}))
    with pytest.raises(muxly.RouteError, match="the answer is 302 and not Slack's; see whether base_url is right"):
        attempt.once(numbers(1))
    assert attempt.server.called("auth.test") == []


def test_endless_answer_is_given_up(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_routers.slack import client

    monkeypatch.setattr(client, "ANSWER_LIMIT_BYTES", 1000)
    attempt.server.faults.append(Fault(POST, status=200, body="x" * 5000))
    with pytest.raises(UnansweredError, match="larger than 0 MiB"):
        attempt.once(numbers(1))


def test_guarded_run_does_not_reach_the_own_network(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt.run.guarded = True
    for options in ({}, {"webhook_url": muxly.Secret(attempt.server.webhook_url)}):
        with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
            attempt.once(numbers(1), **options)
    assert attempt.server.calls == []
    monkeypatch.setenv("MUXLY_EGRESS_ALLOW", "127.0.0.0/8")
    attempt.once(numbers(1))
    assert attempt.texts() == ["record 0"]


def test_upload_to_the_own_network_is_guarded_too(attempt: Try) -> None:
    router = attempt.router(message=None, attach="csv")
    attempt.run.guarded = True
    router.open(attempt.run)
    destination: Any = router._destination()
    with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
        destination._send_bytes("http://127.0.0.1:1/upload", None, 1)
    for url in ("file:///etc/passwd", "http://[::1", "None"):
        with pytest.raises(muxly.RouteError, match="names no URL"):
            destination._send_bytes(url, None, 1)


@pytest.mark.parametrize("step", ["files.getUploadURLExternal", "upload", "files.completeUploadExternal"])
@pytest.mark.parametrize("applied", [True, False], ids=["applied", "lost"])
def test_digest_and_its_file_come_once_whatever_step_fails(attempt: Try, step: str, applied: bool) -> None:
    attempt.server.faults.append(Fault(step, way="reset", applied=applied))
    attempt.until_done(numbers(5), message=None, attach="csv")
    assert len(attempt.server.posted()) == 1
    (shown,) = [one for one in attempt.server.messages if "files" in one]
    assert shown["thread_ts"] == attempt.server.posted()[0]["ts"]


def test_missing_scope_for_files_says_so(attempt: Try) -> None:
    attempt.server.scopes.discard("files:write")
    with pytest.raises(muxly.RouteError, match="lacks the scope files:write"):
        attempt.once(numbers(1), message=None, attach="csv")


@pytest.mark.parametrize("scope", [True, False], ids=["history", "no history"])
def test_digest_is_not_repeated_when_its_file_is_refused_for_a_while(attempt: Try, scope: bool) -> None:
    if not scope:
        attempt.server.scopes.discard("channels:history")
    attempt.server.faults.append(Fault("upload", status=503, times=3))
    assert len(attempt.until_done(numbers(5), message=None, attach="csv")) == 3
    assert [("files" in one) for one in attempt.server.messages] == [False, True]


def test_file_of_a_digest_that_was_deleted_is_shown_all_the_same(attempt: Try) -> None:
    attempt.server.faults.append(Fault("upload", status=503))
    one = numbers(5)
    with pytest.raises(muxly.RetryableError, match="answers 503"):
        attempt.once(one, message=None, attach="csv")
    attempt.server.messages.clear()
    attempt.once(one, message=None, attach="csv")
    (shown,) = attempt.server.messages
    assert "thread_ts" not in shown


def test_thread_that_was_deleted_is_begun_anew(attempt: Try) -> None:
    receipt = attempt.once(numbers(1), threads="run")
    assert receipt is not None
    attempt.server.messages.clear()
    again = attempt.once(numbers(2, state=receipt.state), threads="run")
    assert again is not None
    first, second = attempt.server.posted()
    assert ("thread_ts" in first, second["thread_ts"]) == (False, first["ts"])
    assert again.state["thread"]["ts"] == first["ts"]


def test_secrets_are_in_no_error(attempt: Try, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hook = muxly.Secret(attempt.server.webhook_url)
    secrets = (attempt.server.token, attempt.server.hook, "hookhook")
    asked_to_wait = Fault(POST, status=429, headers={"Retry-After": "600"})  # the last, for all would wait
    for fault in [*(one.values[0] for one in WAYS), Fault(POST, status=404, body="x"), asked_to_wait]:
        assert isinstance(fault, Fault)
        for method, options in ((POST, {}), ("webhook", {"webhook_url": hook})):
            attempt.server.faults[:] = [Fault(**{**vars_of(fault), "method": method, "times": 9, "applied": False})]
            with pytest.raises(muxly.MuxlyError, match=r".") as caught:
                attempt.once(numbers(1), timeout_seconds=0.2, **options)
            told = "".join(traceback.format_exception(caught.value)) + caplog.text
            assert not any(secret in told for secret in secrets)
            again = pickle.loads(pickle.dumps(caught.value))
            assert (str(again), getattr(again, "retry_after", 0)) == (
                str(caught.value),
                getattr(caught.value, "retry_after", 0),
            )


def test_only_a_delivery_of_this_run_is_known_to_be_new() -> None:
    made = "01M84H56N00TVV5H4RD6DG0JHT"
    at = ulid_time_ms(made) / 1000
    assert datetime.fromtimestamp(at, UTC).year == 2026
    assert is_new(made, at - 1, at + 1)
    assert not is_new(made, at + 1, at + 2), "an earlier run made it"
    assert not is_new(made, at - 2, at - 1), "the clock was moved back"
    assert not is_new("not a ULID", 0.5, at)
    assert ulid_time_ms("01M84H56N0") == 0
    assert ulid_time_ms("01M84H56N00TVV5H4RD6DG0JHU") == 0, "a ULID has no U"


def test_new_delivery_is_not_looked_up(attempt: Try) -> None:
    from muxly._ids import new_id

    attempt.run.started_at = datetime(2020, 1, 1, tzinfo=UTC)
    attempt.once(numbers(1, id=new_id()))
    assert [method for method, _arguments in attempt.server.calls] == [POST]


def test_look_up_reads_page_after_page(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_routers.slack import bot

    monkeypatch.setattr(bot, "_PAGE", 3)
    one = numbers(10)
    attempt.once(one)
    attempt.once(numbers(10, id=one.id))
    assert len(attempt.texts()) == 10
    assert len(attempt.server.called("conversations.history")) == 1 + 4


def test_channel_with_too_much_to_look_through_is_one_that_cannot_be_read(
    attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muxly_routers.slack import bot

    monkeypatch.setattr(bot, "_PAGE", 1)
    monkeypatch.setattr(bot, "_MOST_PAGES", 2)
    one = numbers(5)
    attempt.once(one)
    attempt.once(numbers(5, id=one.id))
    assert len(attempt.texts()) == 10
    (told,) = attempt.run.noticed
    assert "more than 2 messages came since; a message of a delivery that is tried again may come twice" in told.message


@pytest.mark.parametrize(("way", "twice"), [("history", []), ("no history", ["record 2"]), ("webhook", ["record 2"])])
def test_process_that_dies_between_a_message_and_its_mark_doubles_at_most_that_one(
    attempt: Try, way: str, twice: list[str]
) -> None:
    if way == "no history":
        attempt.server.scopes.discard("channels:history")
    options: dict[str, Any] = {}
    if way == "webhook":
        options = {"webhook_url": muxly.Secret(attempt.server.webhook_url)}

    def dies(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt("killed")

    one = numbers(6)
    one.source = attrs.evolve(one.source, on_mark=dies)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        attempt.once(one, **options)
    attempt.run.end()
    attempt.run = WatchedRun()  # as in another process
    attempt.once(numbers(6, id=one.id, delivered=one.delivered), **options)
    counts = Counter(attempt.texts())
    assert len(counts) == 6
    assert [text for text, count in counts.items() if count > 1] == twice


def test_stop_ends_an_upload(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly_routers.slack.bot import SlackBot

    send = SlackBot._send_bytes

    def stopped(self: SlackBot, *arguments: Any) -> None:
        attempt.run.stop.set()
        send(self, *arguments)

    monkeypatch.setattr(SlackBot, "_send_bytes", stopped)
    with pytest.raises(muxly.StoppedError, match="asked to stop"):
        attempt.once(numbers(5), message=None, attach="csv")
    assert attempt.server.called("files.completeUploadExternal") == []


def test_stop_ends_a_delivery_between_messages(attempt: Try) -> None:
    one = numbers(5)

    def marked(count: int) -> None:
        if count == 2:
            attempt.run.stop.set()

    one.source = attrs.evolve(one.source, on_mark=marked)
    with pytest.raises(muxly.StoppedError, match="asked to stop"):
        attempt.once(one)
    assert (one.delivered, len(attempt.texts())) == (2, 2)
