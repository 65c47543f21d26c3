"""What the expositions say: read back by other programs, whatever the labels and values are."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as text

import muxly
from muxly_routers.prometheus import Metric, Prometheus, options
from muxly_routers.prometheus import samples as values
from muxly_routers.prometheus.exposition import MetricFamily, render
from muxly_routers.prometheus.options import MetricDefinition
from muxly_routers.prometheus.samples import label_text
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = (
    'quo"te',
    "back\\slash",
    "new\nline",
    'all\\"\n',
    "\\n is no line end",
    "ends with \\",
    "comma, brace }",
    '",evil="1',
    "naïve 日本語 👩‍💻",
    "tab\tcarriage\rreturn",
    "\u2028 separator \x85",
    "nul \x00 bell \x07",
    "# HELP x y",
    " ",
    "a" * 70_000,
)


openmetrics: Any = openmetrics_parser.text_string_to_metric_families


def table(values: Any, labels: pa.Array | None = None, times: Any = None) -> pa.Table:
    """Series as they are kept."""
    count = len(values)
    text_of = (
        labels
        if labels is not None
        else label_text([("n", pa.array([str(n) for n in range(count)], pa.string()))], count)
    )
    stamps = pa.array(times, pa.int64()) if times else pa.nulls(count, pa.int64())
    return pa.table({"labels": text_of, "value": values, "time": stamps, "seen": pa.array([0] * count, pa.int64())})


def gauge(name: str = "m", **facts: Any) -> MetricDefinition:
    return MetricDefinition(name=name, column="c", help=facts.pop("help", "What it is."), **facts)


def samples(parse: Any, content: bytes) -> list[Any]:
    return [one for family in parse(content.decode()) for one in family.samples]


label_values = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(HOSTILE)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(label_values, st.none() | label_values), min_size=1, max_size=8))
def test_any_label_value_is_read_back(given: list[tuple[str, str | None]]) -> None:
    one, two = (pa.array([row[at] for row in given], pa.string()) for at in (0, 1))
    found = table(pa.array(range(len(given))), label_text([("one", one), ("two", two)], len(given)))
    wanted = [{k: v for k, v in zip(("one", "two"), row, strict=True) if v} for row in given]
    for format in ("openmetrics", "text"):
        content = render([MetricFamily(gauge(), [found])], format)
        lines = content.decode().split("\n")
        assert len(lines) == len(given) + (4 if format == "openmetrics" else 3)
    assert [one.labels for one in samples(text, render([MetricFamily(gauge(), [found])], "text"))] == wanted
    # The reference parser takes each label set once.
    if len({tuple(sorted(one.items())) for one in wanted}) == len(wanted):
        content = render([MetricFamily(gauge(), [found])], "openmetrics")
        assert [one.labels for one in samples(openmetrics, content)] == wanted


def test_hostile_labels_pass_promtool(promtool: Callable[[bytes], str]) -> None:
    found = table(pa.array(range(len(HOSTILE))), label_text([("label", pa.array(HOSTILE))], len(HOSTILE)))
    content = render([MetricFamily(gauge("hostile", help='Back\\slash, "quote" and\nline end.'), [found])], "text")
    assert promtool(content) == ""
    assert [one.labels["label"] for one in samples(text, content)] == list(HOSTILE)


def test_integers_are_exact_and_floats_are_given_back() -> None:
    whole = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
    content = render([MetricFamily(gauge(), [table(pa.array(whole))])], "text").decode()
    assert [int(line.split()[-1]) for line in content.splitlines()[2:]] == whole
    floats = [0.1, 1e300, 5e-324, -0.0, 1e16, 123456789.123, 1 / 3]
    content = render([MetricFamily(gauge(), [table(pa.array(floats))])], "text").decode()
    assert [float(line.split()[-1]) for line in content.splitlines()[2:]] == floats


def test_values_that_are_no_numbers_have_the_names_of_the_formats(promtool: Callable[[bytes], str]) -> None:
    odd = table(pa.array([math.nan, math.inf, -math.inf, 1.5]))
    for format in ("openmetrics", "text"):
        content = render([MetricFamily(gauge(), [odd])], format)
        found = [line.split()[-1] for line in content.decode().splitlines() if line.startswith("m{")]
        assert found == ["NaN", "+Inf", "-Inf", "1.5"]
    assert promtool(render([MetricFamily(gauge(), [odd])], "text")) == ""
    assert len(samples(openmetrics, render([MetricFamily(gauge(), [odd])], "openmetrics"))) == 4


def test_counter_unit_and_help_stand_where_each_format_wants_them(promtool: Callable[[bytes], str]) -> None:
    counter = MetricDefinition(name="rain_meters_total", column="c", kind="totals", unit="meters", help="Rain.")
    exposed = [MetricFamily(counter, [table(pa.array([1.5]))])]
    assert render(exposed, "openmetrics").decode() == (
        "# TYPE rain_meters counter\n# UNIT rain_meters meters\n# HELP rain_meters Rain.\n"
        'rain_meters_total{n="0"} 1.5\n# EOF\n'
    )
    content = render(exposed, "text")
    assert content.decode() == (
        '# HELP rain_meters_total Rain.\n# TYPE rain_meters_total counter\nrain_meters_total{n="0"} 1.5\n'
    )
    assert promtool(content) == ""
    [family] = openmetrics(render(exposed, "openmetrics").decode())
    assert (family.name, family.type, family.unit) == ("rain_meters", "counter", "meters")


def test_times_are_seconds_in_openmetrics_and_milliseconds_in_text() -> None:
    stamps = [1_700_000_000_123, None, -1, 5]
    found = table(pa.array([1, 2, 3, 4]), times=stamps)
    opened = render([MetricFamily(gauge(), [found])], "openmetrics").decode().splitlines()[2:-1]
    assert opened == ['m{n="0"} 1 1700000000.123', 'm{n="1"} 2', 'm{n="2"} 3 -0.001', 'm{n="3"} 4 0.005']
    [first, *_] = samples(openmetrics, render([MetricFamily(gauge(), [found])], "openmetrics"))
    assert float(first.timestamp) == 1_700_000_000.123
    lines = render([MetricFamily(gauge(), [found])], "text").decode().splitlines()[2:]
    assert lines == ['m{n="0"} 1 1700000000123', 'm{n="1"} 2', 'm{n="2"} 3 -1', 'm{n="3"} 4 5']
    assert "1700000000" not in render([MetricFamily(gauge(), [found])], "text", times=False).decode()


def test_exposition_without_series_is_empty_and_right(promtool: Callable[[bytes], str]) -> None:
    none = table(pa.array([], pa.int64()))
    assert render([MetricFamily(gauge(), [none])], "text") == b""
    assert render([MetricFamily(gauge(), [none])], "openmetrics") == b"# EOF\n"
    assert promtool(b"") == ""


def test_columns_become_labels_with_names_that_prometheus_takes() -> None:
    assert options.label_name("country") == "country"
    odd = ["Ländername", "two words", "1st", "__name__", "__meta", "", "☃", "a-b", "a b", "a.b", "x" * 300]
    found = [options.label_name(one) for one in odd]
    assert all(options.label_problem(one) is None for one in found), found
    assert len(set(found)) == len(odd)
    assert found == [options.label_name(one) for one in odd]
    assert options.label_name("a-b").startswith("a_b_")


def test_columns_of_all_kinds_of_numbers_are_values() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    kinds: list[tuple[pa.Array, list[float | None]]] = [
        (pa.array([True, False]), [1, 0]),
        (pa.array([1, 2], pa.uint8()), [1, 2]),
        (pa.array([2**64 - 1], pa.uint64()), [float(2**64 - 1)]),
        (pa.array([1.5], pa.float16()), [1.5]),
        (pa.array([Decimal("12.50")]), [12.5]),
        (pa.array([Decimal("12.50")], pa.decimal256(40, 2)), [12.5]),
        (pa.array([at], pa.timestamp("us", "UTC")), [at.timestamp()]),
        (pa.array([at], pa.timestamp("s", "Europe/Berlin")), [int(at.timestamp())]),
        (pa.array([date(1970, 1, 2)]), [86_400]),
        (pa.array([date(1970, 1, 2)], pa.date64()), [86_400]),
        (pa.array([timedelta(milliseconds=1500)]), [1.5]),
        (pa.array([time(0, 1, 0)], pa.time32("s")), [60]),
        (pa.array([time(0, 1, 0, 500_000)]), [60.5]),
        (pa.nulls(2), [None, None]),
    ]
    for column, wanted in kinds:
        assert values.as_numbers(column, "c", "metric 'm'").to_pylist() == wanted, column.type


@pytest.mark.parametrize("column", [pa.array(["12"]), pa.array([[1]]), pa.array([b"1"]), pa.array([{"a": 1}])])
def test_column_without_numbers_is_refused_by_name(column: pa.Array, tmp_path: Path) -> None:
    router = Prometheus(metrics={"m": Metric(column="odd")}, textfile=tmp_path)
    router.open(muxly.Run("01B", "daily"))
    with pytest.raises(muxly.ConfigurationError, match=r"column 'odd' for metric 'm' is .*, not numbers"):
        router.deliver(delivery(pa.table({"odd": column})))


def test_missing_column_and_label_without_text_are_refused_by_name(tmp_path: Path) -> None:
    records = pa.table({"n": [1], "tags": [["a"]], "blob": [b"\xff"]})
    for metric, wanted in [
        (Metric(column="x"), r"stream 'numbers' has no column 'x' for metric 'm'; it has n, tags, blob"),
        (Metric(column="n", labels=["y"]), r"no column 'y' for metric 'm'"),
        (Metric(column="n", labels=["tags"]), r"column 'tags' for a label of metric 'm' is list<.*cannot be text"),
        (Metric(column="n", labels=["blob"]), r"column 'blob' for a label of metric 'm' is binary and cannot be text"),
        (Metric(column="n", timestamp="n"), r"column 'n' for the timestamp of metric 'm' is int64; choose"),
    ]:
        router = Prometheus(metrics={"m": metric}, listen="127.0.0.1:0")
        run = muxly.Run("01B", "daily")
        router.open(run)
        with pytest.raises(muxly.ConfigurationError, match=wanted):
            router.deliver(delivery(records))
        router.close()
        run.end()


def test_times_before_1970_and_finer_than_milliseconds_are_rounded_down() -> None:
    fine = pa.array([-1, 0, 1, 1_999_999, -1_000_001], pa.timestamp("ns"))
    assert values.as_times(fine, "c", "m").to_pylist() == [-1, 0, 0, 1, -2]
    assert values.as_times(pa.array([date(1969, 12, 31)]), "c", "m").to_pylist() == [-86_400_000]
