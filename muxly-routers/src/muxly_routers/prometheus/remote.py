"""Remote write: samples sent to Prometheus, or to what speaks its protocol, each with its own time.

A sample's time is its column's, or that of the delivery, which its id and the one before tell: a repeat
sends the same samples. Prometheus takes a sample again only if it is the newest of its series; of what it refuses as
out of order or as a duplicate, no more can be known than that it holds that time or a later one already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, frozen

import muxly
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers._failures import needs
from muxly_routers._http.outgoing import Outgoing
from muxly_routers.prometheus import protobuf
from muxly_routers.prometheus.answers import failure, hidden

if TYPE_CHECKING:
    from muxly_routers._http.answer import Answer
    from muxly_routers._http.client import Client

__all__ = ["Progress", "RemoteWrite", "distinct", "of_one_time", "sample_time"]

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
class Progress:
    """How much of a delivery was taken, known as long as the process lives.

    Args:
        delivery: Its id.
        samples: So many samples, from its first.
    """

    delivery: str = ""
    samples: int = 0

    def of(self, delivery: str) -> int:
        """How many samples of that delivery were taken."""
        if delivery != self.delivery:
            self.delivery, self.samples = delivery, 0
        return self.samples


@frozen
class RemoteWrite:
    """Sends samples to one URL.

    Args:
        client: Speaks with its site.
        url: Where to send them.
        authorization: A header of every request.
    """

    client: Client
    url: muxly.Secret
    authorization: muxly.Secret | None = None

    def send(self, samples: pa.Table, delivery: str, progress: Progress, run: muxly.Run) -> int:
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
        answer = self._ask(protobuf.requests(samples))
        if 200 <= answer.status < 300:
            return 0
        late = answer.status == 409 or (answer.status == 400 and _LATE.search(answer.excerpt) is not None)
        if len(samples) > 1 and (late or answer.status == 413):
            half = len(samples) // 2
            return self._send(samples.slice(0, half), run) + self._send(samples.slice(half), run)
        if late:
            return 1
        if answer.status in (400, 413, 422):
            raise muxly.RejectedError(f"{self._place} answered {answer.status}: {answer.excerpt}")
        raise failure(answer, self._place)

    _place = "the receiver of remote_write"

    def _ask(self, message: bytes) -> Answer:
        with needs("prometheus"):
            import cramjam
        return self.client.send(self._post(bytes(cramjam.snappy.compress_raw(message))))

    def _post(self, body: bytes) -> Outgoing:
        """The request; its parts hold secrets, which must not lie in the variables of a call that may fail."""
        headers = dict(_HEADERS)
        if self.authorization is not None:
            headers["authorization"] = self.authorization.reveal()
        repeated = hidden(self.url.reveal(), self.url, self.authorization)
        return Outgoing(url=self.url.reveal(), headers=headers, body=body, hidden=repeated)

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
