"""Requests end in time, answers stay small, certificates are checked, and nothing is followed anywhere."""

from __future__ import annotations

import gzip
import ssl
import threading
import warnings
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import trustme

import muxly
from muxly_routers._http import messages
from muxly_routers._http.client import HttpClient, HttpLimits, UnreadableContentError, decoded
from muxly_routers._http.credentials import Tls
from muxly_routers._http.egress import Guard, forbidden, system_lookup
from muxly_routers._http.messages import HttpRequest
from muxly_routers._http.network import site
from tests.http_receiver import Receiver, Reply, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from muxly_routers._http.messages import HttpResponse

GUARD = Guard(on=True)
QUICK = HttpLimits(connect_seconds=0.5, read_seconds=0.5, total_seconds=0.5)


@pytest.fixture
def client_of() -> Iterator[Callable[..., HttpClient]]:
    """Makes clients, and closes them."""
    made: list[HttpClient] = []

    def make(url: str, **options: Any) -> HttpClient:
        made.append(HttpClient(url, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def post(client: HttpClient, url: str, body: bytes = b"[1]") -> HttpResponse:
    return client.send(HttpRequest(url=url, headers={"X-Mine": "yes"}, body=body))


@pytest.fixture
def ask(receiver: Receiver, client_of: Callable[..., HttpClient]) -> Callable[..., HttpResponse]:
    """Posts to the server, which answers as it is told."""

    def asked(reply: Reply, **limits: Any) -> HttpResponse:
        receiver.script(reply)
        return post(client_of(receiver.url, limits=HttpLimits(**limits)), receiver.url)

    return asked


def test_request_arrives_as_it_is(receiver: Receiver, client_of: Callable[..., HttpClient]) -> None:
    answer = post(client_of(receiver.url), receiver.url, b'{"a": 1}')
    (seen,) = receiver.seen
    assert (answer.status, seen.method, seen.path, seen.body) == (200, "POST", "/hook", b'{"a": 1}')
    assert seen.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "user-agent": "muxly",
        "accept-encoding": "identity",
        "x-mine": "yes",
        "content-length": "8",
    }


def test_connection_is_used_again_and_cookies_are_not(receiver: Receiver, client_of: Callable[..., HttpClient]) -> None:
    receiver.respond = lambda seen: Reply(body=b"ok", headers=(("Set-Cookie", "a=b"),))
    client = client_of(receiver.url)
    for _ in range(3):
        post(client, receiver.url)
    assert [one.connection for one in receiver.seen] == [1, 1, 1]
    assert all("cookie" not in one.headers for one in receiver.seen)


def test_redirect_is_an_answer_like_others(receiver: Receiver, ask: Callable[..., HttpResponse]) -> None:
    answer = ask(Reply(307, headers=(("Location", f"{receiver.url}/elsewhere"),)))
    assert answer.status == 307
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("cut", ["request", "lost", "answer"])
def test_connection_that_breaks_is_worth_another_try(ask: Callable[..., HttpResponse], cut: Any) -> None:
    with pytest.raises(muxly.RetryableError, match=r"^http://127\.0\.0\.1:\d+: ."):
        ask(Reply(cut=cut, body=b"x" * 100))


def test_answer_that_ends_early_is_not_taken_for_whole(ask: Callable[..., HttpResponse]) -> None:
    with pytest.raises(muxly.RetryableError, match="without sending complete message body"):
        ask(Reply(cut="close", body=b"x" * 100))


def test_reset_of_a_new_connection_is_worth_another_try(
    receiver: Receiver, client_of: Callable[..., HttpClient]
) -> None:
    receiver.reset_on_accept = 1
    with pytest.raises(muxly.RetryableError, match=r"127\.0\.0\.1"):
        post(client_of(receiver.url), receiver.url)


def test_reset_in_the_handshake_is_worth_another_try(
    secure_receiver: Callable[..., Receiver], client_of: Callable[..., HttpClient], authority_file: Path
) -> None:
    server = secure_receiver()
    server.reset_on_accept = 1
    client = client_of(server.url, tls=Tls(ca=authority_file))
    with pytest.raises(muxly.RetryableError, match=r"127\.0\.0\.1"):
        post(client, server.url)
    assert post(client, server.url).status == 200


def test_old_tls_ends_the_route(
    secure_receiver: Callable[..., Receiver],
    client_of: Callable[..., HttpClient],
    authority_file: Path,
) -> None:
    server = secure_receiver()
    assert server.tls is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.tls.minimum_version = ssl.TLSVersion.TLSv1
        server.tls.maximum_version = ssl.TLSVersion.TLSv1_1
    server.tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(muxly.RouteError, match=r"TLS is not possible: .*PROTOCOL"):
        client_of(server.url, tls=Tls(ca=authority_file)).probe()


def test_nobody_listens(receiver: Receiver, client_of: Callable[..., HttpClient]) -> None:
    url = receiver.url
    receiver.__exit__()
    client = client_of(url)
    told = r"no connection to 127\.0\.0\.1, port \d+: Connection refused; is the server running there, and does a fire"
    with pytest.raises(muxly.RetryableError, match=told):
        post(client, url)
    with pytest.raises(muxly.RetryableError, match=told):
        client.probe()
    receiver.__enter__()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(hold=True),
        Reply(hold=True, cut="answer", body=b"x" * 1000),
        Reply(drip_seconds=0.05, body=b"x" * 1000),
        Reply(drip_seconds=0.05, raw=b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 1000),
    ],
    ids=["black hole", "stall in the answer", "slow answer", "slow headers"],
)
def test_request_ends_in_time_however_slow_the_server_is(
    receiver: Receiver, client_of: Callable[..., HttpClient], reply: Reply
) -> None:
    receiver.script(reply)
    with pytest.raises(
        muxly.RetryableError,
        match=r"(in time|within total_seconds|timed out); is the server stuck or busy\?.*raise the limit",
    ):
        post(client_of(receiver.url, limits=QUICK), receiver.url)


def test_run_that_stops_waits_for_an_answer_only_a_little(
    receiver: Receiver, client_of: Callable[..., HttpClient]
) -> None:
    stop = threading.Event()

    def respond(seen: Seen) -> Reply:
        stop.set()
        return Reply(hold=True)

    receiver.respond = respond
    client = client_of(receiver.url, limits=HttpLimits(grace_seconds=0.1), stopping=stop.is_set)
    with pytest.raises(muxly.RetryableError, match="no answer since the run was asked to stop"):
        post(client, receiver.url)


def test_answer_in_many_records_of_tls_is_read_to_its_end(
    secure_receiver: Callable[..., Receiver], client_of: Callable[..., HttpClient], authority_file: Path
) -> None:
    server = secure_receiver()
    server.respond = lambda seen: Reply(body=bytes(900_000))
    answer = post(client_of(server.url, tls=Tls(ca=authority_file)), server.url)
    assert (answer.body, answer.whole) == (bytes(900_000), True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * (10 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: a\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Nul: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 100,
    ],
    ids=["10 MB header", "20,000 headers", "NUL", "length", "chunk", "ssh", "zeros"],
)
def test_answer_that_is_no_http_is_worth_another_try(ask: Callable[..., HttpResponse], raw: bytes) -> None:
    with pytest.raises(muxly.RetryableError, match=r"^http://127\.0\.0\.1:\d+: ."):
        ask(Reply(raw=raw))


def test_long_answer_is_cut(ask: Callable[..., HttpResponse]) -> None:
    answer = ask(Reply(body=b"x" * 5000), answer_bytes=1000)
    assert (len(answer.body), answer.whole) == (1000, False)


def brotli_or_zstd(codec: str, size: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as out:
        out.write(bytes(size))
    return bytes(sink.getvalue())


def shown(value: str | bytes) -> str:
    """How a value is called in a test's name; compressed bytes hold the time."""
    return value if isinstance(value, str) else f"{len(value)} bytes"


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", gzip.compress(bytes(8 << 20))),
        ("x-gzip", gzip.compress(bytes(1 << 20))),
        ("deflate", zlib.compress(bytes(8 << 20))),
        ("br", brotli_or_zstd("brotli", 8 << 20)),
        ("zstd", brotli_or_zstd("zstd", 8 << 20)),
    ],
    ids=shown,
)
def test_bomb_is_cut(ask: Callable[..., HttpResponse], coding: str, content: bytes) -> None:
    answer = ask(Reply(body=content, headers=(("Content-Encoding", coding),)), answer_bytes=70_000)
    assert (answer.body, answer.whole) == (bytes(70_000), False)


def test_bomb_in_a_bomb_is_cut() -> None:
    inner = gzip.compress(bytes(8 << 20))
    assert decoded(gzip.compress(inner), "gzip, gzip", 100_000) == (bytes(100_000), True)


@pytest.mark.parametrize(
    ("coding", "content", "expected"),
    [
        ("", b"plain", b"plain"),
        ("identity", b"plain", b"plain"),
        ("gzip", gzip.compress(b"plain"), b"plain"),
        ("GZIP", gzip.compress(b"plain"), b"plain"),
        ("deflate", zlib.compress(b"plain"), b"plain"),
        ("deflate", zlib.compress(b"plain")[2:-4], b"plain"),
        ("deflate, gzip", gzip.compress(zlib.compress(b"plain")), b"plain"),
        ("br", brotli_or_zstd("brotli", 10), bytes(10)),
        ("zstd", brotli_or_zstd("zstd", 10), bytes(10)),
    ],
    ids=shown,
)
def test_content_is_decoded(coding: str, content: bytes, expected: bytes) -> None:
    assert decoded(content, coding, 1000) == (expected, False)


@pytest.mark.parametrize(
    ("coding", "content"), [("gzip", gzip.compress(b"plain")), ("deflate", zlib.compress(b"plain"))], ids=shown
)
def test_content_that_ends_early_is_not_taken_for_whole(coding: str, content: bytes) -> None:
    assert decoded(content[:-3], coding, 1000) == (b"plain", True)


@pytest.mark.parametrize(
    ("coding", "content"),
    [("gzip", b"plain"), ("br", b"plain"), ("zstd", b"plain"), ("rot13", b"plain"), ("gzip,gzip,gzip", b"")],
)
def test_wrong_coding_is_an_error(coding: str, content: bytes) -> None:
    with pytest.raises(UnreadableContentError, match=r"it is|its coding"):
        decoded(content, coding, 1000)


def test_wrong_coding_leaves_the_status(ask: Callable[..., HttpResponse]) -> None:
    answer = ask(Reply(503, b"plain", headers=(("Content-Encoding", "gzip"), ("Retry-After", "7"))))
    assert (answer.status, answer.body, answer.whole, answer.retry_after) == (503, b"", False, 7.0)


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-5", None),
        ("1000000000", 3600.0),
        ("1.500000000000000000000", 1.5),
        ("9" * 5000, 3600.0),
        ("1e9", None),
        ("nan", None),
        ("soon", None),
        ("5, 10", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30.0),
        (format_datetime(NOW - timedelta(days=900), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=900), usegmt=True), 3600.0),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
        ("x" * 1000, None),
    ],
)
def test_retry_after_in_every_form(header: str | None, expected: float | None) -> None:
    assert messages.parse_retry_after(header, now=NOW) == expected


def test_good_certificate_is_trusted_with_its_authority(
    secure_receiver: Callable[..., Receiver], client_of: Callable[..., HttpClient], authority_file: Path
) -> None:
    server = secure_receiver()
    client = client_of(server.url, tls=Tls(ca=authority_file))
    client.probe()
    assert post(client, server.url).status == 200


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unknown", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("wrong host", "(?i)ip address mismatch"),
        ("self-signed", "certificate cannot be trusted"),
    ],
)
def test_bad_certificate_ends_the_route(
    secure_receiver: Callable[..., Receiver],
    client_of: Callable[..., HttpClient],
    authority: trustme.CA,
    authority_file: Path,
    kind: str,
    message: str,
) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    certificate = {
        "expired": lambda: authority.issue_cert("127.0.0.1", not_after=past),
        "wrong host": lambda: authority.issue_cert("elsewhere.example"),
        "self-signed": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }.get(kind, lambda: None)()
    server = secure_receiver(certificate)
    client = client_of(server.url, tls=Tls() if kind == "unknown" else Tls(ca=authority_file))
    with pytest.raises(muxly.RouteError, match=message):
        post(client, server.url)
    with pytest.raises(muxly.RouteError, match=message):
        client.probe()
    assert server.seen == []


def test_client_certificate_is_shown(
    secure_receiver: Callable[..., Receiver],
    client_of: Callable[..., HttpClient],
    authority: trustme.CA,
    authority_file: Path,
    tmp_path: Path,
) -> None:
    server = secure_receiver(ask=True)
    mine = authority.issue_cert("client@example.com")
    mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mine.pem"))
    with pytest.raises(muxly.RouteError, match="TLS is not possible"):
        post(client_of(server.url, tls=Tls(ca=authority_file)), server.url)
    client = client_of(server.url, tls=Tls(ca=authority_file, certificate=tmp_path / "mine.pem"))
    assert post(client, server.url).status == 200


def test_tls_spoken_to_a_plain_server_ends_the_route(receiver: Receiver, client_of: Callable[..., HttpClient]) -> None:
    url = receiver.url.replace("http:", "https:")
    receiver.respond = lambda seen: Reply()
    with pytest.raises((muxly.RouteError, muxly.RetryableError), match=r"127\.0\.0\.1"):
        post(client_of(url, limits=QUICK), url)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("ca", None, "No such file"), ("ca", "not PEM", "no certificate"), ("certificate", "not PEM", "cannot be used")],
)
def test_wrong_files_are_a_wrong_configuration(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(muxly.ConfigurationError, match=message) as caught:
        HttpClient("https://localhost/", tls=Tls(ca=path) if name == "ca" else Tls(certificate=path))
    assert caught.value.path == ("tls", name)


def test_key_without_certificate_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(muxly.ConfigurationError, match="key is given without certificate"):
        HttpClient("https://localhost/", tls=Tls(key=tmp_path / "key.pem"))


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "", "http://", "file:///etc/passwd", "http://[::1", "https://user:hunter2@host/", "http://a\x00b/"],
)
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="URL") as caught:
        HttpClient(url)
    assert "hunter2" not in str(caught.value)


def test_site_shows_neither_path_nor_query() -> None:
    assert site("https://hooks.example.com:8443/T000/secret?token=1") == "https://hooks.example.com:8443"


HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.127.127.127",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "00.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost.localdomain",
    "ip6-localhost",
    "user@127.0.0.1",
    "8.8.8.8@127.0.0.1",
    "127.0.0.1%2f8.8.8.8",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "ⓛocalhost",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "172.17.0.1",
    "192.168.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "127.0.0.1\\@8.8.8.8",
    "8.8.8.8#@127.0.0.1",
]


@pytest.mark.parametrize("host", HOSTS)
def test_guarded_client_reaches_nothing_inside(
    receiver: Receiver, client_of: Callable[..., HttpClient], host: str
) -> None:
    url = f"http://{host}:{receiver.port}/hook"
    outside: list[str] = []

    def lookup(name: str, port: int) -> list[str]:
        """The system's resolver; what is public is not really asked for in a test."""
        found = system_lookup(name, port)
        outside.extend(one for one in found if forbidden(ip_address(one)) is None)
        return [] if outside else found

    with pytest.raises((muxly.RouteError, muxly.ConfigurationError, muxly.RetryableError), match=r"."):
        post(client_of(url, guard=GUARD, lookup=lookup, limits=QUICK), url)
    assert receiver.accepted == 0


def test_name_that_changes_its_address_is_connected_to_where_it_was_checked(
    receiver: Receiver, client_of: Callable[..., HttpClient]
) -> None:
    asked: list[str] = []

    def flipping(host: str, port: int) -> list[str]:
        """Public when it is asked for the first time, loopback from then on."""
        asked.append(host)
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    # 192.0.2.1 stands for a public address: it is allowed, and nobody answers there.
    guard = Guard(on=True, allowed=(ip_network("192.0.2.0/24"),))
    url = f"http://rebind.example:{receiver.port}/hook"
    client = client_of(url, guard=guard, lookup=flipping, limits=QUICK)
    with pytest.raises(muxly.RetryableError, match=r"rebind\.example"):
        post(client, url)
    assert asked == ["rebind.example"]
    with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
        post(client, url)
    assert receiver.accepted == 0


def test_guarded_client_checks_the_certificate_by_name(
    secure_receiver: Callable[..., Receiver],
    client_of: Callable[..., HttpClient],
    authority: trustme.CA,
    authority_file: Path,
) -> None:
    server = secure_receiver(authority.issue_cert("hooks.example"))
    guard = Guard(on=True, allowed=(ip_network("127.0.0.0/8"),))
    options: dict[str, Any] = {
        "guard": guard,
        "tls": Tls(ca=authority_file),
        "lookup": lambda host, port: ["127.0.0.1"],
    }
    good, wrong = (f"https://{name}:{server.port}/hook" for name in ("hooks.example", "other.example"))
    assert post(client_of(good, **options), good).status == 200
    assert server.seen[0].headers["host"] == f"hooks.example:{server.port}"
    with pytest.raises(muxly.RouteError, match="Hostname mismatch"):
        post(client_of(wrong, **options), wrong)


def test_proxy_of_the_environment_is_used(
    receiver: Receiver, client_of: Callable[..., HttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{receiver.port}")
    client = client_of("http://away.example/hook")
    post(client, "http://away.example/hook")
    assert receiver.seen[0].path == "http://away.example/hook"
    assert receiver.seen[0].headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
    client.probe()


def test_proxy_is_passed_by_where_the_environment_says_so(
    receiver: Receiver, client_of: Callable[..., HttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert post(client_of(receiver.url), receiver.url).status == 200


def test_guarded_client_uses_no_proxy(
    receiver: Receiver, client_of: Callable[..., HttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{receiver.port}")
    url = "http://10.0.0.1/hook"
    with pytest.raises(muxly.RouteError, match="private"):
        post(client_of(url, guard=GUARD), url)
    assert receiver.accepted == 0


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("socks5://127.0.0.1:1080", "with socks5://, which"),
        ("http://[::1", "that is not a URL"),
        ("http://", "with http"),
    ],
)
def test_proxy_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, proxy: str, problem: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(muxly.ConfigurationError, match=rf"names a proxy {problem}.* NO_PROXY"):
        HttpClient("http://away.example/")
