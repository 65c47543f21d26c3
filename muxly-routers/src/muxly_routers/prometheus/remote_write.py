"""Remote write 1.0: samples sent to Prometheus, or to any receiver of its protocol, each with its own time.

A sample's time is that of its column, or else that of the delivery, which follows from its id and the time
before: a repeat sends the same samples. Prometheus takes a sample again only if it is the newest of its series.
Of a sample that it refuses as out of order or as a duplicate, no more is known than that it holds that time or a
later one already.

https://prometheus.io/docs/specs/prw/remote_write_spec/ and ``prompb/remote.proto``: a ``WriteRequest`` is
a sequence of ``TimeSeries`` (field 1), each with ``Label`` (field 1: name 1, value 2), sorted by name, and
``Sample`` (field 2: double value 1, int64 milliseconds 2). It is made of columns, without an object for each
sample: a length or a number is written once for all records that share it, so the work in Python grows with the
distinct ones and not with the records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, evolve, frozen

import muxly
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers._failures import needs
from muxly_routers._http.messages import HttpRequest, HttpResponse
from muxly_routers.prometheus.exposition import joined_bytes
from muxly_routers.prometheus.merging import MergeResult, merge, report_omissions
from muxly_routers.prometheus.options import MetricDefinition, PrometheusSettings, StreamKey
from muxly_routers.prometheus.pushgateway import failure, reachable, redaction_of
from muxly_routers.prometheus.samples import SampleReader
from muxly_routers.prometheus.series import StreamSeries

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient

__all__ = [
    "RemoteWriteClient",
    "RemoteWriteDelivery",
    "SendProgress",
    "distinct",
    "label_bytes",
    "of_one_time",
    "sample_time",
    "varint",
    "write_request",
]

REQUEST_SAMPLES = 2_000
"""So many samples go into one request, as Prometheus' own senders have it."""

_HEADERS = {
    "content-type": "application/x-protobuf",
    "content-encoding": "snappy",
    "x-prometheus-remote-write-version": "0.1.0",
}
_LATE = re.compile(
    r"out.of.order|duplicate.(sample|timestamp)|out of bounds|too.old|already exists|newer sample", re.IGNORECASE
)
_HOUR = 3_600_000


def sample_time(delivery: str, before: int) -> int:
    """The time of a delivery's samples, in milliseconds since 1970: when it was made, but behind those before.

    The halves of a delivery are made in one millisecond, and a clock may be set back; Prometheus
    takes neither two values of one time nor an earlier time.

    Args:
        delivery: Its id.
        before: The time of the samples before; an hour and more ahead it is that of a clock that was wrong.
    """
    made = ulid_time_ms(delivery)
    return made if before - made >= _HOUR else max(made, before + 1)


@define
class SendProgress:
    """The part of a delivery that was taken; forgotten when the process ends.

    Args:
        delivery: Its id.
        samples: So many samples, from its first.
    """

    delivery: str = ""
    samples: int = 0

    def of(self, delivery: str) -> int:
        """The number of samples of that delivery that were taken."""
        if delivery != self.delivery:
            self.delivery, self.samples = delivery, 0
        return self.samples


@frozen
class RemoteWriteClient:
    """Sends samples to one URL.

    Args:
        client: Speaks with its site.
        url: Where to send them.
        authorization: A header of every request.
    """

    client: HttpClient
    url: muxly.Secret
    authorization: muxly.Secret | None = None

    def send(self, samples: pa.Table, delivery: str, progress: SendProgress, run: muxly.Run) -> int:
        """Send samples, the earliest first, and go on where an attempt before broke off.

        Args:
            samples: Columns ``labels`` (of ``wire.label_bytes``), ``value`` and ``time`` (ms since 1970).
            delivery: Their delivery; the same one brings the same samples.
            progress: What was taken before, and is from now on.
            run: The run; when it stops, no further request is made.

        Returns:
            How many were refused because the receiver holds that time or a later one already.

        Raises:
            RetryableError: The receiver is away or busy.
            RejectedError: It refuses a sample for another reason.
            RouteError: It refuses us.
            StoppedError: The run stops.
        """
        ordered = samples.take(pc.sort_indices(samples, sort_keys=[("time", "ascending")]))
        late, start = 0, progress.of(delivery)
        while start < len(ordered):
            part = ordered.slice(start, REQUEST_SAMPLES)
            late += self._send(part, run)
            start += len(part)
            progress.samples = start
        return late

    def _send(self, samples: pa.Table, run: muxly.Run) -> int:
        run.sleep(0)  # raises when the run has been asked to stop
        answer = self._ask(write_request(samples))
        if 200 <= answer.status < 300:
            return 0
        late = answer.status == 409 or (answer.status == 400 and _LATE.search(answer.excerpt) is not None)
        if len(samples) > 1 and (late or answer.status == 413):
            half = len(samples) // 2
            return self._send(samples.slice(0, half), run) + self._send(samples.slice(half), run)
        if late:
            return 1
        if answer.status in (400, 413, 422):
            raise muxly.RejectedError(f"{self._receiver} answered {answer.status}: {answer.excerpt}")
        raise failure(answer, self._receiver)

    _receiver = "the receiver of remote_write"

    def _ask(self, message: bytes) -> HttpResponse:
        with needs("prometheus"):
            import cramjam
        return self.client.send(self._post(bytes(cramjam.snappy.compress_raw(message))))

    def _post(self, body: bytes) -> HttpRequest:
        """The request; its parts hold secrets, which must not lie in the variables of a call that may fail."""
        headers = dict(_HEADERS)
        if self.authorization is not None:
            headers["authorization"] = self.authorization.reveal()
        redaction = redaction_of(self.url.reveal(), self.url, self.authorization)
        return HttpRequest(url=self.url.reveal(), headers=headers, body=body, redaction=redaction)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def of_one_time(tables: Sequence[pa.Table], time: int) -> list[pa.Table]:
    """Series as samples of that time."""
    return [
        pa.table(
            {
                "labels": table.column("labels"),
                "value": table.column("value").cast(pa.float64(), safe=False),
                "time": pa.repeat(pa.scalar(time, pa.int64()), len(table)),
            }
        )
        for table in tables
        if len(table)
    ]


def distinct(samples: pa.Table, most_series: int) -> tuple[pa.Table, int]:
    """Of each series and time the last sample, of at most so many series; and how many were left out."""
    codes = samples.column("labels").combine_chunks().dictionary_encode()
    kept = pc.less(codes.indices, most_series)
    dropped = len(samples) - pc.sum(kept).as_py() if len(samples) else 0
    last = pc.ScalarAggregateOptions(skip_nulls=False, min_count=0)
    grouping = samples.filter(kept) if dropped else samples
    found = grouping.group_by(["labels", "time"], use_threads=False).aggregate([("value", "last", last)])
    return found.rename_columns(["labels", "time", "value"]).select(["labels", "value", "time"]), dropped


class RemoteWriteDelivery:
    """Delivers to a receiver of remote write, which keeps the history of the series.

    Args:
        run: The run.
        settings: What is made of records.
        remote_write: The receiver.
    """

    def __init__(self, run: muxly.Run, settings: PrometheusSettings, remote_write: RemoteWriteClient) -> None:
        self._run, self._remote = run, remote_write
        self._settings = settings
        timed = tuple(metric for metric in settings.metrics if metric.timestamp is not None)
        self._timed = evolve(settings, metrics=timed)
        self._untimed = evolve(settings, metrics=tuple(metric for metric in settings.metrics if metric not in timed))

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Send the delivery's samples; the ledger keeps the totals of counters and how far the log was counted."""
        stream_key = StreamKey(self._run.pipeline, self._run.route or "", delivery.stream.name)
        before = StreamSeries.from_state(delivery.state)
        at = sample_time(delivery.id, before.sent_at)
        merged = self._merged(before, delivery, stream_key, at // 1_000)
        history, nulls, dropped = self._history(delivery, stream_key)
        tables = [family.table for family in merged.series.families.values()]
        samples = [*of_one_time(tables, at), *history]
        state = self._kept(merged.series, at).to_ledger_state(stream_key.stream)
        progress = self._run.shared(f"muxly_routers.prometheus {stream_key}", SendProgress)
        late = self._remote.send(pa.concat_tables(samples), delivery.id, progress, self._run) if samples else 0
        report_omissions(
            self._run,
            stream_key.stream,
            self._settings.max_series,
            nulls=merged.nulls + nulls,
            dropped=merged.dropped + dropped,
            late=late,
        )
        return muxly.Receipt(merged.rejected, state=state)

    def _merged(self, series: StreamSeries, delivery: muxly.Delivery, stream_key: StreamKey, seen: int) -> MergeResult:
        """The totals of counters, and of gauges what this delivery says; at each attempt the same."""
        if self._settings.expire_seconds is not None:
            series = series.unexpired(int(seen - self._settings.expire_seconds))
        return merge(series, delivery, SampleReader(stream_key, self._untimed, _bytes, seen), labels=pa.binary())

    def _kept(self, series: StreamSeries, at: int) -> StreamSeries:
        """The series that the next delivery needs: no values of gauges."""
        counters = {metric.name for metric in self._untimed.metrics if metric.kind == "increments"}
        families = {
            name: family if name in counters else evolve(family, table=family.table.slice(0, 0))
            for name, family in series.families.items()
        }
        return evolve(series, families=families, sent_at=at)

    def _history(self, delivery: muxly.Delivery, stream_key: StreamKey) -> tuple[list[pa.Table], int, int]:
        """The samples of metrics with times; how many values or times are missing, and how many were left out."""
        reader = SampleReader(stream_key, self._timed, _bytes, seen=0)
        gathered: dict[str, list[pa.Table]] = {}
        nulls = dropped = 0
        for batch in self._taken(delivery, stream_key) if self._timed.metrics else ():
            for metric in self._timed.metrics:
                found = reader.samples(metric, batch)
                found = found.filter(found.column("time").is_valid()).select(["labels", "value", "time"])
                nulls += batch.num_rows - len(found)
                gathered.setdefault(metric.name, []).append(_floats(found))
        samples = []
        for tables in gathered.values():
            whole, more = distinct(pa.concat_tables(tables), self._settings.max_series)
            samples.append(whole)
            dropped += more
        return samples, nulls, dropped

    def _taken(self, delivery: muxly.Delivery, stream_key: StreamKey) -> Iterator[pa.RecordBatch]:
        """The records that no counter refuses."""
        reader = SampleReader(stream_key, self._untimed, _bytes, seen=0)
        for batch in delivery.batches():
            mask, _ = reader.accepted(batch)
            yield batch if mask is None else batch.filter(mask)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """There is no mode replace."""
        raise _no_replace()

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """There is no mode replace."""
        raise _no_replace()

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the receiver can be reached."""
        return reachable(self._remote.client, "remote_write")

    def close(self) -> None:
        """Close the connections."""
        self._remote.close()


def _no_replace() -> muxly.ConfigurationError:
    return muxly.ConfigurationError(
        "remote_write keeps what it was sent, so nothing can be replaced; write `mode: append`", path=("mode",)
    )


def _floats(samples: pa.Table) -> pa.Table:
    values = samples.column("value").cast(pa.float64(), safe=False)
    return samples.set_column(1, "value", values)


def _bytes(metric: MetricDefinition, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    return label_bytes(metric.sample, columns, count)


_EMPTY = pa.scalar(b"", pa.binary())
_NAME = "__name__"


def varint(number: int) -> bytes:
    """A number as protobuf writes it; negative ones as their two's complement of 64 bits."""
    number &= (1 << 64) - 1
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _each(numbers: pa.Array, write: Callable[[int], bytes]) -> pa.Array:
    """Apply a function to each number, once for those that are equal."""
    encoded = numbers.dictionary_encode()
    written = pa.array([write(number) for number in encoded.dictionary.to_pylist()], pa.binary())
    return written.take(encoded.indices)


def label_bytes(name: str, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    """The labels of each record's series, as the fields of a ``TimeSeries``.

    Args:
        name: The sample's name.
        columns: Pairs of label and its values as text, or one value for all.
        count: How many records there are.
    """
    pairs = sorted([(_NAME, name), *columns], key=lambda pair: pair[0])
    parts = [_label(label, values) for label, values in pairs]
    joined = pc.binary_join_element_wise(*parts, _EMPTY)
    return joined if isinstance(joined, pa.Array) else pa.repeat(joined, count)


def _label(label: str, values: pa.Array | str) -> pa.Array | pa.Scalar:
    """One label; nothing where its value is missing or empty."""
    start = b"\x0a" + varint(len(label.encode())) + label.encode() + b"\x12"

    def head(size: int) -> bytes:
        inner = start + varint(size)
        return b"\x0a" + varint(len(inner) + size) + inner if size else b""

    if isinstance(values, str):
        written = values.encode()
        return pa.scalar(head(len(written)) + written, pa.binary())
    present = pc.fill_null(values, "").cast(pa.binary())
    return pc.binary_join_element_wise(_each(pc.binary_length(present), head), present, _EMPTY)


def write_request(samples: pa.Table) -> bytes:
    """A ``WriteRequest`` of samples, in their order; compress it with snappy's block format.

    Args:
        samples: Columns ``labels`` (of ``label_bytes``), ``value`` and ``time`` (ms since 1970).
    """
    whole = samples.combine_chunks()
    return b"".join(joined_bytes(_series(batch)) for batch in whole.to_batches())


def _series(batch: pa.RecordBatch) -> pa.Array:
    labels = batch.column("labels")
    value = batch.column("value").cast(pa.float64(), safe=False)
    # Arrow keeps floats as the eight bytes that protobuf wants.
    eight = pa.Array.from_buffers(pa.binary(8), len(value), [None, value.buffers()[1]], offset=value.offset)
    time = _each(batch.column("time"), _time_field)
    sample_size = pc.add(pc.binary_length(time), 9)
    sample_head = _each(sample_size, lambda size: b"\x12" + varint(size) + b"\x09")
    size = pc.add(pc.add(pc.binary_length(labels), pc.binary_length(sample_head)), pc.add(sample_size, -1))
    head = _each(size, lambda number: b"\x0a" + varint(number))
    return pc.binary_join_element_wise(head, labels, sample_head, eight.cast(pa.binary()), time, _EMPTY)


def _time_field(milliseconds: int) -> bytes:
    return b"\x10" + varint(milliseconds)
