"""A delivery is cut into the same requests whenever it is cut, wherever it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from muxly_routers.webhook.bodies import BodyFormat, RecordSpan, Unencodable, after, spans

if TYPE_CHECKING:
    from muxly_routers.webhook.bodies import EncodedRecord

PIECES = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(Unencodable("no form"))), max_size=60)
LIMITS = {"most_records": st.integers(1, 20), "most_bytes": st.integers(1, 200)}


@given(pieces=PIECES, **LIMITS)
def test_every_record_is_in_one_span_and_spans_keep_the_limits(
    pieces: list[EncodedRecord], most_records: int, most_bytes: int
) -> None:
    form = BodyFormat("array", b'{"a":', b"}")
    cut = list(spans(pieces, most_records=most_records, most_bytes=most_bytes, overhead=form.overhead))
    assert [piece for span in cut for piece in span.records] == pieces
    assert [span.first for span in cut] == [sum(len(one.records) for one in cut[:at]) for at in range(len(cut))]
    for span in cut:
        assert 1 <= len(span.records) <= most_records
        assert len(span.records) == 1 or len(form.body(span.sendable() or [b""])) <= most_bytes


@given(pieces=PIECES, delivered=st.integers(0, 60), **LIMITS)
def test_going_on_in_the_middle_makes_only_spans_that_halving_makes(
    pieces: list[EncodedRecord], delivered: int, most_records: int, most_bytes: int
) -> None:
    cut = list(spans(pieces, most_records=most_records, most_bytes=most_bytes))
    rest = [part for span in cut for part in after(span, delivered)]
    assert [piece for span in rest for piece in span.records] == pieces[delivered:]
    possible = {one for span in cut for one in halvings(span)}
    assert {(part.first, len(part.records)) for part in rest} <= possible


def halvings(span: RecordSpan) -> set[tuple[int, int]]:
    """A span, its halves, and theirs."""
    found = {(span.first, len(span.records))}
    return found if len(span.records) == 1 else found.union(*(halvings(half) for half in span.halves()))


@given(pieces=PIECES)
def test_place_in_a_body_is_a_number_in_the_delivery(pieces: list[EncodedRecord]) -> None:
    span = RecordSpan(100, tuple(pieces))
    numbers = [span.number(place) - 100 for place in range(len(span.sendable()))]
    assert [pieces[number] for number in numbers] == span.sendable()
