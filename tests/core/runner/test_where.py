"""Arithmetic and dates in `where`: the same answers in every version of DuckDB, in every time zone, or a refusal."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly._runner.deliver.where import Filter, check_where
from muxly.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
UTC = dt.UTC
RECORDS = pa.record_batch(
    {
        "berth": pa.array([2, 3, None], pa.int64()),
        "draught": pa.array([4.5, 12.25, None], pa.float64()),
        "name": ["Ulm", "Kiel", None],
        "docked": pa.array([dt.date(2024, 2, 29), dt.date(2023, 12, 31), None], pa.date32()),
        "gone": pa.array([dt.date(2024, 3, 2), dt.date(2024, 1, 1), None], pa.date32()),
        "local": pa.array(["2024-02-29T23:30:00", "2023-12-31T00:15:00", None]).cast(pa.timestamp("us")),
        # Another day, month and year in most time zones than in UTC.
        "seen": pa.array(
            [dt.datetime(2024, 2, 29, 23, 30, tzinfo=UTC), dt.datetime(2024, 1, 1, 0, 15, tzinfo=UTC), None]
        ),
        "opens": pa.array([dt.time(6), dt.time(18, 30), None]),
    }
)

STEADY = {
    "berth + 1 > 3": [False, True],
    "berth - 1 = 1": [True, False],
    "-berth < -2": [False, True],
    "berth * 2 + draught / 2 > 7": [False, True],
    "draught % 2 = 0.25": [False, True],
    "berth // 2 = 1 and berth ** 2 = 9": [False, True],
    "abs(draught - 12) < 1 and round(draught, 1) > 12": [False, True],
    "name || '!' = 'Ulm!'": [True, False],
    "year(docked) = 2024": [True, False],
    "extract(month from docked) = 2": [True, False],
    "date_part('day', docked) = 29": [True, False],
    "dayname(docked) = 'Thursday'": [True, False],
    "last_day(docked) = docked": [True, True],
    "gone - docked = 2": [True, False],
    "docked + 1 = date '2024-03-01'": [True, False],
    "docked + interval 1 month = timestamp '2024-03-29'": [True, False],
    "docked - interval '1 year' = timestamp '2023-02-28'": [True, False],
    "datediff('day', docked, gone) = 1": [False, True],
    "date_add(docked, interval 1 day) = date '2024-01-01'": [False, True],
    "docked between date '2024-01-01' and date '2024-12-31'": [True, False],
    "date_trunc('month', local) = timestamp '2024-02-01'": [True, False],
    "date_trunc('month', docked) = date '2024-02-01'": [True, False],
    "local + interval 30 minute = timestamp '2024-03-01'": [True, False],
    "local - timestamp '2024-02-29' = interval '23:30:00'": [True, False],
    "hour(local) = 0 and minute(local) = 15": [False, True],
    "strftime(local, '%Y-%m') = '2024-02'": [True, False],
    "time_bucket(interval 1 day, local) = timestamp '2024-02-29'": [True, False],
    "epoch_ms(local) > 1709000000000": [True, False],
    "opens + interval 1 hour = time '07:00:00'": [True, False],
    # Time zones: those of the session are UTC, and those of the expression are told.
    "seen > timestamptz '2024-02-29 23:00:00+00'": [True, False],
    "year(seen) = 2024 and month(seen) = 2": [True, False],
    "date_trunc('day', seen) = timestamptz '2024-01-01 00:00:00+00'": [False, True],
    "seen::date = date '2024-02-29'": [True, False],
    "seen + interval 1 day > timestamptz '2024-03-01 00:00:00+00'": [True, False],
    "seen - interval 1 hour < timestamptz '2024-01-01 00:00:00+00'": [False, True],
    "seen - timestamptz '2024-01-01 00:00:00+00' = interval 15 minute": [False, True],
    "strftime(seen, '%H:%M') = '23:30'": [True, False],
    "hour(seen at time zone 'Asia/Tokyo') = 8": [True, False],
    "date_diff('year', seen, timestamptz '2025-01-01 00:00:00+00') = 1": [True, True],
    "seen = make_timestamptz(2024, 1, 1, 0, 15, 0)": [False, True],
}  # fmt: skip

CHANGING = {
    "now()": "now",
    "current_timestamp": "current_timestamp",
    "get_current_timestamp()": "get_current_timestamp",
    "transaction_timestamp()": "transaction_timestamp",
    "current_date": "current_date",
    "today()": "today",
    "current_date - 1": "current_date",
    "now() - interval 1 day": "now",
    "date_trunc('day', now())": "now",
    "year(today())": "today",
    "current_time": "current_time",
    "localtime": "localtime",
    "current_localtime()": "current_localtime",
    "localtimestamp": "localtimestamp",
    "age(seen)": "age",
    "age(seen, seen)": "age",
    "random()": "random",
    "berth + random()": "random",
    "uuid()": "uuid",
    "txid_current()": "txid_current",
    "current_setting('TimeZone')": "current_setting",
    "current_schema()": "current_schema",
}


def kept(expression: str) -> list[Any]:
    answers: list[Any] = Filter(expression, RECORDS.schema).mask(RECORDS).to_pylist()
    return answers


@pytest.mark.parametrize("expression", STEADY)
def test_arithmetic_and_dates_give_their_values(expression: str) -> None:
    check_where(expression)
    check_where(expression, RECORDS.schema)
    assert kept(expression) == [*(answer is True for answer in STEADY[expression]), False]


@pytest.mark.parametrize("expression", CHANGING)
def test_a_clock_or_chance_is_refused_before_and_after_the_schema_is_known(expression: str) -> None:
    for schema in (None, RECORDS.schema):
        with pytest.raises(
            ConfigurationError, match=f"where: {CHANGING[expression]} does not return the same value on each call"
        ):
            check_where(f"{expression} is not null", schema)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_the_time_zone_of_the_machine_changes_no_answer(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    code = (
        "import tests.core.runner.test_where as here\n"
        "print([one for one, answers in here.STEADY.items()"
        " if here.kept(one) != [*(answer is True for answer in answers), False]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
