"""What routers that write files say when the operating system does not let them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import muxly
from muxly_routers._failures import check_folder, failures_at
from muxly_routers.prometheus import files


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EIO, muxly.RetryableError, r"^cannot write out/x: Input/output error \(EIO\)$"),
        (errno.ETIMEDOUT, muxly.RetryableError, "ETIMEDOUT"),
        (errno.ENOSPC, muxly.RouteError, r"\(ENOSPC\); make room there"),
        (errno.ENOLCK, muxly.RouteError, r"\(ENOLCK\); the file system does not support locks"),
        (errno.EXDEV, muxly.RouteError, r"\(EXDEV\); folders of this route lie on different file systems"),
        (errno.ENODEV, muxly.RouteError, "; see whether the folder of this route is in order"),
        (None, muxly.RouteError, r"odd \(no number\); see whether"),
    ],
)
def test_error_says_what_where_and_the_next_step(
    number: int | None, kind: type[muxly.MuxlyError], message: str
) -> None:
    error = OSError("odd") if number is None else OSError(number, os.strerror(number))
    with pytest.raises(kind, match=message), failures_at("out/x"):
        raise error


def test_small_files_of_another_router_say_it_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(muxly.RouteError, match=r"cannot write .*\(EEXIST\); something else stands where"):
        files.replace_file(tmp_path / "file" / "x.prom", b"x", mode=0o600, token=1)
    (tmp_path / "folder").mkdir()
    for call, doing in ((files.read_file, "read"), (files.remove_file, "remove")):
        with pytest.raises(muxly.RouteError, match=rf"cannot {doing} .*folder: Is a directory .*; a folder stands"):
            call(tmp_path / "folder")


def test_folder_that_can_be_made_is_fine_and_nothing_is_made(tmp_path: Path) -> None:
    assert [one for one in check_folder(tmp_path / "a" / "b") if one.level == "error"] == []
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_looked_at_is_a_notice(tmp_path: Path) -> None:
    (notice,) = check_folder(tmp_path / ("x" * 300))
    assert (notice.code, notice.level) == ("not_writable", "error")
    assert "(ENAMETOOLONG); choose a shorter path" in notice.message


def test_folder_with_little_space_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    little = os.statvfs_result((found.f_bsize, found.f_frsize, *found[2:4], 1, *found[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    (notice,) = check_folder(tmp_path)
    assert (notice.code, notice.level) == ("little_space", "warning")
    assert notice.message == f"less than 64 MiB are free at {tmp_path}; make room there"
