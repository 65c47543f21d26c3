"""A Prometheus Pushgateway: each stream is a group there, replaced as a whole by every push.

https://github.com/prometheus/pushgateway#command-line: PUT replaces all metrics of a grouping key, so a
push that is repeated changes nothing, and a series that is not pushed any more is gone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import frozen

import muxly
from muxly_routers._http.outgoing import HttpRequest
from muxly_routers.prometheus.answers import failure, hidden, reachable
from muxly_routers.prometheus.exposition import CONTENT_TYPES, MetricFamily, render

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient
    from muxly_routers.prometheus.settings import StreamKey

__all__ = ["PushgatewayOutlet", "group_path"]


@frozen
class PushgatewayOutlet:
    """The groups of one route.

    Args:
        client: Speaks with the gateway.
        url: Its root.
        authorization: A header of every request.
        job: The job of all groups.
        stream_label: The label of a group that has the stream's name.
        grouping: More labels of all groups.
    """

    client: HttpClient
    url: muxly.Secret
    authorization: muxly.Secret | None
    job: str
    stream_label: str
    grouping: Mapping[str, str]

    def publish(self, unit: StreamKey, exposed: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RetryableError: The gateway is away or busy.
            RouteError: It refuses.
        """
        answer = self.client.send(self._push(unit, render(exposed, "text", times=False)))
        if not 200 <= answer.status < 300:
            raise failure(answer, f"the Pushgateway, asked to take stream {unit.stream!r},")

    def _push(self, unit: StreamKey, body: bytes) -> HttpRequest:
        """The request; its parts hold secrets, which must not lie in the variables of a call that may fail."""
        labels = {**self.grouping, "route": unit.route, self.stream_label: unit.stream}
        url = f"{self.url.reveal().rstrip('/')}/metrics/{group_path(self.job, labels)}"
        headers = {"content-type": CONTENT_TYPES["text"]}
        if self.authorization is not None:
            headers["authorization"] = self.authorization.reveal()
        repeated = hidden(url, self.url, self.authorization)
        return HttpRequest(method="PUT", url=url, headers=headers, body=body, hidden=repeated)

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the gateway answers at all."""
        return reachable(self.client, "pushgateway")

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def group_path(job: str, labels: Mapping[str, str]) -> str:
    """The path of a group: ``job/daily/stream/contacts``; what a path cannot hold is in base64."""
    pairs = [("job", job), *sorted((name, value) for name, value in labels.items() if value)]
    return "/".join(_step(name, value) for name, value in pairs)


def _step(name: str, value: str) -> str:
    if value in (".", "..") or "/" in value or not value.isprintable():
        return f"{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode()}"
    return f"{name}/{quote(value, safe='')}"
