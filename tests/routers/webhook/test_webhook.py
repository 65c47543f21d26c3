"""Bodies, headers, signatures and options of the webhook router."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from standardwebhooks import Webhook as StandardWebhook

import muxly
from muxly import Secret
from muxly.config import load
from muxly_routers.webhook import Basic, Hmac, Webhook
from muxly_testing import delivery
from muxly_testing._expectations import traced
from tests.http_receiver import Receiver, Reply
from tests.routers.webhook.deliveries import ORDERS, opened, orders, sent

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = ["whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]


def bodies(receiver: Receiver, records: Any, **options: Any) -> list[bytes]:
    """The bodies of the requests that a delivery becomes."""
    with opened(receiver, **options) as router:
        router.deliver(delivery(records, ORDERS, id="01X"))
    return [one.body for one in receiver.seen]


def test_records_are_an_array(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": 1, "a": None}, {"id": 2, "a": "ü"}]) == [
        '[{"id":1,"a":null},{"id":2,"a":"ü"}]'.encode()
    ]
    assert receiver.seen[0].headers["content-type"] == "application/json"


def test_envelope_holds_the_array(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": 1}, {"id": 2}], envelope='my "items"') == [
        b'{"my \\"items\\":[{"id":1},{"id":2}]}'.replace(b'items\\":', b'items\\"":')
    ]


def test_record_goes_alone(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": 1}, {"id": 2}], body="record") == [b'{"id":1}', b'{"id":2}']


def test_lines_of_json(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": 1}, {"id": 2}], body="ndjson") == [b'{"id":1}\n{"id":2}\n']
    assert receiver.seen[0].headers["content-type"] == "application/x-ndjson"


def test_requests_are_cut_by_records_and_bytes(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": number} for number in range(5)], max_records=2) == [
        b'[{"id":0},{"id":1}]',
        b'[{"id":2},{"id":3}]',
        b'[{"id":4}]',
    ]
    receiver.forget()
    records = [{"id": 0, "t": "x" * 50}, {"id": 1, "t": "x" * 500}, {"id": 2, "t": ""}, {"id": 3, "t": ""}]
    found = bodies(receiver, records, max_bytes=80)
    assert sent(receiver) == [[0], [1], [2, 3]]
    assert [len(body) <= 80 for body in found] == [True, False, True]


VALUES = pa.table(
    {
        "id": [1],
        "price": pa.array([Decimal("12345678901234567890.10")], pa.decimal128(38, 2)),
        "raw": pa.array([b"\x00\xff"], pa.binary()),
        "at": pa.array([datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2026, 3, 1)]),
        "big": pa.array([2**63 - 1]),
        "nan": pa.array([float("nan")]),
        "deep": pa.array(
            [{"raws": [b"a", None], "prices": [Decimal("1.5")], "map": [("k", b"v")]}],
            pa.struct(
                [
                    ("raws", pa.list_(pa.binary())),
                    ("prices", pa.large_list(pa.decimal128(5, 1))),
                    ("map", pa.map_(pa.string(), pa.binary())),
                ]
            ),
        ),
        "word": pa.array(["a"]).dictionary_encode(),
    }
)


def test_values_are_exact_json(receiver: Receiver) -> None:
    (body,) = bodies(receiver, VALUES, body="record")
    assert json.loads(body) == {
        "id": 1,
        "price": "12345678901234567890.10",
        "raw": "AP8=",
        "at": "2026-03-01T12:30:00.000005Z",
        "day": "2026-03-01",
        "big": 2**63 - 1,
        "nan": None,
        "deep": {"raws": ["YQ==", None], "prices": ["1.5"], "map": {"k": "dg=="}},
        "word": "a",
    }


def test_decimals_as_numbers_are_exact_too(receiver: Receiver) -> None:
    (body,) = bodies(receiver, VALUES.select(["id", "price"]), body="record", decimals="number")
    assert body == b'{"id":1,"price":12345678901234567890.10}'
    receiver.forget()
    template = {"price": "{price}", "text": "{price:.1f} of {raw}", "list": ["{at}", "{deep}"]}
    (body,) = bodies(receiver, VALUES, body="record", decimals="number", template=template)
    assert body.startswith(b'{"price":12345678901234567890.10,"text":"12345678901234567890.1 of AP8="')
    assert json.loads(body)["list"][1]["raws"] == ["YQ==", None]


@pytest.mark.parametrize("decimals", ["string", "number"])
def test_decimals_have_all_their_digits(receiver: Receiver, decimals: Any) -> None:
    """Without an exponent, which Arrow writes for small ones and for 0."""
    kind = pa.decimal128(38, 9)
    prices = [Decimal(0), Decimal("1E-9"), Decimal("12.5"), None]
    table = pa.table({"price": pa.array(prices, kind), "all": pa.array([prices] * 4, pa.list_(kind))})
    written = ["0.000000000", "0.000000001", "12.500000000", "null"]
    texts = written if decimals == "number" else [*(f'"{one}"' for one in written[:3]), "null"]
    found = bodies(receiver, table, body="record", decimals=decimals)
    assert found == [f'{{"price":{one},"all":[{",".join(texts)}]}}'.encode() for one in texts]


@pytest.mark.parametrize("template", [None, {"id": "{id}", "x": "{x}"}])
def test_not_a_number_is_counted(receiver: Receiver, template: Any) -> None:
    noticed: list[muxly.Notice] = []
    measured: list[tuple[str, float, str | None]] = []
    run = muxly.Run("01R", "p", route="r", on_notice=noticed.append, on_measure=lambda *one: measured.append(one))
    with opened(receiver, run, template=template) as router:
        for _ in range(2):
            router.deliver(delivery([{"id": 1, "x": float("nan")}, {"id": 2, "x": float("inf")}], ORDERS))
    assert [one.code for one in noticed] == ["nonfinite_as_null"]
    assert measured == [("nonfinite_as_null", 2, "orders")] * 2


@pytest.mark.parametrize(
    ("template", "why"),
    [(None, "years 1 to 9999"), ({"id": "{id}", "at": "{at}"}, "column 'at': a value of type timestamp")],
)
def test_value_without_a_form_in_json_is_rejected_alone(receiver: Receiver, template: Any, why: str) -> None:
    far = pa.array([0, 2**62, 0, 0], pa.timestamp("s"))
    records = pa.table({"id": [0, 1, 2, 3], "at": far})
    with opened(receiver, template=template) as router:
        receipt = router.deliver(delivery(records, ORDERS))
    assert [(one.index, why in one.reason) for one in receipt.rejected] == [(1, True)]
    assert sent(receiver) == [[0, 2, 3]]


def test_type_without_a_form_in_json_ends_the_route(receiver: Receiver) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with opened(receiver) as router, pytest.raises(muxly.RouteError, match=r"column 'x': .* cannot hold the union"):
        router.deliver(delivery([pa.record_batch({"id": [1], "x": union})], ORDERS))


def test_template_makes_the_body(receiver: Receiver) -> None:
    template = {"text": "Order {id}: {name|nobody}", "raw": "{id}", "fixed": [1, None, True]}
    found = bodies(receiver, [{"id": 1, "name": None}, {"id": 2, "name": 'A "q"'}], template=template, max_records=1)
    assert found == [
        b'[{"text":"Order 1: nobody","raw":1,"fixed":[1,null,true]}]',
        b'[{"text":"Order 2: A \\"q\\"","raw":2,"fixed":[1,null,true]}]',
    ]


def test_template_of_text_is_text(receiver: Receiver) -> None:
    assert bodies(receiver, [{"id": 1, "name": "A"}], template="{name} has {id}", body="record") == [b"A has 1"]
    assert receiver.seen[0].headers["content-type"] == "text/plain; charset=utf-8"
    receiver.forget()
    assert bodies(receiver, [{"id": 1}], template="{id}", body="record") == [b"1"]
    receiver.forget()
    assert bodies(receiver, [{"id": 1, "name": "A"}], template="{name}") == [b'["A"]']


def test_template_of_another_stream_stops_the_stream(receiver: Receiver) -> None:
    with (
        opened(receiver, template="{nmae}") as router,
        pytest.raises(muxly.StreamError, match=r"stream 'orders': the template .*\"nmae\"; did you mean \"name\""),
    ):
        router.deliver(orders(3))
    assert receiver.seen == []


def test_template_that_does_not_fit_a_value_rejects_its_record(receiver: Receiver) -> None:
    with opened(receiver, template={"t": "{name:.2f}"}) as router:
        receipt = router.deliver(orders(2))
    assert [one.index for one in receipt.rejected] == [0, 1]
    assert "does not fit a value of type str" in receipt.rejected[0].reason
    assert receiver.seen == []


def test_ids_name_the_delivery_and_the_place_in_it(receiver: Receiver) -> None:
    with opened(receiver, max_records=4) as router:
        router.deliver(orders(10))
    assert [one.id for one in receiver.seen] == ["01ORDERS-0-4", "01ORDERS-4-4", "01ORDERS-8-2"]
    assert [one.headers["idempotency-key"] for one in receiver.seen] == [one.id for one in receiver.seen]
    assert all(one.headers["webhook-timestamp"].isdigit() for one in receiver.seen)
    assert "webhook-signature" not in receiver.seen[0].headers


def test_every_secret_signs_while_they_are_changed(receiver: Receiver) -> None:
    with opened(receiver, signing_secrets=[Secret(one) for one in SECRETS]) as router:
        router.deliver(orders(3))
    (seen,) = receiver.seen
    for secret in SECRETS:
        assert StandardWebhook(secret).verify(seen.body, seen.headers) == seen.json()
    assert len(seen.headers["webhook-signature"].split(" ")) == 2
    with pytest.raises(Exception, match="No matching signature"):
        StandardWebhook("whsec_" + base64.b64encode(b"3" * 32).decode()).verify(seen.body, seen.headers)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("signs", ["body", "timestamp.body", "id.timestamp.body"])
def test_signatures_of_other_kinds(receiver: Receiver, algorithm: Any, encoding: Any, signs: Any) -> None:
    given = Hmac(
        secret=Secret("my key"),
        header="X-Hub-Signature",
        algorithm=algorithm,
        encoding=encoding,
        prefix=f"{algorithm}=",
        signs=signs,
        timestamp_header="X-Time",
        id_header="X-Id",
    )
    with opened(receiver, hmac=given) as router:
        router.deliver(orders(1))
    (seen,) = receiver.seen
    time = seen.headers["x-time"]
    assert (time, seen.headers["x-id"]) == (seen.headers["webhook-timestamp"], seen.id)
    signed = {"body": "", "timestamp.body": f"{time}.", "id.timestamp.body": f"{seen.id}.{time}."}[signs].encode()
    digest = hmac.new(b"my key", signed + seen.body, getattr(hashlib, algorithm))
    text = digest.hexdigest() if encoding == "hex" else base64.b64encode(digest.digest()).decode()
    assert seen.headers["x-hub-signature"] == f"{algorithm}={text}"


def test_headers_of_all_kinds(receiver: Receiver) -> None:
    options: dict[str, Any] = {
        "headers": {"X-From": "{pipeline}/{route}: {stream}", "X-Delivery": "{delivery}", "X-Braces": "{{}}"},
        "secret_headers": {"X-Api-Key": Secret(" k3y \n")},
        "bearer": Secret("t0ken\n"),
        "content_type": "application/vnd.api+json",
        "method": "PUT",
    }
    with opened(receiver, **options) as router:
        router.deliver(orders(1))
    (seen,) = receiver.seen
    assert seen.method == "PUT"
    assert {name: seen.headers[name] for name in ("x-from", "x-delivery", "x-braces", "x-api-key")} == {
        "x-from": "daily/hook: orders",
        "x-delivery": "01ORDERS",
        "x-braces": "{}",
        "x-api-key": "k3y",
    }
    assert seen.headers["authorization"] == "Bearer t0ken"
    assert seen.headers["content-type"] == "application/vnd.api+json"


def test_user_and_password(receiver: Receiver) -> None:
    with opened(receiver, basic=Basic(user="me", password=Secret("pä:ss"))) as router:
        router.deliver(orders(1))
    assert base64.b64decode(receiver.seen[0].headers["authorization"].split(" ")[1]).decode() == "me:pä:ss"


def test_white_space_around_a_value_is_left_away(receiver: Receiver) -> None:
    headers = {"X-A": " a\t", "X-Stream": "{stream}"}
    with opened(receiver, headers=headers, content_type=" text/plain ") as router:
        router.deliver(delivery([{"id": 1}], muxly.Stream(" padded ")))
    (seen,) = receiver.seen
    assert (seen.headers["x-a"], seen.headers["x-stream"], seen.headers["content-type"]) == (
        "a",
        "padded",
        "text/plain",
    )


def test_name_of_a_stream_cannot_break_out_of_a_header_or_a_path(receiver: Receiver) -> None:
    stream = muxly.Stream("a\r\nX-Evil: 1/../?x#y%ü")
    with opened(f"{receiver.url}/{{stream}}/in", headers={"X-Stream": "{stream}"}) as router:
        router.deliver(delivery([{"id": 1}], stream))
    (seen,) = receiver.seen
    assert "x-evil" not in seen.headers
    assert seen.headers["x-stream"] == "a%0D%0AX-Evil: 1/../?x#y%25%C3%BC"
    assert seen.path == "/hook/a%0D%0AX-Evil%3A%201%2F..%2F%3Fx%23y%25%C3%BC/in"


@pytest.mark.parametrize("name", [".", "..", ""])
def test_name_that_means_another_folder_stops_the_stream(receiver: Receiver, name: str) -> None:
    with (
        opened(f"{receiver.url}/{{stream}}") as router,
        pytest.raises(muxly.StreamError, match="cannot be a part of a URL; leave the stream out"),
    ):
        router.deliver(delivery([{"id": 1}], muxly.Stream(name)))
    assert receiver.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"X-A": "b\r\nX-Evil: 1"}}, "line end or another character"),
        ({"headers": {"X A": "b"}}, "not the name of a header"),
        ({"headers": {"Webhook-Id": "b"}}, "set by the router itself"),
        ({"headers": {"host": "b"}}, "set by the router itself"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "there twice"),
        ({"headers": {"X-A": "{id}"}}, r"\{id\} is not known here; there are \{delivery\}"),
        ({"headers": {"X-A": "{"}}, "character 1: a single"),
        ({"headers": {"X-A": "1"}, "secret_headers": {"x-a": Secret("2")}}, "x-a is given twice"),
        ({"headers": {"Authorization": "1"}, "bearer": Secret("2")}, "authorization is given twice"),
        ({"bearer": Secret("1"), "basic": Basic(user="a", password=Secret("b"))}, "bearer and basic are two values"),
        ({"headers": {"X-A": "1"}, "hmac": Hmac(secret=Secret("2"), header="x-a")}, "x-a is given twice"),
        ({"hmac": Hmac(secret=Secret("2"), header="X-A", id_header="x-a")}, "x-a is given twice"),
        ({"content_type": "a\nb"}, "line end or another"),
        ({"template": {"a": ["{x"]}}, r"a\[0\]: character 1"),
        ({"rejected_at": "rejected"}, "not a JSON pointer"),
        ({"envelope": "items", "body": "ndjson"}, "envelope is the key of an array, and body is ndjson"),
        ({"max_records": 0}, "max_records"),
        ({"max_in_flight": 65}, "max_in_flight"),
        ({"total_seconds": 0}, "total_seconds"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Webhook(url=Secret("https://hooks.example/"), **options)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"url": Secret("ftp://hooks.example/hunter2")}, ("url",)),
        ({"url": Secret("https://{stream}.example/hunter2")}, ("url",)),
        ({"url": Secret("https://hooks.example/{id}/hunter2")}, ("url",)),
        ({"signing_secrets": [Secret("hunter2")]}, ("signing_secrets",)),
        ({"signing_secrets": [Secret("whsec_" + base64.b64encode(b"hunter2").decode())]}, ("signing_secrets",)),
        ({"bearer": Secret("hunter2\nhunter2")}, ("bearer",)),
        ({"secret_headers": {"X-A": Secret("hunter2\x00")}}, ("secret_headers", "X-A")),
    ],
)
def test_wrong_secrets_are_named_when_the_router_is_opened(options: dict[str, Any], path: tuple[str, ...]) -> None:
    router = Webhook(**{"url": Secret("https://hooks.example/"), **options})
    with pytest.raises(muxly.ConfigurationError, match=r".") as caught:
        router.open(muxly.Run("01R", "p"))
    router.close()
    assert caught.value.path == path
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in traced(caught.value, "muxly_routers")


def test_configuration_is_checked_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "muxly.yaml"
    file.write_text(
        """\
version: 1
pipelines:
  p:
    connector: {type: file, path: a.csv}
    routes:
      hook:
        router: {type: webhook, url: "${URL:-https://x.example/}", max_bytes: 64 KiB, headers: {Host: x}}
"""
    )
    with pytest.raises(
        muxly.ConfigurationError, match=r"muxly\.yaml:7:\d+: .*headers: .*the header Host is set by the router"
    ):
        load(file).validate()


def test_check_sends_nothing(receiver: Receiver) -> None:
    with opened(receiver) as router:
        assert list(router.check()) == []
    assert receiver.seen == []
    receiver.wait_for(0)


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ("http://localhost:1", False),
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost.example:1", True),
        ("http://127.example:1", True),
    ],
)
def test_check_knows_this_machine(site: str, told: bool) -> None:
    with opened(f"{site}/{{route}}", muxly.Run("01R", "p"), bearer=Secret("t0ken"), guard=True) as router:
        assert ("not_encrypted" in {one.code for one in router.check()}) == told


def test_check_says_what_is_out_of_reach() -> None:
    with opened("http://127.0.0.1:1/hook", bearer=Secret("t0ken")) as router:
        (found,) = router.check()
    assert (found.code, found.level) == ("unreachable", "error")
    assert (
        "http://127.0.0.1:1: no connection to 127.0.0.1, port 1: Connection refused; is the server running"
        in found.message
    )


def test_check_warns_of_credentials_that_are_not_encrypted() -> None:
    with opened("http://10.0.0.1/hook", bearer=Secret("t0ken"), guard=True) as router:
        found = {one.code: one.level for one in router.check()}
    assert found == {"unreachable": "error", "not_encrypted": "warning"}


@pytest.mark.parametrize("guarded", [True, False])
def test_guard_is_on_where_an_api_user_wrote_the_url(receiver: Receiver, guarded: bool) -> None:
    run = muxly.Run("01R", "p", route="r", guarded=guarded)
    with opened(receiver, run, guard=not guarded) as router:
        (notice,) = router.check()
        assert "one of its addresses is loopback" in notice.message
        with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
            router.deliver(orders(1))
    assert receiver.accepted == 0


def test_operator_may_name_loopback(receiver: Receiver) -> None:
    with opened(receiver) as router:
        router.deliver(orders(1))
    assert sent(receiver) == [[0]]


def test_rate_is_kept_together_with_other_routes(receiver: Receiver) -> None:
    waited: list[float] = []

    class Patient(muxly.Run):
        def sleep(self, seconds: float) -> None:
            waited.append(seconds)

    run = Patient("01R", "p", route="r")
    with opened(receiver, run, requests_per_second=0.001, max_records=1) as one:
        one.deliver(orders(3))
        with opened(
            receiver, run.on_route("other") if hasattr(run, "on_route") else run, requests_per_second=0.001
        ) as two:
            two.deliver(orders(1, id="01OTHER"))
    assert [round(seconds, -3) for seconds in waited if seconds > 0] == [1000, 2000, 3000]


def test_being_told_to_wait_holds_for_all_of_the_rate(receiver: Receiver) -> None:
    receiver.script(Reply(429, headers=(("Retry-After", "50"),)))
    run = muxly.Run("01R", "p", route="r")
    with opened(receiver, run, requests_per_second=1000) as router:
        with pytest.raises(muxly.RetryableError, match="answered 429"):
            router.deliver(orders(1))
        bucket = run.shared(f"webhook http://127.0.0.1:{receiver.port} 1000", lambda: muxly.RateBucket(1))
        assert 40 < bucket.reserve(0) <= 50


def test_module_loads_no_http_library() -> None:
    import subprocess
    import sys

    code = "import sys, muxly_routers.webhook; print([n for n in ('httpx2', 'pyarrow') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
