"""Compiled statements are kept for all SQLite stores of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import literal, select

from muxly.store.database import engine
from muxly.store.database.engine import Statements, open_engine, reading, sqlite_url
from muxly.store.schema.upgrade import ensure_current

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_statement_is_written_once_for_all_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Statements()
    monkeypatch.setattr(engine, "_STATEMENTS", kept)
    found, sizes = [], []
    for number in (1, 2):
        store = open_engine(sqlite_url(tmp_path / f"{number}.db"))
        ensure_current(store)
        with reading(store) as connection:
            found.append(connection.execute(select(literal(number))).scalar_one())
        store.dispose()
        sizes.append(len(kept))
    assert found == [1, 2], "what is asked is the same, the values are not"
    assert sizes[0] == sizes[1] > 0


def test_statements_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_MAX_STATEMENTS", 3)
    kept = Statements()
    for number in range(10):
        kept[None, number] = number
        assert kept.get((object(), number)) == number
        assert len(kept) <= 3
