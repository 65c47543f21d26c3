from __future__ import annotations

import csv
import io
import itertools

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxly_connector_file import _text

LETTERS = st.text(alphabet='a",\n\r', max_size=24)


def ends_by_definition(text: str) -> list[int]:
    """Where records end, letter by letter: the definition that the fast function must agree with."""
    ends, quoted, cell_start, index = [], False, True, 0
    while index < len(text):
        letter = text[index]
        if quoted:
            if letter == '"' and text[index + 1 : index + 2] == '"':
                index += 1
            elif letter == '"':
                quoted = False
        elif letter == '"' and cell_start:
            quoted = True
        elif letter == "\n" or (letter == "\r" and text[index + 1 : index + 2] != "\n"):
            ends.append(index + 1)
        cell_start = not quoted and letter in ",\n\r"
        index += 1
    return ends


@given(LETTERS)
@example('5" x,"a\nb"\nc,"\n')
@example('""\n"\n')
@example('a"b",1\n"x\n"')
def test_the_last_record_end_is_the_one_of_the_definition(text: str) -> None:
    found = _text.last_record_end(text.encode(), b",", b'"')
    ends = ends_by_definition(text)
    if found < 0:
        # Only a line end that may still grow into CR LF, or CRs beside LFs, are left alone.
        assert all(text[end - 1] == "\r" for end in ends)
    else:
        assert found in ends
        assert all(text[end - 1] == "\r" for end in ends if end > found)


@given(st.lists(st.lists(st.text(alphabet='ab",\n\r ', max_size=6), min_size=2, max_size=2), max_size=8))
def test_spans_are_the_records_that_arrow_reads(rows: list[list[str]]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    text = written.getvalue().encode()
    spans = _text.spans(text, b",", b'"', blank_lines=False)
    assert len(spans) == len(rows)
    again = b"".join(text[one.start : one.end] + b"\n" for one in spans)
    assert again == text


@given(LETTERS)
def test_spans_count_as_arrow_counts(text: str) -> None:
    block = text.encode() + b"\n"
    if _text.last_record_end(block, b",", b'"') != len(block):
        return
    numbers: list[int] = []

    def on_row(row: pa.csv.InvalidRow) -> str:
        numbers.append(row.number)
        return "skip"

    table = pa.csv.read_csv(
        pa.BufferReader(block),
        read_options=pa.csv.ReadOptions(column_names=["x", "y"], use_threads=False, block_size=1 << 16),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_row),
    )
    spans = _text.spans(block, b",", b'"', blank_lines=False)
    assert len(spans) == table.num_rows + len(numbers)


def test_lines_are_counted_through_quoted_line_ends_and_blank_lines() -> None:
    text = b'1,2\n\n"x\ny",3\r\n4,5'
    spans = _text.spans(text, b",", b'"', blank_lines=False)
    assert [(text[one.start : one.end], one.line) for one in spans] == [(b"1,2", 0), (b'"x\ny",3', 2), (b"4,5", 4)]


def test_without_a_quote_every_line_is_a_record() -> None:
    text = b'"a\nb"\n'
    assert _text.last_record_end(text, b",", b"") == len(text)
    assert len(_text.spans(text, b",", b"", blank_lines=False)) == 2


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_an_all_quoted_block_is_cut_without_reading_it_all(size: int) -> None:
    text = b'"x","y z","1"\n' * size
    assert _text.last_record_end(text + b'"open', b",", b'"') == len(text)


def test_every_end_is_found_wherever_the_block_stops() -> None:
    text = 'a,"b\n""c",d\n5" x,e\n"",""\n'
    for stop in range(1, len(text) + 1):
        block = text[:stop]
        ends = [end for end in itertools.chain(ends_by_definition(block)) if end <= stop]
        assert _text.last_record_end(block.encode(), b",", b'"') == (ends[-1] if ends else -1)
