"""Remote write: to a real Prometheus, and to a receiver that goes wrong as it is told."""

from __future__ import annotations

import itertools
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import cramjam
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly
from muxly import Secret
from muxly.component import Run
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers.prometheus import Metric, Prometheus, remote_write
from muxly_testing import delivery
from muxly_testing._expectations import WatchedRun
from tests.http_receiver import Receiver, Reply, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muxly.router import Delivery
    from tests import fixtures_prometheus as servers

NOON = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


def number_from(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message, by the specification and not by the code under test."""
    at = 0
    while at < len(message):
        key, at = number_from(message, at)
        if key & 7 == 0:
            value, at = number_from(message, at)
            yield key >> 3, value
        elif key & 7 == 1:
            yield key >> 3, struct.unpack("<d", message[at : at + 8])[0]
            at += 8
        else:
            assert key & 7 == 2
            size, at = number_from(message, at)
            yield key >> 3, message[at : at + size]
            at += size
    assert at == len(message)


def read(message: bytes) -> list[tuple[dict[str, str], float, int]]:
    """The samples of a ``WriteRequest``; their labels must be sorted and not empty."""
    found = []
    for one, series in fields(message):
        assert one == 1
        labels, [sample] = {}, [value for name, value in fields(series) if name == 2]
        for name, content in fields(series):
            if name == 1:
                pair = {number: value.decode() for number, value in fields(content)}
                labels[pair[1]] = pair[2]
        assert list(labels) == sorted(labels)
        assert all(labels.values())
        value, at = (dict(fields(sample))[number] for number in (1, 2))
        found.append((labels, value, at - (1 << 64) if at >> 63 else at))
    return found


texts = st.text(st.characters(codec="utf-8"), max_size=300)
rows_of_all_kinds = st.lists(
    st.tuples(texts, st.none() | texts, st.floats(allow_nan=False), st.integers(-(2**62), 2**62)), max_size=9
)


@given(rows_of_all_kinds)
def test_request_says_what_the_columns_hold(rows: list[tuple[str, str | None, float, int]]) -> None:
    one, other, values, times = ([row[at] for row in rows] for at in range(4))
    columns: list[tuple[str, Any]] = [
        ("Z", pa.array(one, pa.string())),
        ("a", pa.array(other, pa.string())),
        ("s", "x"),
    ]
    labels = remote_write.label_bytes("m_total", columns, len(rows))
    message = remote_write.write_request(
        pa.table({"labels": labels, "value": pa.array(values, pa.float64()), "time": pa.array(times, pa.int64())})
    )
    wanted = [
        ({k: v for k, v in (("Z", z), ("__name__", "m_total"), ("a", a), ("s", "x")) if v}, value, at)
        for z, a, value, at in rows
    ]
    assert read(message) == wanted


def test_request_of_a_slice_is_that_slice() -> None:
    labels = remote_write.label_bytes("m", [("k", pa.array(["a", "b", "c", "d"]))], 4)
    whole = pa.table({"labels": labels, "value": pa.array([1, 2, 3, 4]), "time": pa.array([1, 2, 3, 4])})
    assert [(one[0]["k"], one[1], one[2]) for one in read(remote_write.write_request(whole.slice(1, 2)))] == [
        ("b", 2, 2),
        ("c", 3, 3),
    ]


def test_time_of_a_delivery_is_that_of_its_id() -> None:
    # The example of the ULID specification.
    assert ulid_time_ms("01ARZ3NDEKTSV4RRFFQ69G5FAV") == 1_469_922_850_259


_times = itertools.count(int(datetime.now(UTC).timestamp() * 1000))


def id_of_now() -> str:
    """A ULID of now, greater than the one before."""
    return ulid(next(_times))


def ulid(at: int) -> str:
    """A ULID of that millisecond."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(digits[at << 80 >> shift & 31] for shift in range(125, -1, -5))


class To:
    """A router that sends to a URL, and the ledger's state of its stream."""

    def __init__(self, url: str, metrics: dict[str, Metric], **options: Any) -> None:
        self.router = Prometheus(metrics=metrics, remote_write=Secret(url), **options)
        self.run, self.state = WatchedRun(), None
        self.router.open(self.run)

    def deliver(self, data: Any) -> Delivery:
        one = data if isinstance(data, muxly.Delivery) else delivery(data, "orders", id=id_of_now())
        one.state = self.state if one is not data else one.state
        receipt = self.router.deliver(one)
        assert isinstance(receipt, muxly.Receipt)
        self.state = receipt.state
        return one

    def close(self) -> None:
        self.router.close()
        self.run.end()


@pytest.fixture
def sending() -> Iterator[Callable[..., To]]:
    """Makes routers, and closes them."""
    made: list[To] = []

    def make(*arguments: Any, **options: Any) -> To:
        made.append(To(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def new_name() -> str:
    return f"m_{uuid4().hex}"


def test_history_is_kept_with_its_times(sending: Callable[..., To], prometheus_server: servers.Prometheus) -> None:
    name = new_name()
    one = sending(prometheus_server.write_url, {name: Metric(column="n", labels=["city"], timestamp="at")})
    records = [
        {"city": city, "n": number + 0.5, "at": NOON + timedelta(seconds=number)}
        for city in ("Köln", 'quo"te\\\n')
        for number in (2, 0, 1)
    ]
    one.deliver(records)
    one.deliver([{"city": "Köln", "n": 9.0, "at": NOON + timedelta(seconds=9)}])
    found = {labels["city"]: samples for labels, samples in prometheus_server.samples(name)}
    start = NOON.timestamp()
    assert found["Köln"] == [(start, "0.5"), (start + 1, "1.5"), (start + 2, "2.5"), (start + 9, "9")]
    assert found['quo"te\\\n'] == [(start, "0.5"), (start + 1, "1.5"), (start + 2, "2.5")]
    assert not one.run.noticed


def test_repeat_of_a_delivery_changes_nothing(
    sending: Callable[..., To], prometheus_server: servers.Prometheus
) -> None:
    history, newest, total = new_name(), new_name(), f"{new_name()}_total"
    metrics = {
        history: Metric(column="n", labels=["k"], timestamp="at"),
        newest: Metric(column="n", labels=["k"]),
        total: Metric(column="n", labels=["k"], type="counter"),
    }
    one = sending(prometheus_server.write_url, metrics)
    records = [{"k": str(n % 3), "n": n, "at": NOON + timedelta(seconds=n)} for n in range(30)]
    first = delivery(records, "orders", id=id_of_now())
    one.deliver(first)
    before = {name: sorted(map(repr, prometheus_server.samples(name))) for name in metrics}
    one.close()  # with it goes what the process knew of the delivery
    again = sending(prometheus_server.write_url, metrics)
    again.deliver(first)
    assert {name: sorted(map(repr, prometheus_server.samples(name))) for name in metrics} == before
    assert sum(len(samples) for _, samples in prometheus_server.samples(history)) == 30
    totals = sorted_by(prometheus_server.samples(total), "k")
    assert [(labels["k"], samples) for labels, [(_, samples)] in totals] == [("0", "135"), ("1", "145"), ("2", "155")]
    assert [one.code for one in again.run.noticed] == ["late_samples"]


def sorted_by(found: list[Any], label: str) -> list[Any]:
    return sorted(found, key=lambda one: one[0][label])


def test_samples_that_come_too_late_are_told_and_the_others_arrive(
    sending: Callable[..., To], prometheus_server: servers.Prometheus
) -> None:
    name = new_name()
    one = sending(prometheus_server.write_url, {name: Metric(column="n", labels=["k"], timestamp="at")})
    one.deliver([{"k": "a", "n": 1, "at": NOON}])
    one.deliver(
        [
            {"k": "a", "n": 2, "at": NOON - timedelta(seconds=5)},
            {"k": "a", "n": 3, "at": NOON},
            {"k": "a", "n": 4, "at": NOON + timedelta(seconds=5)},
            {"k": "b", "n": 5, "at": NOON - timedelta(seconds=5)},
        ]
    )
    found = {labels["k"]: [value for _, value in samples] for labels, samples in prometheus_server.samples(name)}
    assert found == {"a": ["1", "4"], "b": ["5"]}
    [notice] = one.run.noticed
    assert notice.code == "late_samples"
    assert "refused 2 samples" in notice.message


def test_totals_go_on_over_deliveries(sending: Callable[..., To], prometheus_server: servers.Prometheus) -> None:
    name = f"{new_name()}_total"
    one = sending(prometheus_server.write_url, {name: Metric(column="n", labels=["k"], type="counter")})
    for number in (1, 2, 3):
        one.deliver([{"k": "a", "n": number}, {"k": "b", "n": 10}])
    found = sorted_by(prometheus_server.samples(name), "k")
    assert [[value for _, value in samples] for _, samples in found] == [["1", "3", "6"], ["10", "20", "30"]]


def test_deliveries_of_one_millisecond_and_of_a_clock_set_back_arrive(
    sending: Callable[..., To], prometheus_server: servers.Prometheus
) -> None:
    """The halves of a rejected delivery get their ids within a millisecond."""
    total, newest = f"{new_name()}_total", new_name()
    metrics = {total: Metric(column="n", labels=["k"], type="counter"), newest: Metric(column="n", labels=["k"])}
    one = sending(prometheus_server.write_url, metrics)
    start = ulid_time_ms(id_of_now())
    for number, late in enumerate((0, 0, 0, 5)):
        id = f"{ulid(start - late)[:10]}{number:016d}"
        one.deliver(delivery([{"k": "a", "n": number}], "orders", id=id, state=one.state))
    [(_, totals)], [(_, values)] = prometheus_server.samples(total), prometheus_server.samples(newest)
    assert [value for _, value in totals] == ["0", "1", "3", "6"]
    assert [value for _, value in values] == ["0", "1", "2", "3"]
    assert [round(at * 1000) - start for at, _ in totals] == [0, 1, 2, 3]
    assert not one.run.noticed


def test_time_of_samples_grows_unless_the_clock_was_wrong_before() -> None:
    now = 1_800_000_000_000
    assert remote_write.sample_time(ulid(now), 0) == now
    assert remote_write.sample_time(ulid(now), now) == now + 1
    assert remote_write.sample_time(ulid(now), now + 3_599_999) == now + 3_600_000
    assert remote_write.sample_time(ulid(now), now + 3_600_000) == now


def decoded(seen: Seen) -> list[tuple[dict[str, str], float, int]]:
    return read(bytes(cramjam.snappy.decompress_raw(seen.body)))


METRICS = {"m": Metric(column="n", labels=["k"])}
RECORDS = [{"k": str(number), "n": number} for number in range(5000)]


def url(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/api/v1/write"


@pytest.mark.parametrize("way", ["remote_write", "pushgateway"])
def test_answer_that_repeats_a_secret_does_not_show_it(receiver: Receiver, way: str) -> None:
    receiver.respond = lambda seen: Reply(404, f"no {seen.path} for {seen.headers['authorization']}".encode())
    to: dict[str, Any] = {way: Secret(f"http://127.0.0.1:{receiver.port}/tenants/hunter2-hunter2/write")}
    router, run = Prometheus(metrics=METRICS, bearer=Secret("the-token"), **to), WatchedRun()
    router.open(run)
    with pytest.raises(muxly.RouteError, match=r"answered 404: no \*\*\* for Bearer \*\*\*"):
        router.deliver(delivery(RECORDS[:1], "orders", id=id_of_now()))
    router.close()
    run.end()


def test_request_has_the_headers_that_the_specification_asks_for(
    sending: Callable[..., To], receiver: Receiver
) -> None:
    sending(url(receiver), METRICS, bearer=Secret("the-token"), stream_label="").deliver(RECORDS[:1])
    [seen] = receiver.seen
    wanted = {
        "content-type": "application/x-protobuf",
        "content-encoding": "snappy",
        "x-prometheus-remote-write-version": "0.1.0",
        "authorization": "Bearer the-token",
    }
    assert wanted.items() <= seen.headers.items()
    [(labels, value, _)] = decoded(seen)
    assert (labels, value) == ({"__name__": "m", "k": "0"}, 0.0)


def test_samples_go_in_requests_of_bounded_size(sending: Callable[..., To], receiver: Receiver) -> None:
    sending(url(receiver), METRICS).deliver(RECORDS)
    assert [len(decoded(seen)) for seen in receiver.seen] == [2000, 2000, 1000]


def test_attempt_goes_on_where_the_one_before_broke_off(sending: Callable[..., To], receiver: Receiver) -> None:
    one = sending(url(receiver), METRICS)
    receiver.script(Reply(204), Reply(503, b"busy", headers=(("Retry-After", "7"),)))
    first = delivery(RECORDS, "orders")
    with pytest.raises(muxly.RetryableError, match=r"remote_write answered 503: busy") as raised:
        one.deliver(first)
    assert raised.value.retry_after == 7
    one.router.close()
    one.router.open(one.run)
    one.deliver(first)
    counts = [len(decoded(seen)) for seen in receiver.seen]
    assert counts == [2000, 2000, 2000, 1000]
    sent = [labels["k"] for seen in receiver.applied for labels, _, _ in decoded(seen)]
    assert sorted(sent, key=int) == [record["k"] for record in RECORDS]


def test_series_that_expires_between_two_attempts_leaves_no_sample_out(
    sending: Callable[..., To], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt counts on from the samples of the one before, which have to be the same."""
    metrics = {"t_total": Metric(column="n", labels=["k"], type="counter")}
    one = sending(url(receiver), metrics, expire_seconds=60)
    one.deliver([{"k": f"old-{number}", "n": 1} for number in range(500)])
    receiver.forget()
    receiver.script(Reply(204), Reply(503))
    second = delivery([{"k": str(n), "n": 1} for n in range(2500)], "orders", id=id_of_now(), state=one.state)
    with pytest.raises(muxly.RetryableError, match=r"answered 503"):
        one.deliver(second)
    monkeypatch.setattr("time.time", lambda: datetime.now(UTC).timestamp() + 120)
    one.deliver(second)
    sent = {labels["k"] for seen in receiver.applied for labels, _, _ in decoded(seen)}
    assert {record["k"] for record in second.records()} <= sent


def test_record_that_a_counter_refuses_sends_nothing(sending: Callable[..., To], receiver: Receiver) -> None:
    metrics = {
        "t_total": Metric(column="n", type="counter"),
        "m": Metric(column="n", timestamp="at"),
    }
    one = sending(url(receiver), metrics, stream_label="")
    one.deliver([{"n": -1, "at": NOON}, {"n": 2, "at": NOON + timedelta(seconds=1)}])
    assert {(labels["__name__"], value) for labels, value, _ in decoded(receiver.seen[0])} == {("t_total", 2), ("m", 2)}


def test_request_that_is_too_large_is_halved(sending: Callable[..., To], receiver: Receiver) -> None:
    receiver.respond = lambda seen: Reply(204 if len(decoded(seen)) <= 600 else 413)
    sending(url(receiver), METRICS).deliver(RECORDS[:2000])
    assert sorted(len(decoded(seen)) for seen in receiver.applied) == [500] * 4


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (429, muxly.RetryableError, "answered 429"),
        (500, muxly.RetryableError, "answered 500"),
        (400, muxly.RejectedError, "answered 400: label name too long"),
        (401, muxly.RouteError, "answered 401: .*; see basic and bearer"),
        (404, muxly.RouteError, "answered 404"),
        (302, muxly.RouteError, "answered 302: .*; redirects are not followed"),
    ],
)
def test_answers_mean_what_the_runner_has_to_do(
    sending: Callable[..., To], receiver: Receiver, status: int, error: type[Exception], said: str
) -> None:
    receiver.respond = lambda seen: Reply(status, b"label name too long")
    with pytest.raises(error, match=said):
        sending(url(receiver), METRICS).deliver(RECORDS[:1])


def test_address_inside_the_network_is_refused_in_a_guarded_run(receiver: Receiver) -> None:
    run = Run("01B", "daily", guarded=True)
    router = Prometheus(metrics=METRICS, remote_write=Secret(url(receiver)))
    router.open(run)
    with pytest.raises(muxly.RouteError, match=r"127.0.0.1 may not be connected to"):
        router.deliver(delivery(RECORDS[:1]))
    assert not receiver.seen
    router.close()
    run.end()


def test_missing_times_are_counted_and_left_out(sending: Callable[..., To], receiver: Receiver) -> None:
    one = sending(url(receiver), {"m": Metric(column="n", timestamp="at")})
    measured: dict[str, float] = {}
    one.run._on_measure = lambda name, value, stream: measured.update({name: value})
    one.deliver([{"n": 1, "at": NOON}, {"n": 2, "at": None}, {"n": None, "at": NOON}])
    assert [value for _, value, _ in decoded(receiver.seen[0])] == [1.0]
    assert measured == {"null_values": 2}


def test_series_beyond_the_limit_are_left_out(sending: Callable[..., To], receiver: Receiver) -> None:
    one = sending(url(receiver), {"m": Metric(column="n", labels=["k"], timestamp="at")}, max_series=2)
    one.deliver([{"k": str(n % 4), "n": n, "at": NOON + timedelta(seconds=n)} for n in range(8)])
    assert {labels["k"] for labels, _, _ in decoded(receiver.seen[0])} == {"0", "1"}
    assert [notice.code for notice in one.run.noticed] == ["series_limit"]


def test_old_positions_send_nothing_without_a_time_and_everything_with_one(
    sending: Callable[..., To], receiver: Receiver
) -> None:
    def at_position(position: int, number: int) -> Delivery:
        return delivery([{"n": number, "at": NOON + timedelta(seconds=number)}], "orders", position=position)

    def sent(metric: Metric) -> list[float]:
        receiver.forget()
        one = sending(url(receiver), {"m": metric})
        for position, number in ((1, 10), (2, 20), (1, 10)):
            made = at_position(position, number)
            made.state = one.state
            one.deliver(made)
        return [value for seen in receiver.seen for _, value, _ in decoded(seen)]

    assert sent(Metric(column="n")) == [10, 20]
    assert sent(Metric(column="n", timestamp="at")) == [10, 20, 10]


def test_stop_of_the_run_is_seen_while_samples_are_sent(sending: Callable[..., To], receiver: Receiver) -> None:
    one = sending(url(receiver), METRICS)
    one.run.stop.set()
    with pytest.raises(muxly.StoppedError, match=r"asked to stop"):
        one.deliver(RECORDS)
    assert len(receiver.seen) <= 1
