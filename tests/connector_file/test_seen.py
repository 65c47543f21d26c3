from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from muxly_connector_file import _layout
from muxly_connector_file._storage import FoundFile


def file(id: str, size: int = 1, version: int | str = 1) -> FoundFile:
    return FoundFile(id=id, path=f"/x/{id}", size=size, version=version)


FILES = st.lists(
    st.builds(file, st.text(min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3)), unique_by=lambda one: one.id
)


@given(FILES, FILES)
def test_unread_are_exactly_the_new_and_the_changed(before: list[FoundFile], now: list[FoundFile]) -> None:
    expected = sorted((one for one in now if one not in before), key=lambda one: one.id)
    cursor = json.loads(json.dumps(_layout.cursor_of(before)))
    assert _layout.unread(now, cursor) == expected


def test_without_a_cursor_everything_is_unread() -> None:
    assert _layout.unread([file("b"), file("a")], None) == [file("a"), file("b")]


def test_the_cursor_of_many_files_stays_small() -> None:
    many = [file(f"some/long/folder/name/day={n:06}.parquet", n, n) for n in range(100_000)]
    cursor = _layout.cursor_of(many)
    assert len(json.dumps(cursor)) < 17 * len(many)
    assert _layout.unread(many, cursor) == []
    changed = [*many[1:], file(many[0].id, 5, 5)]
    assert [one.id for one in _layout.unread(changed, cursor)] == [many[0].id]
    assert [one.id for one in _layout.unread([*many[:5], file("new")], cursor)] == ["new"]
