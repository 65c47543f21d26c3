"""Pushes over HTTP: errors and redaction, and a Prometheus Pushgateway as an outlet.

https://github.com/prometheus/pushgateway#command-line: each stream is a group there, and PUT replaces all metrics
of a grouping key. So a push that is repeated changes nothing, and a series that is not pushed any more is gone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import frozen

import muxly
from muxly_routers._http.messages import HttpRequest, HttpResponse, Redaction
from muxly_routers.prometheus.exposition import CONTENT_TYPES, MetricFamily, render
from muxly_routers.prometheus.options import StreamKey

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient

__all__ = ["PushgatewayOutlet", "failure", "group_path", "reachable", "redaction_of"]


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

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RetryableError: The gateway is away or busy.
            RouteError: It refuses.
        """
        answer = self.client.send(self._push(stream_key, render(families, "text", times=False)))
        if not 200 <= answer.status < 300:
            raise failure(answer, f"the Pushgateway, asked to take stream {stream_key.stream!r},")

    def _push(self, stream_key: StreamKey, body: bytes) -> HttpRequest:
        """The request; its parts hold secrets, which must not lie in the variables of a call that may fail."""
        labels = {**self.grouping, "route": stream_key.route, self.stream_label: stream_key.stream}
        url = f"{self.url.reveal().rstrip('/')}/metrics/{group_path(self.job, labels)}"
        headers = {"content-type": CONTENT_TYPES["text"]}
        if self.authorization is not None:
            headers["authorization"] = self.authorization.reveal()
        redaction = redaction_of(url, self.url, self.authorization)
        return HttpRequest(method="PUT", url=url, headers=headers, body=body, redaction=redaction)

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the gateway can be reached."""
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


_LATER = {408, 425, 429}


def failure(answer: HttpResponse, server: str) -> muxly.MuxlyError:
    """The error that an answer which is no success comes to.

    Args:
        answer: What the server said.
        server: What was asked, in words that hold no secret.
    """
    message = f"{server} answered {answer.status}"
    if answer.excerpt:
        message = f"{message}: {answer.excerpt}"
    if answer.status in _LATER or answer.status >= 500:
        return muxly.RetryableError(message, retry_after=answer.retry_after)
    if answer.status in (401, 403):
        return muxly.RouteError(f"{message}; see basic and bearer of this route")
    if 300 <= answer.status < 400:
        return muxly.RouteError(f"{message}; redirects are not followed: write the URL that it leads to")
    return muxly.RouteError(f"{message}; see the URL of this route and what the server wants")


def redaction_of(asked: str, url: muxly.Secret, authorization: muxly.Secret | None) -> Redaction:
    """Everything secret that an answer may repeat.

    Args:
        asked: The URL of the request.
        url: The configured URL, which it begins with.
        authorization: The value of the header ``Authorization``.
    """
    secrets = [] if authorization is None else authorization.reveal().split(" ", 1)
    return Redaction.of_request(asked, url, secrets)


def reachable(client: HttpClient, option: str) -> Iterator[muxly.Notice]:
    """Check that something listens at the URL; nothing is requested."""
    try:
        client.probe()
    except (muxly.RetryableError, muxly.RouteError) as error:
        yield muxly.Notice("not_reachable", f"{option}: {error}", level="error")
