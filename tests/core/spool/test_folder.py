"""The folder of segment files: durable names, drafts, sweeping, locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxly.errors import CorruptSegmentError, LeaseHeldError, SpoolError
from muxly.spool import FolderSpool, SpoolLock


@pytest.fixture
def spool(tmp_path: Path) -> FolderSpool:
    """A spool in a folder that is not there yet."""
    return FolderSpool(tmp_path / "deep" / "spool")


def published(spool: FolderSpool, content: bytes) -> str:
    """A file of that content."""
    draft = spool.draft(1)
    draft.write(content)
    return spool.put(draft)


def test_published_file_holds_what_was_written_and_no_draft_is_left(spool: FolderSpool) -> None:
    name = published(spool, b"abc" * 1000)
    assert (spool.folder / name).read_bytes() == b"abc" * 1000
    assert spool.list() == {name}
    assert [one.name for one in spool.folder.iterdir()] == [name]


def test_draft_is_not_listed_and_is_readable_by_its_owner_only(spool: FolderSpool) -> None:
    draft = spool.draft(7)
    assert spool.list() == set()
    assert draft.path.stat().st_mode & 0o777 == 0o600
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    draft.discard()
    draft.discard()
    assert not draft.path.exists()


def test_short_writes_are_continued(spool: FolderSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("muxly.spool.folder.os.write", lambda file, content: real(file, content[:3]))
    draft = spool.draft(1)
    draft.write(b"0123456789")
    assert draft.length == 10
    assert (spool.folder / spool.put(draft)).read_bytes() == b"0123456789"


def test_draft_is_synced_once_and_a_failure_is_not_believed_later(
    spool: FolderSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = spool.draft(1)
    draft.sync()
    draft.sync()

    def broken(file: int) -> None:
        raise OSError(5, "Input/output error")

    failing = spool.draft(1)
    with monkeypatch.context() as patch:
        patch.setattr("muxly.spool.folder.os.fsync", broken)
        with pytest.raises(SpoolError, match="Input/output error"):
            failing.sync()
    with pytest.raises(SpoolError, match="cannot write to the spool"):
        spool.put(failing)
    assert not failing.path.exists()
    draft.discard()


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"cannot write to the spool .*file/spool: Not a directory"):
        FolderSpool(tmp_path / "file" / "spool").draft(1)


def test_new_folders_are_durable_in_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        real(file)

    monkeypatch.setattr("muxly.spool.folder.os.fsync", fsync)
    FolderSpool(tmp_path / "one" / "two").identity()
    assert {str(tmp_path), str(tmp_path / "one"), str(tmp_path / "one" / "two")} <= set(synced)


def test_identity_stays_when_the_folder_moves(spool: FolderSpool, tmp_path: Path) -> None:
    name = spool.identity()
    assert spool.identity() == name
    spool.folder.rename(tmp_path / "elsewhere")
    assert FolderSpool(tmp_path / "elsewhere").identity() == name
    assert FolderSpool(tmp_path / "other").identity() != name


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (5, 6), (100, 1)])
def test_file_that_is_too_short_is_corrupt(spool: FolderSpool, offset: int, length: int) -> None:
    name = published(spool, b"0123456789")
    with pytest.raises(CorruptSegmentError, match="is 10 bytes long, not"):
        spool.open(name, offset, length)


def test_empty_or_missing_file_is_corrupt(spool: FolderSpool) -> None:
    with pytest.raises(CorruptSegmentError, match="is 0 bytes long, not 8"):
        spool.open(published(spool, b""), 0, 8)
    with pytest.raises(CorruptSegmentError, match="is missing"):
        spool.open("nothing.arrow", 0, 8)


def test_sweep_spares_what_is_named_and_what_is_as_young(spool: FolderSpool) -> None:
    kept, stray = published(spool, b"kept"), published(spool, b"stray")
    old, mine, later = spool.draft(3), spool.draft(4), spool.draft(5)
    (spool.folder / "notes.txt").touch()
    assert spool.sweep(named={kept}, token=4) == 2
    assert spool.list() == {kept}
    assert [old.path.exists(), mine.path.exists(), later.path.exists()] == [False, True, True]
    assert (spool.folder / "notes.txt").exists()
    assert not (spool.folder / stray).exists()
    for draft in (old, mine, later):
        draft.discard()


def test_sweep_of_a_spool_that_is_not_there_is_nothing(spool: FolderSpool) -> None:
    assert spool.sweep(named=set(), token=1) == 0
    spool.delete(["never.arrow"])


def test_delete_that_is_refused_names_the_spool(spool: FolderSpool) -> None:
    (spool.folder / "folder.arrow").mkdir(parents=True)
    with pytest.raises(SpoolError, match="cannot delete from the spool"):
        spool.delete(["folder.arrow"])


def test_lock_is_held_by_one_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "spool" / "daily.lock"
    first = SpoolLock(path, pipeline="daily", holder="the first")
    second = SpoolLock(path, pipeline="daily", holder="the second")
    first.acquire()
    with pytest.raises(LeaseHeldError, match="'daily' is already being run by the first"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_lock_in_a_place_that_is_no_folder_says_what_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    lock = SpoolLock(tmp_path / "home" / "spool" / "daily.lock", pipeline="daily", holder="a")
    with pytest.raises(SpoolError, match=r"cannot write to the spool .*/home/spool: Not a directory; .*`home:`"):
        lock.acquire()


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "daily.lock"
    code = (
        "import os, pathlib; from muxly.spool import SpoolLock\n"
        f"SpoolLock(pathlib.Path({str(path)!r}), pipeline='daily', holder='a').acquire()\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    lock = SpoolLock(path, pipeline="daily", holder="b")
    lock.acquire()
    lock.release()
