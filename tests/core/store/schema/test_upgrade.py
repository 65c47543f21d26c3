"""A store is created, upgraded or refused; nothing is ever between two revisions, and no row is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, exc, insert, inspect, select, text, update

from muxly.errors import StoreError
from muxly.store.database.engine import reading, transaction
from muxly.store.database.sqlite import path_of
from muxly.store.schema import migrate
from muxly.store.schema.migrate import Revision
from muxly.store.schema.tables import leases
from muxly.store.schema.upgrade import check, current, ensure_current, head, open_store, upgrade
from tests.core.store.schema.upgrading import LATER, TODAY, fill

_Open = Callable[[str], Engine]
_PROGRAM = Path(__file__).with_name("upgrading.py")


def test_newest_migration_is_the_revision_of_the_code() -> None:
    scripts = ScriptDirectory(str(migrate.SCRIPTS))
    assert scripts.get_heads() == [head()] == [migrate.HEAD]
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True), "a later revision has a greater number"


def test_place_without_a_store_is_left_alone_by_looking(store_url: str) -> None:
    assert current(store_url) is None
    (problem,) = check(store_url)
    assert "there is no store at" in problem
    assert "muxly db upgrade" in problem
    assert current(store_url) is None


def test_upgrade_creates_a_store_and_says_who_did(store_url: str) -> None:
    made = upgrade(store_url)
    assert made == current(store_url) == upgrade(store_url)
    assert (made.number, made.muxly) == (head(), "0.1.0")
    assert made.upgraded_at is not None
    assert abs(made.upgraded_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert check(store_url) == ()


def test_tables_created_at_once_are_those_that_migrations_make(opened: _Open, store_url: str) -> None:
    engine = opened(store_url)
    at_once = _schema(engine)
    _drop_all(engine)
    _migrate_from_nothing(engine)
    assert _schema(engine) == at_once
    engine.dispose()
    assert check(store_url) == ()


def test_store_of_the_first_revision_is_upgraded_and_keeps_its_rows(opened: _Open, store_url: str) -> None:
    engine = opened(store_url)
    _drop_all(engine)
    _migrate_from_nothing(engine, to="0001")
    fill(engine)
    ensure_current(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT id, boundaries FROM plans")).all() == [("p", None)]
        assert connection.scalar(text("SELECT count(*) FROM partitions WHERE boundaries IS NULL")) == 2
    _expect_checked_keys(engine)
    engine.dispose()
    assert check(store_url) == ()


def test_check_names_what_was_changed_by_hand(opened: _Open, store_url: str) -> None:
    engine = opened(store_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN mine INTEGER")
        connection.exec_driver_sql("DROP INDEX ix_runs_pipeline_started_at")
        connection.exec_driver_sql("CREATE TABLE somebody_elses (id INTEGER)")
    engine.dispose()
    problems = check(store_url)
    assert len(problems) == 2
    assert any("'mine'" in problem for problem in problems)
    assert any("ix_runs_pipeline_started_at" in problem for problem in problems)


def test_newer_store_is_refused_in_a_plain_sentence(opened: _Open, store_url: str) -> None:
    engine = opened(store_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE store_revision SET version_num = '0042', muxly = '3.1.4'")
    engine.dispose()
    sentence = (
        r"was written by Muxly 3\.1\.4 \(revision 0042\); this is Muxly 0\.1\.0, which supports revisions up to \d{4}"
        r"\. Install Muxly 3\.1\.4 or later, or restore the backup"
    )
    for refused in (open_store, upgrade, check):
        with pytest.raises(StoreError, match=sentence):
            refused(store_url)
    assert current(store_url) == Revision("0042", muxly="3.1.4", upgraded_at=_none_safe(current(store_url)).upgraded_at)


def test_upgrade_keeps_every_row_also_of_children(
    opened: _Open, store_url: str, later_release: Callable[..., None]
) -> None:
    engine = opened(store_url)
    fill(engine)
    later_release()
    assert "run `muxly db upgrade`" in check(store_url)[0]
    ensure_current(engine)
    with reading(engine) as connection:
        assert _none_safe(migrate.stored_revision(connection)).number == LATER
        assert connection.scalars(text("SELECT added FROM plans")).all() == [7]
        # With foreign keys on, re-creating `plans` would have emptied its children.
        assert connection.scalar(text("SELECT count(*) FROM partitions")) == 2
    _expect_checked_keys(engine)


def _expect_checked_keys(engine: Engine) -> None:
    orphan = text("INSERT INTO partitions (plan, ordinal, partition, done) VALUES ('none', 0, 'x', 0)")
    with pytest.raises(exc.IntegrityError, match=r"(?i)foreign key"), transaction(engine) as connection:
        connection.execute(orphan)


def test_failed_migration_leaves_the_store_as_it_was(
    opened: _Open, store_url: str, later_release: Callable[..., None]
) -> None:
    engine = opened(store_url)
    fill(engine)
    before = _schema(engine)
    later_release(f'op.drop_table("runs")\n    op.drop_table("partitions")\n    {"raise OSError(13)"}')
    with pytest.raises(OSError, match="13"):
        ensure_current(engine)
    assert _schema(engine) == before


def test_migration_that_orphans_rows_is_undone(
    opened: _Open, sqlite_store_url: str, later_release: Callable[..., None]
) -> None:
    engine = opened(sqlite_store_url)
    fill(engine)
    later_release('op.execute("DELETE FROM plans")')
    with pytest.raises(StoreError, match=r"row \d of the table partitions refers to a missing row of plans"):
        ensure_current(engine)
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM plans")) == 1
        assert _none_safe(migrate.stored_revision(connection)).number == TODAY
    _expect_checked_keys(engine)


def test_store_is_copied_before_it_is_upgraded(
    opened: _Open, sqlite_store_url: str, later_release: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(sqlite_store_url)
    fill(engine)
    path = _none_safe(path_of(engine))
    with monkeypatch.context():
        later_release()
        ensure_current(engine)
        engine.dispose()
    copy = path.with_name(f"store.db.backup-{TODAY}")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", copy.name]

    monkeypatch.undo()
    copy.replace(path)
    restored = opened(sqlite_store_url)
    with reading(restored) as connection:
        assert connection.scalar(text("SELECT count(*) FROM partitions")) == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    restored.dispose()
    assert check(sqlite_store_url) == ()


def test_upgrade_under_a_running_pipeline_is_refused(
    opened: _Open, store_url: str, later_release: Callable[..., None]
) -> None:
    engine = opened(store_url)
    ends = datetime.now(UTC) + timedelta(minutes=1)
    with transaction(engine) as connection:
        connection.execute(insert(leases).values(pipeline="crm", token=1, holder="host:7", expires_at=ends))
    later_release()
    with pytest.raises(
        StoreError, match=rf"from revision {TODAY} to {LATER}, but host:7 is running the pipeline 'crm'"
    ):
        ensure_current(engine)
    with transaction(engine) as connection:
        connection.execute(update(leases).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    ensure_current(engine)
    with reading(engine) as connection:
        assert connection.scalars(select(leases.c.token)).all() == [1]


def test_four_processes_may_create_a_store_at_once(store_url: str, later_scripts: Path) -> None:
    _all_at_once(4, store_url, later_scripts, TODAY)
    assert check(store_url) == ()


def test_four_processes_may_upgrade_a_store_at_once(
    opened: _Open, store_url: str, later_scripts: Path, later_release: Callable[..., None]
) -> None:
    engine = opened(store_url)
    fill(engine)
    engine.dispose()
    _all_at_once(4, store_url, later_scripts, LATER)
    later_release()
    assert _none_safe(current(store_url)).number == LATER
    with reading(opened(store_url)) as connection:
        assert connection.scalar(text("SELECT count(*) FROM partitions")) == 2


def test_process_killed_while_it_creates_a_store_leaves_all_or_nothing(store_url: str, later_scripts: Path) -> None:
    deaths = _die_everywhere(store_url, later_scripts, TODAY)
    assert len(deaths) > 3
    for death in deaths:
        assert death["between"]["revision"] in {None, TODAY}, death
        assert death["between"]["tables"] == (11 if death["between"]["revision"] else 0), death
        assert death["after"]["revision"] == TODAY, death
        assert death["after"]["tables"] == 11, death


def test_process_killed_while_it_upgrades_leaves_the_old_or_the_new(store_url: str, later_scripts: Path) -> None:
    deaths = _die_everywhere(store_url, later_scripts, LATER)
    assert len(deaths) > 3
    for death in deaths:
        between, after = death["between"], death["after"]
        assert between["added"] == (between["revision"] == LATER), death
        assert (between["tables"], between["others"], between["rows"]) == (11, [], 2), death
        assert (after["revision"], after["added"], after["rows"], after["others"]) == (LATER, True, 2, []), death
        if store_url.startswith("sqlite"):
            assert f"store.db.backup-{TODAY}" in after["files"], death


def _all_at_once(processes: int, url: str, scripts: Path, number: str) -> None:
    command = [sys.executable, str(_PROGRAM), "race", url, str(scripts), number, str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def _die_everywhere(url: str, scripts: Path, number: str) -> list[dict[str, Any]]:
    # PostgreSQL undoes a lost transaction at the server, which a few deaths show as well as many.
    step = "1" if url.startswith("sqlite") else "4"
    command = [sys.executable, str(_PROGRAM), "die", url, str(scripts), number, step]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    last = deaths.pop()
    assert last["status"] == 0, last
    return deaths


def _none_safe(value: Any) -> Any:
    assert value is not None
    return value


def _drop_all(engine: Engine) -> None:
    from muxly.store.schema.tables import metadata

    with transaction(engine) as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE store_revision")


def _migrate_from_nothing(engine: Engine, to: str = TODAY) -> None:
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    with transaction(engine) as connection:
        migrate.stamp(connection, "none")
        connection.exec_driver_sql("DELETE FROM store_revision")
        config.attributes["muxly"] = {"connection": connection, "version_table": migrate.VERSION_TABLE}
        command.upgrade(config, to)
        migrate.stamp(connection, to)


def _schema(engine: Engine) -> dict[str, Any]:
    """Everything that the database itself says of its tables."""
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            # The order of constraints, the line breaks and the quotes are the writer's.
            return {name: sorted(_words(sql)) for name, sql in rows}
        inspector = inspect(connection)
        tables = {
            name: (
                [repr(sorted(column.items(), key=str)) for column in inspector.get_columns(name)],
                inspector.get_table_comment(name),
                sorted(map(repr, inspector.get_check_constraints(name))),
            )
            for name in inspector.get_table_names()
        }
        queries = {
            "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace",
            "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        }
        found = {kind: sorted(map(tuple, connection.exec_driver_sql(query))) for kind, query in queries.items()}
        return {"tables": tables, **found}


def _words(sql: str) -> list[str]:
    return [line.strip().rstrip(",").replace('"', "") for line in sql.splitlines()]
