"""Options of the Prometheus router: mistakes are found before anything is read, and named."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import muxly
import muxly.config
from muxly import Secret
from muxly.component import Run
from muxly_routers._http.credentials import Tls
from muxly_routers.prometheus import Basic, Metric, Prometheus, pushgateway
from muxly_testing import delivery

GAUGE = Metric(column="n")


def made(**options: Any) -> Prometheus:
    return Prometheus(**{"metrics": {"m": GAUGE}, "textfile": Path("node"), **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"textfile": None}, r"one way out of textfile, listen, pushgateway, remote_write, and there is none"),
        ({"listen": "127.0.0.1:1"}, r"and there are textfile and listen"),
        ({"metrics": {}}, r"metrics: name one or more metrics"),
        ({"metrics": {"1m": GAUGE}}, r"'1m' cannot be a metric: use letters, digits"),
        ({"metrics": {"naïve": GAUGE}}, r"'naïve' cannot be a metric"),
        ({"metrics": {"m_total": GAUGE}}, r"'m_total' ends in _total, which only a counter may"),
        ({"metrics": {"m_bucket": GAUGE}}, r"'m_bucket' ends in _bucket, which Prometheus keeps"),
        ({"metrics": {"muxly_runs": GAUGE}}, r"'muxly_runs' begins with muxly_, as Muxly's own metrics do"),
        ({"operations": True}, r"operations is for listen, and this route has textfile"),
        ({"metrics": {"m": Metric(column="n", unit="bytes")}}, r"has a name that ends in _bytes, and 'm' does not"),
        (
            {"metrics": {"m_total": Metric(column="n", unit="bytes", type="counter")}},
            r"has a name that ends in _bytes_total, and 'm_total' does not",
        ),
        (
            {"metrics": {"m": GAUGE, "m_total": Metric(column="n", type="counter")}},
            r"'m' and 'm_total' would both be the family 'm'",
        ),
        ({"metrics": {"m": Metric()}}, r"'m' needs a column; only a counter that adds up has none"),
        ({"metrics": {"m": Metric(type="counter", cumulative=True)}}, r"'m' needs a column"),
        ({"metrics": {"m": Metric(column="n", cumulative=True)}}, r"'m' is cumulative, which only a counter can be"),
        ({"metrics": {"m": Metric(type="counter", timestamp="at")}}, r"'m' adds values up, which has no time but now"),
        ({"metrics": {"m": Metric(column="n", timestamp="at")}}, r"'m' has a timestamp, which textfile cannot carry"),
        ({"metrics": {"m": Metric(column="n", labels=["stream"])}}, r"stream_label: 'stream' is a label of metric 'm'"),
        ({"stream_label": "a-b"}, r"stream_label: 'a-b' cannot be a label"),
        ({"stream_label": "__name__"}, r"those that begin with '__' are Prometheus' own"),
        ({"job": "x"}, r"job is for pushgateway, and this route has textfile"),
        ({"grouping": {"a": "b"}}, r"grouping is for pushgateway"),
        (
            {"bearer": Secret("t")},
            r"bearer is for listen and pushgateway and remote_write, and this route has textfile",
        ),
        ({"basic": Basic(user="u", password=Secret("p"))}, r"basic is for listen and pushgateway and remote_write"),
        (
            {"textfile": None, "listen": "127.0.0.1:1", "tls": Tls(certificate=Path("c.pem"))},
            r"tls is for pushgateway and remote_write, and this route has listen",
        ),
        (
            {
                "textfile": None,
                "listen": "127.0.0.1:1",
                "bearer": Secret("t"),
                "basic": Basic(user="u", password=Secret("p")),
            },
            r"bearer and basic both say who may read or write; give one of them",
        ),
        ({"max_series": 0}, r"max_series"),
        ({"expire_seconds": 0}, r"expire_seconds"),
        ({"textfile": None, "listen": "9464"}, r"'9464' is not an address to listen at; write HOST:PORT"),
        ({"textfile": None, "listen": "127.0.0.1:99999"}, r"is not an address to listen at"),
        ({"textfile": None, "listen": "/metrics:80"}, r"is not an address to listen at"),
        (
            {"textfile": None, "pushgateway": Secret("http://x"), "grouping": {"job": "x"}},
            r"grouping: 'job' is in every group already",
        ),
        (
            {
                "textfile": None,
                "pushgateway": Secret("http://x"),
                "metrics": {"m": Metric(column="n", labels=["route"])},
            },
            r"the label 'route' of 'm' would be overwritten",
        ),
        (
            {
                "textfile": None,
                "pushgateway": Secret("http://x"),
                "stream_label": "",
                "metrics": {"m": Metric(column="n", labels=["stream"])},
            },
            r"the label 'stream' of 'm' would be overwritten",
        ),
        (
            {"textfile": None, "remote_write": Secret("http://x"), "keep": Path("x")},
            r"keep is for textfile and listen and pushgateway, and this route has remote_write",
        ),
    ],
)
def test_mistake_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(**options)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "a"], r"labels has 'a' twice"),
        ({"1a": "x"}, r"labels: '1a' cannot be a label"),
        ({"__a": "x"}, r"labels: '__a' cannot be a label"),
    ],
)
def test_label_that_cannot_be_is_named(labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Metric(column="n", labels=labels)


def test_file_of_a_pipeline_says_where_the_mistake_is(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("n\n1\n")
    path = tmp_path / "muxly.yaml"
    path.write_text(
        """\
version: 1
pipelines:
  daily:
    connector: {type: file, path: data.csv}
    routes:
      metrics:
        router:
          type: prometheus
          textfile: node
          metrics:
            m: {column: n, typ: gauge}
            1m: {column: n, labels: {a: n}}
"""
    )
    with pytest.raises(muxly.ConfigurationError, match=r"muxly.yaml:11:\d+: .*typ.*did you mean \"type\"\?"):
        muxly.config.load(path).validate()
    path.write_text(path.read_text().replace("typ: gauge", "type: gauge"))
    with pytest.raises(muxly.ConfigurationError, match=r"muxly.yaml:\d+:\d+: .*'1m' cannot be a metric"):
        muxly.config.load(path).validate()


@pytest.mark.parametrize("way", ["pushgateway", "remote_write"])
def test_url_with_a_password_is_refused_without_showing_it(way: str) -> None:
    router = made(textfile=None, **{way: Secret("http://me:hunter2@127.0.0.1:1/x")})
    router.open(Run("01B", "daily"))
    with pytest.raises(muxly.ConfigurationError, match=rf"{way}: .*use basic or bearer") as raised:
        router.deliver(delivery([{"n": 1}]))
    assert raised.value.path == (way,)
    assert "hunter2" not in f"{raised.value!r} {router!r} {raised.value.__cause__} {raised.value.__context__!r}"


def test_path_of_a_group_holds_any_name() -> None:
    path = pushgateway.group_path("my job", {"stream": "a/b", "route": "..", "x": "", "z": "naïve?&#", "line": "a\nb"})
    assert path == "job/my%20job/line@base64/YQpi/route@base64/Li4=/stream@base64/YS9i/z/na%C3%AFve%3F%26%23"


def test_file_is_readable_for_the_node_exporter_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        router = made(textfile=tmp_path / "node")
        router.open(Run("01B", "daily", route="metrics"))
        router.deliver(delivery([{"n": 1}], "a/b"))
    finally:
        os.umask(before)
    [file] = (tmp_path / "node").glob("*.prom")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.name.startswith("daily.metrics.a-b-")
    [kept] = (tmp_path / "node" / ".muxly").rglob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_drafts_of_killed_runs_are_swept_and_those_of_others_are_not(tmp_path: Path) -> None:
    name = "daily.numbers.prom"
    old, foreign, newer = (tmp_path / one for one in (f".{name}.3.draft", f".{name}.x.draft", f".{name}.9.draft"))
    for path in (old, foreign, newer):
        path.write_text("half")
    router = made(textfile=tmp_path)
    router.open(Run("01B", "daily", token=7))
    router.deliver(delivery([{"n": 1}]))
    assert (old.exists(), foreign.exists(), newer.exists()) == (False, True, True)


def test_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "daily.numbers.prom").symlink_to(target)
    router = made(textfile=tmp_path / "node")
    router.open(Run("01B", "daily"))
    with pytest.raises(muxly.RouteError, match=r"is not a file and is not replaced"):
        router.deliver(delivery([{"n": 1}]))
    assert target.read_text() == "keep me"


def test_kept_series_that_are_damaged_are_an_error_and_not_a_new_beginning(tmp_path: Path) -> None:
    router = made(textfile=tmp_path)
    router.open(Run("01B", "daily"))
    router.deliver(delivery([{"n": 1}]))
    [kept] = (tmp_path / ".muxly").rglob("*.json")
    kept.write_bytes(kept.read_bytes()[:-7])
    with pytest.raises(
        muxly.RouteError, match=r"visible.json is damaged; remove it, and `muxly replay` fills it again"
    ):
        router.deliver(delivery([{"n": 1}]))


def test_check_tells_what_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options in (
        {"textfile": tmp_path / "file"},
        {"textfile": None, "pushgateway": Secret("http://127.0.0.1:1/hidden")},
        {"textfile": None, "remote_write": Secret("http://127.0.0.1:1/hidden")},
    ):
        router = made(**options)
        router.open(Run("01B", "daily"))
        [notice] = router.check()
        assert notice.level == "error"
        assert "hidden" not in notice.message
        router.close()


def test_importing_the_router_loads_no_library_that_only_some_ways_out_need() -> None:
    code = "import sys, muxly_routers.prometheus; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pyarrow", "httpx2", "httpcore2", "cramjam", "prometheus_client", "ssl", "http.server"}
    assert not heavy & set(done.stdout.split())
