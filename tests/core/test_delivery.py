"""A delivery gives the same records whenever it is asked, from where it was marked."""

from __future__ import annotations

import pyarrow as pa
import pytest

import muxly
from muxly_testing import delivery

RECORDS = [{"id": number} for number in range(10)]


def numbers(one: muxly.Delivery) -> list[int]:
    return [record["id"] for record in one.records()]


@pytest.mark.parametrize("delivered", range(11))
def test_records_start_after_what_is_delivered(delivered: int) -> None:
    one = delivery(RECORDS, batch_records=3, delivered=delivered)
    for _ in range(2):
        assert numbers(one) == list(range(delivered, 10))
        assert one.table().column("id").to_pylist() == numbers(one)
        assert all(batch.num_rows for batch in one.batches())


def test_mark_is_durable_before_it_counts() -> None:
    marked: list[tuple[int, int]] = []
    one = delivery(RECORDS, on_mark=lambda count: marked.append((count, one.delivered)))
    one.mark(4)
    one.mark(4)
    one.mark(10)
    assert marked == [(4, 0), (4, 4), (10, 4)]
    assert numbers(one) == []


def test_mark_does_not_go_back() -> None:
    one = delivery(RECORDS, delivered=5)
    with pytest.raises(ValueError, match="4 records marked after 5"):
        one.mark(4)


def test_mark_that_could_not_be_kept_does_not_count() -> None:
    def refuse(count: int) -> None:
        raise muxly.errors.FencedError("another run holds the lease")

    one = delivery(RECORDS, on_mark=refuse)
    with pytest.raises(muxly.errors.FencedError, match="holds the lease"):
        one.mark(5)
    assert one.delivered == 0
    assert len(numbers(one)) == 10


def test_table_of_an_empty_delivery_has_its_schema() -> None:
    one = delivery(pa.table({"id": pa.array([], pa.int32())}))
    assert one.table().schema == pa.schema([("id", pa.int32())])
    assert numbers(one) == []


def test_delivery_hides_its_functions_in_messages() -> None:
    assert "function" not in repr(delivery(RECORDS))


def test_receipt_takes_any_iterable_of_rejected_records() -> None:
    assert muxly.Receipt(muxly.Rejected("x", index=1) for _ in range(2)).rejected == (muxly.Rejected("x", index=1),) * 2


def test_deliveries_made_for_tests_refuse_records_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="1 records do not fit; the first: column 'id': 'x' does not fit"):
        delivery([{"id": 1}, {"id": 2}, {"id": "x"}])
