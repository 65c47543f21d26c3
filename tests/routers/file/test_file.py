"""What the file router puts where, in each mode."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import muxly
from muxly_routers.file import Csv, File
from muxly_routers.file import muxly_router as hook
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Opened = Callable[..., File]

ORDERS = muxly.Stream("orders", ("id",), overwrite_key="day")


def orders(numbers: range, **facts: Any) -> muxly.Delivery:
    records = [
        {"id": one, "country": ("DE", "FR", None)[one % 3], "day": dt.date(2024, 1, 30) + dt.timedelta(days=one // 2)}
        for one in numbers
    ]
    return delivery(records, facts.pop("stream", ORDERS), batch_records=3, **facts)


def files(root: Path) -> list[str]:
    """All but the note of the last delivery."""
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".last")
    return sorted(str(path.relative_to(root)) for path in found)


def ids(root: Path, pattern: str = "orders/**/*.parquet") -> list[int]:
    found = sorted(root.glob(pattern))
    return sorted(one for path in found for one in pq.ParquetFile(path).read(["id"])["id"].to_pylist())


def test_module_and_options_load_no_pyarrow() -> None:
    code = (
        "import sys, muxly_routers.file as f; f.File(path='x'); print(sorted({'pyarrow', 'arro3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert hook() is File


def test_delivery_is_one_file_of_its_name(opened: Opened, root: Path) -> None:
    opened().deliver(orders(range(5), id="01X"))
    assert files(root) == ["orders/01X.parquet"]
    assert ids(root) == [0, 1, 2, 3, 4]


def test_open_and_check_write_nothing(opened: Opened, root: Path) -> None:
    assert [one for one in opened().check() if one.level == "error"] == []
    assert not root.exists()


def test_check_names_what_is_in_the_way(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    notices = list(opened(path=tmp_path / "file" / "deeper").check())
    assert [one.code for one in notices] == ["not_writable"]
    assert "is not a folder" in notices[0].message


def test_templates_name_folders_and_files(opened: Opened, root: Path) -> None:
    router = opened(
        folder="raw/{pipeline}/{stream}", file_name="{stream}-{delivery}", format="jsonl", compression="gzip"
    )
    router.deliver(orders(range(2), id="01X"))
    assert files(root) == ["raw/daily/orders/orders-01X.jsonl.gz"]


def untouched(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def test_repeat_of_a_delivery_writes_nothing(opened: Opened, root: Path) -> None:
    first = orders(range(5), id="01X")
    opened().deliver(first)
    before = untouched(root / "orders/01X.parquet")
    opened(run="01C").deliver(orders(range(5), id="01X"))
    assert untouched(root / "orders/01X.parquet") == before
    assert files(root) == ["orders/01X.parquet"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
def test_name_that_is_taken_is_never_overwritten(opened: Opened, root: Path, format: str) -> None:
    path = root / f"orders/01X.{format}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(muxly.ConflictError, match=rf"01X\.{format} is there already"):
        opened(format=format).deliver(orders(range(5), id="01X"))
    assert path.read_bytes() == b"mine"
    assert files(root) == [f"orders/01X.{format}"]


def test_folder_in_the_place_of_a_file_is_a_conflict(opened: Opened, root: Path) -> None:
    (root / "orders/01X.parquet").mkdir(parents=True)
    with pytest.raises(muxly.ConflictError, match="is not a file"):
        opened().deliver(orders(range(5), id="01X"))


def test_delivery_without_records_makes_no_file(opened: Opened, root: Path) -> None:
    opened().deliver(delivery(orders(range(1)).table().slice(0, 0), ORDERS))
    assert files(root) == []


def test_partition_folders_are_read_as_hive_partitions(opened: Opened, root: Path) -> None:
    opened(partition_by=["country", "month(day)"]).deliver(orders(range(12), id="01X"))
    assert files(root) == [
        f"orders/country={country}/month=2024-{month}/01X.parquet"
        for country in ("DE", "FR", "__HIVE_DEFAULT_PARTITION__")
        for month in ("01", "02")
    ]
    pattern = f"{root}/orders/**/*.parquet"
    wanted = [(one["id"], one["country"], str(one["day"])[:7]) for one in orders(range(12)).records()]
    assert duckdb.execute("select id, country, month from read_parquet(?) order by id", [pattern]).fetchall() == wanted
    found = polars.read_parquet(f"{root}/orders/", hive_partitioning=True, try_parse_hive_dates=False).sort("id")
    assert found.select("id", "country", "month").rows() == wanted


def test_partition_columns_may_be_left_out_of_the_files(opened: Opened, root: Path) -> None:
    opened(partition_by=["country"], keep_partition_columns=False).deliver(orders(range(6)))
    query = "select country, count(*) from read_parquet(?) group by all order by all"
    counts = duckdb.execute(query, [f"{root}/orders/**/*.parquet"]).fetchall()
    assert counts == [("DE", 2), ("FR", 2), (None, 2)]
    assert pq.ParquetFile(next(root.glob("orders/country=DE/*"))).schema_arrow.names == ["id", "day"]


def test_hostile_partition_values_stay_inside_and_apart(opened: Opened, root: Path) -> None:
    values = ["../../x", "", ".", "..", "a/b", "new\nline", "é", "con", "x" * 300, "x" * 299, "a.", "~", None, " "]
    records = [{"id": number, "value": value} for number, value in enumerate(values)]
    opened(partition_by=["value"]).deliver(delivery(records, "orders"))
    folders = list((root / "orders").iterdir())
    assert len(folders) == len(values)
    assert all(one.name.startswith("value=") for one in folders)
    assert ids(root) == list(range(len(values)))
    rows = duckdb.execute(
        "select id, value from read_parquet(?, hive_partitioning=false) order by id", [f"{root}/orders/**/*.parquet"]
    )
    assert rows.fetchall() == list(enumerate(values))


def test_value_too_long_for_a_folder_is_not_lost_with_its_column(opened: Opened) -> None:
    router = opened(partition_by=["value"], keep_partition_columns=False)
    with pytest.raises(muxly.RejectedError, match="keep_partition_columns: true"):
        router.deliver(delivery([{"id": 1, "value": "x" * 300}], "orders"))


def test_date_parts_are_in_utc_and_of_text_too(opened: Opened, root: Path) -> None:
    at = dt.datetime(2024, 1, 1, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    records = [{"id": 1, "at": at, "text": "2025-06-07T08:09:10", "zoned": "2025-06-07T00:09:10+02:00"}]
    keys = ["year(at)", "hour(at)", "day(text)", "month(zoned)"]
    opened(partition_by=keys).deliver(delivery(records, "orders", id="01X"))
    assert files(root) == ["orders/year=2023/hour=2023-12-31T23/day=2025-06-07/month=2025-06/01X.parquet"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["missing"], "column 'missing' of partition_by is not among the columns"),
        (["week(day)"], "there is no function 'week'; there are year, month, day, hour, as in 'month"),
        (["amount"], "column 'amount' is double, whose values are no names of folders"),
        (["hour(id)"], "needs a date or a time, and the column is int64"),
        (["day(at)"], "read as the column 'day'"),
    ],
)
def test_key_that_cannot_make_folders_is_explained(opened: Opened, keys: list[str], problem: str) -> None:
    record = {"id": 1, "amount": 1.5, "at": dt.date(2024, 1, 1), "day": "x"}
    with pytest.raises(muxly.RouteError, match=problem):
        opened(partition_by=keys).deliver(delivery([record], "orders"))


def test_text_that_is_no_date_is_rejected(opened: Opened, root: Path) -> None:
    with pytest.raises(muxly.RejectedError, match=r"month\(at\)"):
        opened(partition_by=["month(at)"]).deliver(delivery([{"id": 1, "at": "soon"}], "orders"))
    assert files(root) == []


def test_more_folders_than_may_be_open_are_written_in_passes(opened: Opened, root: Path) -> None:
    records = [{"id": number, "key": number % 100} for number in range(500)]
    opened(partition_by=["key"]).deliver(delivery(records, "orders", batch_records=300))
    assert len(files(root)) == 100
    assert ids(root) == list(range(500))


def test_too_many_folders_are_refused_before_they_are_made(opened: Opened, root: Path) -> None:
    records = [{"id": number} for number in range(300)]
    with pytest.raises(muxly.RouteError, match="more than 100 folders of one delivery"):
        opened(partition_by=["id"], max_folders=100).deliver(delivery(records, "orders"))
    assert files(root) == []


def test_repeat_writes_only_the_partitions_that_are_missing(opened: Opened, root: Path) -> None:
    one = orders(range(12), id="01X")
    opened(partition_by=["country"]).deliver(one)
    kept, lost = root / "orders/country=DE/01X.parquet", root / "orders/country=FR/01X.parquet"
    before = untouched(kept)
    lost.unlink()
    opened(run="01C", partition_by=["country"]).deliver(orders(range(12), id="01X"))
    assert untouched(kept) == before
    assert ids(root) == list(range(12))


def test_overwrite_replaces_whole_folders_of_values(opened: Opened, root: Path) -> None:
    days = [dt.date(2024, 1, 30), dt.date(2024, 1, 31), dt.date(2024, 2, 1)]
    router = opened(partition_by=["country"])
    router.deliver(orders(range(6), id="01A", mode="overwrite", replaces=days))
    router.deliver(orders(range(1), id="01B", mode="overwrite", replaces=[days[0], "2024-01-31"]))
    assert ids(root) == [0, 4, 5]
    assert files(root) == [
        "orders/day=2024-01-30/country=DE/01B.parquet",
        "orders/day=2024-02-01/country=FR/01A.parquet",
        "orders/day=2024-02-01/country=__HIVE_DEFAULT_PARTITION__/01A.parquet",
    ]


def test_overwrite_needs_a_key(opened: Opened) -> None:
    with pytest.raises(muxly.RouteError, match="no overwrite key"):
        opened().deliver(orders(range(1), mode="overwrite", stream=muxly.Stream("orders")))


def test_overwrite_does_not_take_away_files_of_others(opened: Opened, root: Path) -> None:
    photo = root / "orders/day=2024-01-30/photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(muxly.RouteError, match=r"photo\.jpg is not a file of this router"):
        opened().deliver(orders(range(1), mode="overwrite", replaces=[dt.date(2024, 1, 30)]))
    assert files(root) == ["orders/day=2024-01-30/photo.jpg"]


def test_generation_is_shown_when_it_is_complete(opened: Opened, root: Path) -> None:
    router = opened()
    for generation, numbers in ((1, range(4)), (2, range(4, 9))):
        router.begin(ORDERS, generation)
        router.deliver(orders(numbers, mode="replace", generation=generation))
        shown = ids(root)
        hidden = [name for name in files(root) if name.startswith(".") and name.endswith(".parquet")]
        assert not hidden, "a reader of **/*.parquet sees nothing of a generation that grows"
        router.complete(ORDERS, generation)
        assert shown == ([] if generation == 1 else [0, 1, 2, 3])
    assert ids(root) == [4, 5, 6, 7, 8]
    assert [path.name for path in (root / "orders").iterdir()] == ["generation-000002"]
    assert list((root / ".muxly").iterdir()) == []


def test_generation_without_records_is_an_empty_folder(opened: Opened, root: Path) -> None:
    router = opened()
    router.begin(ORDERS, 7)
    router.complete(ORDERS, 7)
    assert [path.name for path in (root / "orders").iterdir()] == ["generation-000007"]


def test_older_generation_is_refused_everywhere(opened: Opened) -> None:
    router = opened()
    router.begin(ORDERS, 5)
    router.complete(ORDERS, 5)
    for call in (router.begin, router.complete):
        with pytest.raises(muxly.ConflictError, match="shows generation 5, and generation 4 is older"):
            call(ORDERS, 4)
    with pytest.raises(muxly.ConflictError, match="shows generation 5"):
        router.deliver(orders(range(1), mode="replace", generation=4))


def test_generation_that_was_not_begun_is_an_error(opened: Opened) -> None:
    with pytest.raises(muxly.RouteError, match="--full-refresh"):
        opened().deliver(orders(range(1), mode="replace", generation=1))
    with pytest.raises(muxly.RouteError, match="--full-refresh"):
        opened().complete(ORDERS, 1)


def test_replace_does_not_take_away_files_of_others(opened: Opened, root: Path) -> None:
    (root / "orders/album").mkdir(parents=True)
    (root / "orders/album/photo.jpg").write_bytes(b"mine")
    router = opened()
    router.begin(ORDERS, 1)
    router.deliver(orders(range(1), mode="replace", generation=1))
    with pytest.raises(muxly.RouteError, match=r"photo\.jpg is not a file of this router"):
        router.complete(ORDERS, 1)
    assert (root / "orders/album/photo.jpg").read_bytes() == b"mine"


def test_two_routes_that_replace_one_folder_are_refused(opened: Opened) -> None:
    active = muxly.Run("01B", "daily")
    opened(active=active).begin(ORDERS, 1)
    with pytest.raises(muxly.RouteError, match="replaced by another route"):
        opened(active=active, format="jsonl").begin(ORDERS, 1)


def test_nonfinite_values_of_jsonl_are_told_once_and_counted(opened: Opened) -> None:
    notices: list[muxly.Notice] = []
    numbers: list[tuple[str, float, str | None]] = []
    active = muxly.Run("01B", "daily", on_notice=notices.append, on_measure=lambda *one: numbers.append(one))
    router = opened(active=active, format="jsonl")
    for _ in range(2):
        router.deliver(delivery([{"x": float("nan")}, {"x": float("inf")}, {"x": 1.0}], "s"))
    assert [one.code for one in notices] == ["nonfinite_as_null"]
    assert numbers == [("nonfinite_as_null", 2, "s")] * 2


def test_routes_that_want_the_same_bytes_encode_them_once(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muxly_routers._formats import text

    calls: list[int] = []
    real = text.jsonl_lines

    def lines(part: pa.RecordBatch) -> bytes:
        calls.append(part.num_rows)
        return real(part)

    monkeypatch.setattr(text, "jsonl_lines", lines)
    active = muxly.Run("01B", "daily")
    one, two = orders(range(9), id="01A", digest="d"), orders(range(9), id="01B", digest="d")
    opened(active=active, path=root / "a", format="jsonl").deliver(one)
    opened(active=active, path=root / "b", format="jsonl").deliver(two)
    assert sum(calls) == 9
    first, second = root / "a/orders/01A.jsonl", root / "b/orders/01B.jsonl"
    assert first.read_bytes() == second.read_bytes()
    assert not first.samefile(second), "a change of one file is not a change of the other"


@pytest.mark.parametrize("fate", ["removed", "changed"])
def test_shared_bytes_are_right_whatever_happens_to_the_first_file(opened: Opened, root: Path, fate: str) -> None:
    active = muxly.Run("01B", "daily")
    opened(active=active, path=root / "a", format="jsonl").deliver(orders(range(9), id="01A", digest="d"))
    first = root / "a/orders/01A.jsonl"
    if fate == "removed":
        first.unlink()
    else:
        first.write_bytes(b"x" * first.stat().st_size)
    opened(active=active, path=root / "b", format="jsonl").deliver(orders(range(9), id="01B", digest="d"))
    lines = (root / "b/orders/01B.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(9))


def test_routes_at_the_same_time_both_get_whole_files(opened: Opened, root: Path) -> None:
    active = muxly.Run("01B", "daily")
    threads = [
        threading.Thread(
            target=opened(active=active, path=root / str(one)).deliver,
            args=(orders(range(50), id=f"0{one}", digest="d"),),
        )
        for one in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ids(root / str(one)) for one in range(6)] == [list(range(50))] * 6


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "csv", "compression": "snappy"}, "csv is compressed with gzip, none, zstd, not 'snappy'"),
        ({"format": "csv", "compression_level": 3}, "csv with compression none has no levels"),
        ({"compression_level": 23}, "zstd has the levels 1 to 22, not 23"),
        ({"folder": "x"}, "{stream} must be in 'x'"),
        ({"folder": "{stream}/.."}, "is not a name"),
        ({"file_name": "{stream}"}, "{delivery} must be in"),
        ({"file_name": "a/{delivery}"}, "is a path; folders belong in folder"),
        ({"partition_by": ["day(a)", "day(b)"]}, "two folders 'day'"),
        ({"max_folders": 0}, "'max_folders' must be >= 1"),
    ],
)
def test_option_that_cannot_work_is_refused_at_once(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("{", r"\{").replace(".", r"\.")):
        File(path=tmp_path, **options)


@pytest.mark.parametrize("options", [{"delimiter": ""}, {"delimiter": '"'}, {"delimiter": "ab"}, {"null": "a\n"}])
def test_csv_option_that_breaks_csv_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is (one ASCII|text without)"):
        Csv(**options)


def test_wide_and_unusual_types_survive_partitioning(opened: Opened, root: Path) -> None:
    batch = pa.record_batch(
        {
            "id": pa.array([1, 2, 3]),
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "run": pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"]),
            "price": pa.array([1, 2, 3]).cast(pa.decimal128(38, 2)),
        }
    )
    opened(partition_by=["kind", "run", "price"]).deliver(delivery([batch], "orders", id="01X"))
    assert files(root) == [
        "orders/kind=a/run=x/price=1.00/01X.parquet",
        "orders/kind=a/run=y/price=3.00/01X.parquet",
        "orders/kind=b/run=x/price=2.00/01X.parquet",
    ]
