"""The real ledger and spool do what the pure one says, on SQLite and on PostgreSQL, through crashes."""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import create_engine, make_url, text

from tests.core.model.ledger_machine import LedgerMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def machine(make: Callable[[], tuple[Path, str]]) -> type[LedgerMachine]:
    return type("Machine", (LedgerMachine,), {"make": staticmethod(make)})


def run(make: Callable[[], tuple[Path, str]], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine(make),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=QUIET,
        ),
    )


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: these crashes end a process, not the machine."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="muxly-") as folder:
        yield Path(folder)


def test_the_ledger_on_sqlite_is_the_pure_one(quick_folder: Path) -> None:
    numbers = count()

    def make() -> tuple[Path, str]:
        folder = quick_folder / str(next(numbers))
        folder.mkdir()
        return folder, f"sqlite:///{folder}/store.sqlite"

    run(make, examples=10, steps=30)


@pytest.mark.timeout(300)
def test_the_ledger_on_postgresql_is_the_pure_one(tmp_path: Path, postgres_server: str) -> None:
    numbers = count()

    def make() -> tuple[Path, str]:
        number = next(numbers)
        name = f"model_{uuid4().hex}"
        engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        folder = tmp_path / str(number)
        folder.mkdir()
        return folder, make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    run(make, examples=4, steps=20)
