"""Run as a program by the tests: opens or upgrades a store, in as many processes and deaths as it is told.

``race URL SCRIPTS HEAD COUNT``  open the store in so many processes at once, as a Muxly whose newest revision is HEAD
``die URL SCRIPTS HEAD STEP``    for n = 1, 1 + STEP, ...: reset the store, open it in a child that is killed before
                                 its n-th statement, look at it, open it again; until a child lives; one JSON line each
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import alembic.command  # noqa: F401 - loaded once, before the forks
from sqlalchemy import Engine, event, inspect, text

from muxly.store.database.engine import open_engine, reading
from muxly.store.database.sqlite import path_of
from muxly.store.schema import migrate
from muxly.store.schema.tables import metadata
from muxly.store.schema.upgrade import open_store

TODAY = migrate.HEAD
LATER = f"{int(TODAY) + 1:04}"


def main(verb: str, url: str, scripts: str, number: str, step: str = "1") -> None:
    migrate.SCRIPTS = Path(scripts)
    if verb == "race":
        migrate.HEAD = number
        _race(url, int(step))
        return
    for statement in count(1, int(step)):
        seen = _die_at(statement, url, number)
        print(json.dumps({"statement": statement, **seen}))
        if not seen["killed"]:
            return


def _race(url: str, processes: int) -> None:
    """Children that have loaded all and wait for one word, so that they begin together."""
    reading_end, writing_end = os.pipe()
    children = [os.fork() or _open_when_told(url, reading_end, writing_end) for _ in range(processes)]
    os.close(writing_end)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        sys.exit(f"children ended with {statuses}")


def _open_when_told(url: str, reading_end: int, writing_end: int) -> NoReturn:
    os.close(writing_end)
    os.read(reading_end, 1)  # ends when the parent closes the other end
    try:
        open_store(url).dispose()
    except BaseException:  # noqa: BLE001 (told to the parent, whatever it is)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _die_at(statement: int, url: str, number: str) -> dict[str, Any]:
    migrate.HEAD = TODAY
    _reset(url, empty=number == TODAY)
    migrate.HEAD = number
    child = os.fork()
    if child == 0:
        _kill_before(statement)
        open_store(url).dispose()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    between = _look(url)
    open_store(url).dispose()
    return {"killed": os.WIFSIGNALED(status), "status": status, "between": between, "after": _look(url)}


def _kill_before(statement: int) -> None:
    left = statement

    def count_down(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count_down)
    event.listen(Engine, "commit", count_down)
    for name in ("link", "fsync"):
        setattr(os, name, _counted(getattr(os, name), count_down))


def _counted(call: Callable[..., Any], count_down: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        count_down()
        result = call(*arguments)
        count_down()
        return result

    return counted


def _reset(url: str, *, empty: bool) -> None:
    """An empty place, or a store of today's revision that holds a plan with two partitions."""
    engine = open_engine(url)
    path = path_of(engine)
    if path is not None:
        engine.dispose()
        if _restored(path.parent, empty=empty):
            return
    else:
        with engine.begin() as connection:
            metadata.drop_all(connection)
            connection.exec_driver_sql("DROP TABLE IF EXISTS store_revision")
        engine.dispose()
    if not empty:
        engine = open_store(url)
        fill(engine)
        engine.dispose()
        if path is not None:
            shutil.copytree(path.parent, path.parent.with_name(f"{path.parent.name}-saved"))


def _restored(folder: Path, *, empty: bool) -> bool:
    """Put the store back as it was the first time; False if there is none to put back."""
    shutil.rmtree(folder, ignore_errors=True)
    saved = folder.with_name(f"{folder.name}-saved")
    if empty or not saved.exists():
        return False
    shutil.copytree(saved, folder)
    return True


def fill(engine: Engine) -> None:
    """A plan, and two partitions that go when their plan goes."""
    at = "2026-11-23T00:00:00.000000Z"
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO plans (id, pipeline, stream, generation, options_digest, state, created_at) "
                f"VALUES ('p', 'crm', 'deals', 0, '', 'open', '{at}')"
            )
        )
        for ordinal in (0, 1):
            connection.execute(
                text(f"INSERT INTO partitions (plan, ordinal, partition, done) VALUES ('p', {ordinal}, 'x', 0)")
            )


def _look(url: str) -> dict[str, Any]:
    """What a reader finds right now."""
    engine = open_engine(url)
    path = path_of(engine)
    if path is not None and not path.exists():
        return {"revision": None, "tables": 0, "files": []}
    with reading(engine) as connection:
        found = migrate.stored_revision(connection)
        names = inspect(connection).get_table_names()
        seen = {
            "revision": found and found.number,
            "tables": len(set(names) & set(metadata.tables)),
            "others": [name for name in names if name.startswith("_alembic")],
            "added": "plans" in names and "added" in {one["name"] for one in inspect(connection).get_columns("plans")},
            "rows": connection.scalar(text("SELECT count(*) FROM partitions")) if "partitions" in names else None,
        }
    engine.dispose()
    seen["files"] = sorted(one.name for one in path.parent.iterdir()) if path is not None else []
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
