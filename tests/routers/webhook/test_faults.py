"""What the webhook router does when the receiver says no, says it oddly, or says nothing."""

from __future__ import annotations

import gzip
import html
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pytest

import muxly
from muxly import Secret
from muxly_testing import delivery
from muxly_testing._expectations import chain
from tests.http_receiver import Receiver, Reply, Seen, records
from tests.routers.webhook.deliveries import ORDERS, Marks, opened, orders, sent

if TYPE_CHECKING:
    from collections.abc import Callable


BOMB = gzip.compress(bytes(8 << 20))


def refusing(bad: set[int], status: int = 422) -> Callable[[Seen], Reply]:
    """A receiver that refuses every request with one of these records in it."""

    def respond(seen: Seen) -> Reply:
        found = bad & {record["id"] for record in seen.json()}
        return Reply(status, b"a bad record") if found else Reply()

    return respond


@pytest.mark.parametrize("status", [400, 422])
def test_refused_request_is_halved_down_to_the_bad_records(receiver: Receiver, status: int) -> None:
    receiver.respond = refusing({3, 11}, status)
    marks = Marks()
    with opened(receiver, max_records=8) as router:
        receipt = router.deliver(orders(16, marks=marks))
    assert [(one.index, one.reason) for one in receipt.rejected] == [
        (number, f"http://127.0.0.1:{receiver.port} answered {status}: a bad record") for number in (3, 11)
    ]
    assert sorted(record["id"] for record in records(receiver.applied)) == [n for n in range(16) if n not in (3, 11)]
    assert len(receiver.seen) == 14
    assert marks == [0, 0]


def test_nothing_behind_a_rejected_record_is_marked(receiver: Receiver) -> None:
    receiver.respond = refusing({9})
    marks = Marks()
    with opened(receiver, max_records=4) as router:
        router.deliver(orders(16, marks=marks))
    assert marks == [4, 8, 8, 8]


def test_ids_of_halves_are_their_own_and_the_same_in_every_try(receiver: Receiver) -> None:
    receiver.respond = refusing({2})
    with opened(receiver, max_records=4) as router:
        first, second = router.deliver(orders(8)), router.deliver(orders(8))
    tries = [(one.id, one.body) for one in receiver.seen]
    assert first == second
    assert tries[: len(tries) // 2] == tries[len(tries) // 2 :]
    assert len(dict(tries)) == len(set(tries))
    assert [record["id"] for record in records(receiver.distinct())] == [0, 1, 3, 4, 5, 6, 7]


def test_large_request_is_halved_and_the_next_ones_are_not_tried_whole(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(413) if len(seen.json()) > 2 else Reply()
    with opened(receiver, max_records=8) as router:
        receipt = router.deliver(orders(24))
    assert receipt.rejected == ()
    assert records(receiver.applied) == records([one for one in receiver.seen if len(one.json()) <= 2])
    assert [record["id"] for record in records(receiver.applied)] == list(range(24))
    assert [len(ids) for ids in sent(receiver)].count(8) == 1


def test_record_that_is_too_large_alone_is_rejected(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(413) if any(record["id"] == 5 for record in seen.json()) else Reply()
    with opened(receiver, max_records=8) as router:
        receipt = router.deliver(orders(8))
    assert [one.index for one in receipt.rejected] == [5]


def test_receiver_that_refuses_everything_stops_the_route(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(400, b"no field 'events'")
    with (
        opened(receiver, give_up_after=5) as router,
        pytest.raises(muxly.RouteError, match=r"each of the first 5 records, .*no field 'events'"),
    ):
        router.deliver(orders(1000))
    assert len(receiver.seen) < 20


def test_receiver_that_refuses_everything_may_be_right(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(400)
    with opened(receiver, give_up_after=0, max_records=8) as router:
        receipt = router.deliver(orders(40))
    assert [one.index for one in receipt.rejected] == list(range(40))


def test_many_bad_records_after_good_ones_are_rejected(receiver: Receiver) -> None:
    receiver.respond = refusing(set(range(1, 40)))
    with opened(receiver, give_up_after=5, max_records=1) as router:
        receipt = router.deliver(orders(40))
    assert len(receipt.rejected) == 39


def test_bad_records_after_what_an_earlier_attempt_delivered_are_rejected(receiver: Receiver) -> None:
    receiver.respond = refusing(set(range(10, 40)))
    with opened(receiver, give_up_after=5, max_records=1) as router:
        receipt = router.deliver(orders(40, delivered=10))
    assert [one.index for one in receipt.rejected] == list(range(10, 40))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520])
def test_busy_receiver_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.script(Reply(status, b"busy", headers=(("Retry-After", "7"),)))
    with opened(receiver) as router:
        with pytest.raises(muxly.RetryableError, match=f"answered {status}: busy") as caught:
            router.deliver(orders(3))
        assert caught.value.retry_after == 7.0
        router.deliver(orders(3))
    first, second = receiver.seen
    assert (first.id, first.body) == (second.id, second.body)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("0", 0.0), ("-1", None), ("1000000000", 3600.0), ("soon", None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0)],
)
def test_time_to_wait_is_passed_on(receiver: Receiver, header: str, expected: float | None) -> None:
    receiver.script(Reply(429, headers=(("Retry-After", header),)))
    with opened(receiver) as router, pytest.raises(muxly.RetryableError, match="429") as caught:
        router.deliver(orders(1))
    assert caught.value.retry_after == expected


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "credentials are missing or wrong"),
        (403, "do not allow it"),
        (404, "nothing is at that URL"),
        (405, "method is not allowed"),
        (410, "gone for good; remove the route or give it another URL"),
        (415, "does not take that content type"),
        (418, "look at the URL"),
        (304, "wants the request at its own host"),
    ],
)
def test_wrong_set_up_stops_the_route(receiver: Receiver, status: int, message: str) -> None:
    receiver.respond = lambda seen: Reply(status)
    with opened(receiver) as router, pytest.raises(muxly.RouteError, match=message):
        router.deliver(orders(3))
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://evil.example:8443/path?token=hunter2", r"at https://evil\.example:8443; "),
        ("//evil.example/hunter2", r"at http\(s\)://evil\.example; "),
        ("/hunter2", "at its own host; "),
        ("http://[::1/hunter2", "at something that is not a URL; "),
        ("", "at its own host; "),
    ],
)
def test_redirect_is_not_followed_and_its_host_is_named(
    receiver: Receiver, status: int, location: str, shown: str
) -> None:
    receiver.respond = lambda seen: Reply(status, headers=(("Location", location),))
    with (
        opened(receiver, bearer=Secret("t0ken-of-ours")) as router,
        pytest.raises(muxly.RouteError, match=shown) as caught,
    ):
        router.deliver(orders(3))
    assert "hunter2" not in str(caught.value)
    assert len(receiver.seen) == 1


def test_answer_that_repeats_a_secret_does_not_show_it(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(
        403, f"no {seen.headers['authorization']} for POST {seen.path} {seen.headers['x-key']}".encode()
    )
    with (
        opened(
            f"{receiver.url}/T000/hunter2?x=hunter3",
            bearer=Secret("hunter4hunter4"),
            secret_headers={"X-Key": Secret("hunter5-key")},
        ) as router,
        pytest.raises(muxly.RouteError, match=r"answered 403: .*: no Bearer \*\*\* for POST \*\*\* \*\*\*$"),
    ):
        router.deliver(orders(1))


@pytest.mark.parametrize(
    "page",
    [
        "Cannot POST {path}",
        "no such page: {unquoted}",
        '{{"error": "no route {slashes}"}}',
        "<p>{html}</p>",
        "no hook hunter2-in-the-path, no token hunter3&in=the&query=x",
    ],
)
def test_page_that_names_the_address_does_not_show_it(receiver: Receiver, page: str) -> None:
    """The stream's name in the address does not hide the rest of it."""

    def respond(seen: Seen) -> Reply:
        spelt = {
            "path": seen.path,
            "unquoted": unquote(seen.path),
            "slashes": seen.path.replace("/", r"\/"),
            "html": html.escape(seen.path),
        }
        return Reply(404, page.format(**spelt).encode())

    receiver.respond = respond
    url = f"{receiver.url}/hunter2-in-the-path/{{stream}}?token=hunter3%26in%3Dthe%26query&v=1"
    with opened(url) as router, pytest.raises(muxly.RouteError, match=r"answered 404: .*\*\*\*") as caught:
        router.deliver(orders(1))
    assert "hunter" not in str(caught.value)


def test_answer_that_is_our_own_request_does_not_show_its_address(receiver: Receiver) -> None:
    """What is no HTTP is quoted by the library below."""
    receiver.script(Reply(raw=b"POST /hook/T000/hunter2hunter2?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"))
    with (
        opened(f"{receiver.url}/T000/hunter2hunter2") as router,
        pytest.raises(muxly.RetryableError, match="illegal status line") as caught,
    ):
        router.deliver(orders(1))
    assert "hunter2" not in chain(caught.value)
    assert len(str(caught.value)) < 300


def test_reason_of_a_rejected_record_does_not_show_a_secret(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(200, b'[{"index": 0, "reason": "hunter2-in-the-path\\u001b[31m refuses"}]')
    with opened(f"{receiver.url}/hunter2-in-the-path", rejected_at="") as router:
        receipt = router.deliver(orders(1))
    assert receipt.rejected[0].reason.endswith("rejected the record: *** [31m refuses")


def test_secret_of_digits_does_not_break_an_answer(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(207, b'[{"status": 201, "account": 1234567890}]')
    with opened(f"{receiver.url}/1234567890") as router:
        assert router.deliver(orders(1)).rejected == ()


def test_text_of_an_answer_is_one_short_harmless_line(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(404, b"<h1>\x1b[31mno\r\nERROR fake line\xe2\x80\xae\xff" + b"x" * 9000)
    with opened(receiver) as router, pytest.raises(muxly.RouteError, match="404") as caught:
        router.deliver(orders(1))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 400


def test_multi_status_rejects_single_records(receiver: Receiver) -> None:
    def respond(seen: Seen) -> Reply:
        results = [{"status": 422 if one["id"] % 3 == 0 else 201, "error": "multiple of\n3"} for one in seen.json()]
        return Reply(207, json.dumps({"results": results}).encode())

    receiver.respond = respond
    with opened(receiver, max_records=4, results_at="/results") as router:
        receipt = router.deliver(orders(8))
    assert [one.index for one in receipt.rejected] == [0, 3, 6]
    assert receipt.rejected[0].reason.endswith("rejected the record: multiple of 3 (422)")


def test_multi_status_of_a_busy_receiver_is_tried_again(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(207, b"[200, 429, 400]", headers=(("Retry-After", "7"),))
    with opened(receiver) as router, pytest.raises(muxly.RetryableError, match="207, and 429 for record 1") as caught:
        router.deliver(orders(3))
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        (b"", []),
        (b"{}", []),
        (b'{"bad": null}', []),
        (b'{"bad": {"list": []}}', []),
        (b'{"bad": {"list": [1, {"index": 2, "reason": "wrong"}]}}', [1, 2]),
        (b'{"bad": {"list": [2, 2]}}', [2]),
    ],
)
def test_list_of_rejected_records(receiver: Receiver, body: bytes, rejected: list[int]) -> None:
    receiver.respond = lambda seen: Reply(200, body)
    with opened(receiver, rejected_at="/bad/list") as router:
        receipt = router.deliver(orders(3))
    assert [one.index for one in receipt.rejected] == rejected


def test_list_of_rejected_records_counts_what_was_sent(receiver: Receiver) -> None:
    """A record that could not be sent has no place in the request."""
    receiver.respond = lambda seen: Reply(200, b"[1]")
    with opened(receiver, rejected_at="") as router:
        far = pa.array([0, 2**62, 0, 0], pa.timestamp("s"))
        receipt = router.deliver(delivery(pa.table({"id": [0, 1, 2, 3], "at": far}), ORDERS))
    assert sent(receiver) == [[0, 2, 3]]
    assert [one.index for one in receipt.rejected] == [1, 2]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>Please log in</html>", "is not JSON: <html>Please log in"),
        (200, b"[[[[" * 50_000, "is not JSON|has no list"),
        (200, b'{"bad": 3}', "has no list at '/bad'"),
        (200, b'{"bad": [3]}', "rejects '3', and the request had the records 0 to 2"),
        (200, b'{"bad": [-1]}', "rejects '-1'"),
        (200, b'{"bad": [true]}', "rejects 'True'"),
        (200, b'{"bad": ["a"]}', "rejects 'a'"),
        (200, b'{"bad": [{"reason": "?"}]}', "rejects 'None'"),
        (200, b'{"bad": [' + b" " * 2_000_000 + b"]}", "is larger than answer_bytes"),
        (207, b"[200, 200]", "has no list of 3 results at ''"),
        (207, b"[200, 200, true]", "has a result without a status at 2"),
        (200, b" " * 2_000_000, "is larger than answer_bytes"),
        (207, b"", "is not JSON"),
    ],
)
def test_answer_that_says_it_otherwise_stops_the_route(
    receiver: Receiver, status: int, body: bytes, message: str
) -> None:
    receiver.respond = lambda seen: Reply(status, body)
    with opened(receiver, rejected_at="/bad") as router, pytest.raises(muxly.RouteError, match=message):
        router.deliver(orders(3))


@pytest.mark.parametrize("coding", ["gzip", "rot13"])
def test_answer_that_cannot_be_read_does_not_mean_that_nothing_was_rejected(receiver: Receiver, coding: str) -> None:
    receiver.respond = lambda seen: Reply(200, b"[0, 1]", headers=(("Content-Encoding", coding),))
    with opened(receiver, rejected_at="") as router, pytest.raises(muxly.RouteError, match="cannot be decoded"):
        router.deliver(orders(3))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_is_one_whatever_it_says(receiver: Receiver, status: int) -> None:
    receiver.respond = lambda seen: Reply(
        status, b"" if status == 204 else BOMB, headers=(("Content-Encoding", "gzip"),)
    )
    with opened(receiver) as router:
        assert router.deliver(orders(3)).rejected == ()


@pytest.mark.parametrize("cut", ["request", "lost", "answer", "close"])
def test_broken_connection_repeats_the_same_request(receiver: Receiver, cut: Any) -> None:
    receiver.script(Reply(), Reply(cut=cut, body=b"x" * 100))
    marks = Marks()
    with opened(receiver, max_records=4) as router:
        with pytest.raises(muxly.RetryableError, match=r"127\.0\.0\.1"):
            router.deliver(orders(8, marks=marks))
        router.close()
        router.open(muxly.Run("01RUN", "daily"))
        router.deliver(orders(8, delivered=marks[-1], marks=marks))
    assert marks == [4, 8]
    assert [record["id"] for record in records(receiver.distinct())] == list(range(8))
    assert {one.id: one.body for one in receiver.seen} == {one.id: one.body for one in receiver.distinct()}


@pytest.mark.parametrize("reply", [Reply(hold=True), Reply(drip_seconds=0.05, body=b"x" * 1000)])
def test_slow_receiver_is_given_up_in_time(receiver: Receiver, reply: Reply) -> None:
    receiver.script(reply)
    with opened(receiver, total_seconds=0.4) as router, pytest.raises(muxly.RetryableError, match=r"in time|within"):
        router.deliver(orders(1))


def test_several_requests_are_on_their_way_at_once_and_marked_in_order(receiver: Receiver) -> None:
    together = threading.Barrier(3, timeout=20)

    def respond(seen: Seen) -> Reply:
        if not seen.id.endswith("-9-1"):
            together.wait()
        return Reply()

    receiver.respond = respond
    marks = Marks()
    with opened(receiver, max_records=1, max_in_flight=3) as router:
        router.deliver(orders(10, marks=marks))
    assert marks == list(range(1, 11))
    assert sorted(record["id"] for record in records(receiver.applied)) == list(range(10))


def test_what_is_behind_a_failed_request_is_not_marked_and_keeps_its_id(receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(503) if seen.id == "01ORDERS-4-2" else Reply()
    marks = Marks()
    with opened(receiver, max_records=2, max_in_flight=4) as router:
        with pytest.raises(muxly.RetryableError, match="503"):
            router.deliver(orders(20, marks=marks))
        assert marks == [2, 4]
        receiver.respond = lambda seen: Reply()
        router.deliver(orders(20, delivered=4, marks=marks))
    assert sorted(record["id"] for record in records(receiver.distinct())) == list(range(20))


def test_stopped_run_sends_nothing_more(receiver: Receiver) -> None:
    stop = threading.Event()

    def respond(seen: Seen) -> Reply:
        stop.set()
        return Reply()

    receiver.respond = respond
    with (
        opened(receiver, muxly.Run("01R", "p", route="r", stop=stop), max_records=1) as router,
        pytest.raises(muxly.StoppedError, match="asked to stop"),
    ):
        router.deliver(orders(5))
    assert len(receiver.seen) == 1


def test_connection_that_the_receiver_closed_meanwhile_is_replaced(receiver: Receiver) -> None:
    receiver.script(Reply(headers=(("Connection", "close"),), raw=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with opened(receiver) as router:
        router.deliver(orders(1))
        receiver.wait_for_ends()
        router.deliver(orders(1, id="01NEXT"))
    assert [one.connection for one in receiver.seen] == [1, 2]
