"""Full, read-only, removed and hostile folders: the route says so, and nothing is half there."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.parquet as pq
import pytest

import muxly
from muxly.errors import CorruptSegmentError
from muxly_routers.file import folder as rename
from muxly_routers.file.folder import Folder
from muxly_routers.file.staging import WorkFolder
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muxly_routers.file import File

    Opened = Callable[..., File]

ORDERS = muxly.Stream("orders", overwrite_key="key")
RECORDS = [{"id": number, "key": number % 3} for number in range(12)]


def orders(id: str = "01X", **facts: Any) -> muxly.Delivery:
    return delivery(facts.pop("records", RECORDS), ORDERS, id=id, batch_records=4, **facts)


def ids(root: Path) -> list[int]:
    found = root.glob("orders/**/*.parquet")
    return sorted(one for path in found for one in pq.ParquetFile(path).read()["id"].to_pylist())


def left(root: Path) -> list[str]:
    """Files that are not records."""
    return [str(path) for path in root.rglob("*") if path.is_file() and path.suffix not in (".parquet", ".last")]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, call: int = 1) -> None:
    """Let the call of that number fail once."""
    calls, real = [0], getattr(os, name)

    def fake(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(os, name, fake)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_disk_that_takes_nothing_stops_the_route_with_path_cause_and_next_step(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    router = opened()
    with monkeypatch.context() as patch:
        failing(patch, "write", number)
        with pytest.raises(muxly.RouteError, match=rf"cannot write {root}/\.muxly/.*\({errno.errorcode[number]}\); \w"):
            router.deliver(orders())
    assert (ids(root), left(root)) == ([], [])
    router.close()
    opened(run="01C").deliver(orders())
    assert ids(root) == list(range(12))


@pytest.mark.parametrize("name", ["write", "fsync", "mkdir"])
def test_fault_that_passes_is_tried_again(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    router = opened()
    with monkeypatch.context() as patch:
        failing(patch, name, errno.EIO)
        with pytest.raises(muxly.RetryableError, match=r"Input/output error \(EIO\)"):
            router.deliver(orders())
    assert left(root) == []
    router.close()
    opened().deliver(orders())
    assert ids(root) == list(range(12))


def test_failed_fsync_is_never_repeated_on_the_same_file(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have dropped the pages: a second fsync would succeed and mean nothing."""
    synced: list[str] = []
    failed: list[str] = []

    def fsync(fd: int) -> None:
        name = str(Path(f"/proc/self/fd/{fd}").readlink())
        if name in failed:
            synced.append(name)
        if not failed and name.endswith(".tmp"):
            failed.append(name)
            raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fsync", fsync)
    router = opened()
    with pytest.raises(muxly.RetryableError, match="cannot make durable"):
        router.deliver(orders())
    router.deliver(orders())
    assert len(failed) == 1
    assert synced == []
    assert ids(root) == list(range(12))


def test_short_writes_lose_nothing(opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: real(fd, bytes(view[: max(1, len(view) // 3)])))
    opened().deliver(orders())
    assert ids(root) == list(range(12))


def test_limit_of_the_file_size_is_an_error_of_the_route(root: Path) -> None:
    """A real one: the kernel refuses to write past the limit."""
    code = f"""
import pathlib, resource, signal, muxly
from muxly_testing import delivery
from muxly_routers.file import File
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
router = File(path=pathlib.Path({str(root)!r}), format="jsonl")
router.open(muxly.Run("01B", "daily"))
try:
    router.deliver(delivery([{{"text": "x" * 1000}}] * 1000, "orders"))
except muxly.RouteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large (EFBIG); " in done.stdout
    assert left(root) == []


def test_file_system_without_locks_is_named_and_nothing_stays(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(muxly.RouteError, match=r"cannot lock .*\(ENOLCK\); the file system does not support locks"):
        opened().deliver(orders())
    assert left(root) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory, where this user may."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"mount-{len(made)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount")
        made.append(path)
        return path

    yield mount
    for path in made:
        subprocess.run(["umount", str(path)], check=True)


def test_full_disk_stops_the_route_and_room_lets_it_go_on(mounted: Callable[[str], Path], opened: Opened) -> None:
    root = mounted("size=1m")
    ballast = root / "ballast"
    ballast.write_bytes(b"x" * 900_000)
    big = [{"id": number, "text": os.urandom(300).hex()} for number in range(1000)]
    with pytest.raises(muxly.RouteError, match=r"No space left on device \(ENOSPC\); make room there"):
        opened(path=root).deliver(orders(records=big))
    assert left(root) == [str(ballast)]
    ballast.unlink()
    opened(path=root, run="01C").deliver(orders(records=big))
    assert ids(root) == list(range(1000))


def test_read_only_disk_is_named_by_check_and_by_deliver(mounted: Callable[[str], Path], opened: Opened) -> None:
    root = mounted("ro,size=1m")
    assert [(one.code, one.level) for one in opened(path=root / "out").check()] == [("not_writable", "error")]
    with pytest.raises(muxly.RouteError, match=r"Read-only file system \(EROFS\); the file system is read-only"):
        opened(path=root / "out").deliver(orders())


def test_path_below_a_file_is_named(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(muxly.RouteError, match=r"\(ENOTDIR\); a file or a symbolic link stands"):
        opened(path=tmp_path / "file" / "out").deliver(orders())


@pytest.mark.parametrize("fate", ["removed", "replaced", "replaced by a link"])
def test_folder_that_goes_while_the_router_is_open_is_noticed(
    opened: Opened, root: Path, tmp_path: Path, fate: str
) -> None:
    router = opened()
    router.deliver(orders("01A"))
    root.rename(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if fate == "replaced":
        root.mkdir()
    elif fate == "replaced by a link":
        root.symlink_to(elsewhere)
    with pytest.raises(muxly.RouteError, match=r"\(ENOENT\)|was replaced by another folder"):
        router.deliver(orders("01B"))
    assert list(elsewhere.iterdir()) == []
    router.close()
    opened(run="01C").deliver(orders("01B"))
    assert ids(root) == list(range(12))


def test_folder_that_goes_in_the_middle_of_a_delivery_is_noticed(opened: Opened, root: Path, tmp_path: Path) -> None:
    one = orders("01A")

    def source() -> Iterator[Any]:
        for number, batch in enumerate(one.all_batches()):
            if number == 1:
                root.rename(tmp_path / "moved")
            yield batch

    router = opened()
    with pytest.raises(muxly.RouteError, match=r"\(ENOENT\)"):
        router.deliver(attrs.evolve(one, source=attrs.evolve(one.source, batches=source)))


@pytest.mark.parametrize("mode", ["append", "overwrite", "replace"])
def test_link_below_the_root_is_never_followed(opened: Opened, root: Path, tmp_path: Path, mode: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / "orders").symlink_to(outside)
    router = opened()
    with pytest.raises(muxly.RouteError, match=r"orders: .*a (file or a )?symbolic link stands where a folder"):
        if mode == "replace":
            router.begin(ORDERS, 1)
            router.deliver(orders(mode="replace", generation=1))
            router.complete(ORDERS, 1)
        else:
            router.deliver(orders(mode=mode))
    assert list(outside.iterdir()) == []
    assert left(root) == []


def test_link_in_the_place_of_the_work_folder_is_not_followed(opened: Opened, root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (root / ".muxly").symlink_to(tmp_path / "outside")
    with pytest.raises(muxly.RouteError, match="symbolic link stands"):
        opened().deliver(orders())


def test_link_in_the_place_of_a_file_is_a_conflict(opened: Opened, root: Path, tmp_path: Path) -> None:
    (root / "orders").mkdir(parents=True)
    (root / "orders/01X.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(muxly.ConflictError, match=r"01X\.jsonl"):
        opened(format="jsonl").deliver(orders())
    assert not (tmp_path / "outside").exists()


def test_name_that_is_too_long_is_named(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(muxly.RouteError, match=r"\(ENAMETOOLONG\); choose a shorter path"):
        opened(path=tmp_path / ("x" * 300)).deliver(orders())
    with pytest.raises(muxly.RouteError, match=r"\(ENAMETOOLONG\); choose a shorter path"):
        opened(file_name="x" * 250 + "{delivery}").deliver(orders())


def test_error_of_the_records_is_passed_on_and_nothing_stays(opened: Opened, root: Path) -> None:
    one = orders()

    def source() -> Iterator[Any]:
        yield next(one.all_batches())
        raise CorruptSegmentError("segment 7 is damaged")

    broken = attrs.evolve(one, source=attrs.evolve(one.source, batches=source))
    for options in ({}, {"partition_by": ["key"]}, {"format": "csv", "compression": "zstd"}, {"format": "arrow"}):
        with pytest.raises(CorruptSegmentError, match="segment 7"):
            opened(**options).deliver(broken)
    assert (ids(root), left(root)) == ([], [])


def test_too_few_descriptors_is_an_error_that_passes(opened: Opened, root: Path) -> None:
    router = opened(partition_by=["id"])
    router.deliver(orders("01A"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    filling = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(filling) + 4, hard))
    try:
        with pytest.raises(muxly.RetryableError, match="EMFILE"):
            router.deliver(orders("01B"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filling:
            os.close(fd)
    router.deliver(orders("01B"))
    assert ids(root) == sorted([*range(12), *range(12)])


def test_no_descriptor_is_left_open(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    router = opened(partition_by=["key"])
    router.deliver(orders("00"))
    before = descriptors()
    for number in range(10):
        router.deliver(orders(f"01{number}"))
        router.deliver(orders(f"02{number}", mode="overwrite", replaces=[0, 1, 7]))
        with monkeypatch.context() as patch:
            failing(patch, "fsync", errno.ENOSPC, call=number % 5 + 1)
            with pytest.raises(muxly.RouteError, match="ENOSPC"):
                router.deliver(orders(f"03{number}"))
        router.begin(muxly.Stream("other"), number)
        router.complete(muxly.Stream("other"), number)
    assert descriptors() == before


def test_what_older_runs_left_behind_is_swept_and_nothing_else(opened: Opened, root: Path) -> None:
    opened(run="01A").deliver(orders("01A"))
    work = root / ".muxly"
    names = {}
    for run, pipeline in (("01A", "daily"), ("01B", "daily"), ("01C", "daily"), ("01A", "hourly")):
        with Folder.root(root) as folder:
            names[run, pipeline] = WorkFolder(folder, pipeline, run).free_name(".tmp")
    for name in names.values():
        (work / name).write_bytes(b"half")
    swap = names["01A", "daily"].replace(".tmp", ".swap")
    (work / swap / "key=1").mkdir(parents=True)
    (work / swap / "key=1" / "x.parquet").write_bytes(b"old")
    (work / "notes.txt").write_bytes(b"mine")
    opened(run="01B").deliver(orders("01Z"))
    kept = {names["01B", "daily"], names["01C", "daily"], names["01A", "hourly"], "notes.txt"}
    assert {path.name for path in work.iterdir()} == kept


def test_file_that_is_being_written_is_not_swept(opened: Opened, root: Path) -> None:
    """A zombie of an older run still writes: its file is locked as long as it lives."""
    late = orders("01A")

    def source() -> Iterator[Any]:
        for number, batch in enumerate(late.all_batches()):
            if number == 1:
                # Of another content, for which it does not wait until the zombie has encoded its own.
                opened(run="01Z").deliver(orders("01Z", digest="another"))
            yield batch

    opened(run="01A").deliver(attrs.evolve(late, source=attrs.evolve(late.source, batches=source)))
    assert ids(root) == sorted([*range(12), *range(12)])


@pytest.mark.parametrize("known", [True, False])
def test_modes_work_where_the_kernel_knows_no_special_rename(
    opened: Opened, root: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if not known:
        monkeypatch.setattr(rename, "_renameat2", lambda: None)
    router = opened()
    router.deliver(orders("01A"))
    router.deliver(orders("01A"))
    assert ids(root) == list(range(12))
    for id in ("01B", "01C"):
        router.deliver(orders(id, mode="overwrite"))
    stream = muxly.Stream("full")
    for generation in (1, 2):
        router.begin(stream, generation)
        one = delivery(RECORDS, stream, id=f"02{generation}", mode="replace", generation=generation)
        router.deliver(one)
        router.complete(stream, generation)
    assert [path.name for path in root.glob("full/*/*")] == ["022.parquet"]
    assert sorted(path.name for path in root.glob("orders/*/*")) == ["01C.parquet"] * 3
    assert left(root) == []
