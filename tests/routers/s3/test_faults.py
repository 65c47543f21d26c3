"""What the S3 router does when the store, or the way to it, goes wrong."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pytest

import muxly
from muxly_routers.s3 import S3, connections
from muxly_routers.s3.client import Clients
from muxly_testing import delivery
from tests.fixtures_s3 import Store
from tests.routers.s3.deliveries import Lake, numbered
from tests.routers.s3.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITING = r"^PUT /[^?]*numbers/[^?]*$"
PART = r"^PUT .*partNumber=\d"
ENDING = r"^POST .*[?&]uploadId="
ABORTING = r"^DELETE .*[?&]uploadId="
PARTS: dict[str, Any] = {"format": "jsonl", "single_put_bytes": 0, "part_bytes": 5 << 20}


@pytest.fixture(scope="module")
def running(seaweed: Store) -> Iterator[Proxy]:
    # The routers of all tests share a client, as those of one process do while a run lasts.
    run = muxly.Run("01A", "all")
    run.shared("muxly_routers.s3.clients", Clients)
    with Proxy(seaweed.url) as one:
        yield one
    run.end()


@pytest.fixture
def proxy(running: Proxy) -> Iterator[Proxy]:
    yield running
    running.reset()


@pytest.fixture
def lake(seaweed: Store, proxy: Proxy) -> Iterator[Lake]:
    with Lake(Store(proxy.url), seaweed) as one:
        yield one


@pytest.fixture
def careless(moto: Store) -> Iterator[tuple[Lake, Proxy]]:
    """A store that takes requests which were changed on their way."""
    with Proxy(moto.url) as running, Lake(Store(running.url), moto) as one:
        yield one, running


@functools.cache
def _large() -> pa.Table:
    text = "".join(chr(97 + index * 7919 % 26) for index in range(1 << 18))
    return pa.table({"id": range(45), "text": [f"{number}{text}" for number in range(45)]})


def large(**facts: Any) -> muxly.Delivery:
    """A delivery of three parts."""
    return delivery(_large(), "numbers", **facts)


def ids(lake: Lake, key: str) -> list[int]:
    return [json.loads(line)["id"] for line in lake.content(key).splitlines()]


def test_busy_store_is_asked_again_at_once_a_few_times(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=WRITING, times=2, status=503, code="SlowDown"))
    lake.router().deliver(numbered(1))
    assert len(proxy.lines(WRITING)) == 3
    assert len(lake.keys()) == 1


def test_store_that_stays_busy_is_left_to_the_runner(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=WRITING, times=9, status=503, code="SlowDown"))
    with pytest.raises(muxly.RetryableError, match=r"cannot write s3://.*SlowDown, HTTP 503"):
        lake.router().deliver(numbered(1))
    assert len(proxy.lines(WRITING)) == 3


def test_wait_that_the_store_asks_for_is_passed_on(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=WRITING, status=503, code="SlowDown", headers={"Retry-After": "7"}))
    with pytest.raises(muxly.RetryableError, match="SlowDown") as caught:
        lake.router().deliver(numbered(1))
    assert caught.value.retry_after == 7
    assert len(proxy.lines(WRITING)) == 1


@pytest.mark.parametrize("how", ["answer", "hang_up"])
def test_lost_answer_of_a_write_that_was_applied_is_no_conflict(lake: Lake, proxy: Proxy, how: Any) -> None:
    proxy.faults.append(Fault(on=WRITING, applied=True, how=how))
    lake.router(format="jsonl").deliver(numbered(1, 2))
    (key,) = lake.keys()
    assert ids(lake, key) == [1, 2]


def test_answer_that_breaks_off_is_asked_for_again(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=r"^GET .*list-type", times=1, how="truncate", applied=True))
    router = lake.router()
    router.begin(muxly.Stream("numbers"), 1)
    assert len(proxy.lines(r"^GET .*list-type")) >= 2


def test_conditional_conflict_is_tried_again(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=WRITING, status=409, code="ConditionalRequestConflict"))
    lake.router().deliver(numbered(1))
    assert len(lake.keys()) == 1


def test_foreign_object_is_a_conflict_and_stays(lake: Lake) -> None:
    one = numbered(1)
    lake.put(f"numbers/{one.id}.parquet")
    with pytest.raises(muxly.ConflictError, match="is there already with other content, and is not overwritten"):
        lake.router().deliver(one)
    assert lake.content(f"numbers/{one.id}.parquet") == b"foreign"


def test_store_that_does_not_answer_is_given_up_in_time(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=WRITING, times=3, how="stall"))
    router = lake.router(timeout_seconds=0.2)
    with pytest.raises(muxly.RetryableError, match=r"Read timeout.*; is the server stuck or busy"):
        router.deliver(numbered(1))


def test_closed_port_may_open_again() -> None:
    router = S3(
        bucket="lake", endpoint_url="http://127.0.0.1:1", access_key_id="a", secret_access_key=muxly.Secret("bbbb")
    )
    run = muxly.Run("01A", "daily")
    router.open(run)
    with pytest.raises(
        muxly.RetryableError,
        match=r"cannot list s3://lake/.*: no connection to 127.*, port 1: Connection refused; is the server running",
    ):
        router.deliver(numbered(1))
    router.close()
    run.end()


def test_answer_that_is_no_store_s_may_pass(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=r"list-type", times=9, status=200, body=b"<html>Sign in to the hotel"))
    with pytest.raises(muxly.RetryableError, match=r"cannot list s3://.*HTTP 500"):
        lake.router().deliver(numbered(1))


def test_answer_of_a_hostile_store_does_no_harm_where_it_is_shown(lake: Lake, proxy: Proxy) -> None:
    shown = "A&#10;B" + "x" * 9000
    body = f"<?xml version='1.0'?><Error><Code>Odd&#9;Code</Code><Message>{shown}</Message></Error>".encode()
    proxy.faults.append(Fault(on=WRITING, status=400, body=body))
    with pytest.raises(muxly.RouteError, match=r": A Bx{197} \(Odd Code, HTTP 400\); see what the store"):
        lake.router().deliver(numbered(1))
    proxy.faults.insert(0, Fault(on=r"list-type", times=9, status=200, body=b"<\x1b[2J" + b"y" * 9000))
    with pytest.raises(muxly.RetryableError, match=r"^[ -~]{20,500}$"):
        lake.router().deliver(numbered(1))


def test_missing_bucket_is_named_with_the_next_step(seaweed: Store) -> None:
    with (
        Lake(seaweed) as lake,
        pytest.raises(
            muxly.RouteError, match=r"NoSuchBucket, HTTP 404\); create the bucket, or correct the option bucket"
        ),
    ):
        lake.router(bucket="nobody-made-this").deliver(numbered(1))


def test_wrong_secret_is_a_wrong_signature(seaweed: Store) -> None:
    with (
        Lake(seaweed) as lake,
        pytest.raises(muxly.RouteError, match=r"SignatureDoesNotMatch, HTTP 403\); check access_key_id"),
    ):
        lake.router(secret_access_key="not-the-secret").deliver(numbered(1))


@pytest.mark.parametrize(
    ("status", "code", "step"),
    [
        (403, "AccessDenied", "give this identity s3:PutObject"),
        (403, "RequestTimeTooSkewed", "set the clock of this machine right"),
        (400, "ExpiredToken", "get a new one"),
        (301, "PermanentRedirect", "set region to the one of the bucket"),
        (400, "InvalidStorageClass", "correct the option storage_class"),
        (400, "KMS.NotFoundException", "correct the option kms_key_id"),
        (418, "Teapot", "see what the store means by that"),
    ],
)
def test_refusal_that_lasts_stops_the_route(lake: Lake, proxy: Proxy, status: int, code: str, step: str) -> None:
    proxy.faults.append(Fault(on=WRITING, times=9, status=status, code=code))
    with pytest.raises(muxly.RouteError, match=re.escape(step)):
        lake.router().deliver(numbered(1))
    assert len(proxy.lines(WRITING)) == 1


def test_expired_credentials_of_the_environment_are_looked_for_anew(
    lake: Lake, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", lake.store.options["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", lake.store.options["secret_access_key"])
    proxy.faults.append(Fault(on=WRITING, status=400, code="ExpiredToken"))
    router = lake.router(access_key_id=None, secret_access_key=None)
    one = numbered(1)
    with pytest.raises(muxly.RetryableError, match="the session token has expired"):
        router.deliver(one)
    router.close()
    router.open(muxly.Run("01B", "daily", route="lake", token=2))
    router.deliver(one)
    assert len(lake.keys()) == 1


def test_identity_without_rights_to_list_delivers_all_the_same(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=r"^GET .*list-type", times=9, status=403, code="AccessDenied"))
    lake.router().deliver(numbered(1))
    assert [notice.code for notice in lake.notices] == ["uploads_not_swept"]
    assert len(lake.keys()) == 1


def test_large_object_arrives_in_parts(lake: Lake, proxy: Proxy) -> None:
    lake.router(**PARTS).deliver(large())
    (key,) = lake.keys()
    assert ids(lake, key) == list(range(45))
    assert len(proxy.lines(PART)) == 3
    assert (lake.uploads(), lake.journal()) == ([], [])


def test_part_is_sent_again_and_not_the_others(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=PART, times=2, status=503, code="SlowDown"))
    lake.router(**PARTS).deliver(large())
    assert len(proxy.lines(PART)) == 5
    assert len(lake.keys()) == 1


@pytest.mark.parametrize("how", ["answer", "hang_up"])
def test_lost_answer_of_the_end_of_an_upload_is_looked_up(lake: Lake, proxy: Proxy, how: Any) -> None:
    proxy.faults.append(Fault(on=ENDING, times=9, applied=True, how=how))
    lake.router(**PARTS).deliver(large())
    assert len(lake.keys()) == 1
    assert (lake.uploads(), lake.journal()) == ([], [])


def test_upload_that_cannot_be_ended_leaves_nothing_behind(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on=ENDING, times=9))
    with pytest.raises(muxly.RetryableError, match="not all of an upload was accepted"):
        lake.router(**PARTS).deliver(large())
    assert (lake.keys(), lake.uploads(), lake.journal()) == ([], [], [])


def test_repeat_of_an_upload_leaves_nothing_behind(lake: Lake) -> None:
    one = large()
    for _ in range(2):
        lake.router(**PARTS).deliver(one)
    assert len(lake.keys()) == 1
    assert (lake.uploads(), lake.journal()) == ([], [])
    with pytest.raises(muxly.ConflictError, match="other content"):
        lake.router(**PARTS).deliver(large(id=one.id, digest="another"))
    assert (lake.uploads(), lake.journal()) == ([], [])


def test_upload_that_cannot_be_aborted_is_swept_by_a_later_run(lake: Lake, proxy: Proxy) -> None:
    proxy.faults += [
        Fault(on=ABORTING, times=9, status=403, code="AccessDenied"),
        Fault(on=PART, after=1, times=9, status=403, code="AccessDenied"),
    ]
    with pytest.raises(muxly.RouteError, match="cannot write part"):
        lake.router(**PARTS).deliver(large())
    assert (len(lake.uploads()), len(lake.journal())) == (1, 1)
    proxy.faults.clear()
    lake.router(route="another", token=2).deliver(numbered(1))
    assert len(lake.uploads()) == 1, "another route leaves it alone"
    lake.router(token=2).deliver(numbered(2))
    assert (lake.uploads(), lake.journal()) == ([], [])


@pytest.mark.parametrize(
    ("at", "problem"),
    [(PART, "the upload was aborted by somebody else"), (ENDING, "not all of an upload was accepted")],
)
def test_upload_that_somebody_else_aborts_is_made_again(lake: Lake, proxy: Proxy, at: str, problem: str) -> None:
    """The run after this one took it for left over."""

    def abort() -> None:
        for one in lake.client.list_multipart_uploads(Bucket=lake.bucket).get("Uploads", []):
            lake.client.abort_multipart_upload(Bucket=lake.bucket, Key=one["Key"], UploadId=one["UploadId"])

    proxy.faults.append(Fault(on=at, how="pass", call=abort))
    one = large()
    with pytest.raises(muxly.RetryableError, match=problem):
        lake.router(**PARTS).deliver(one)
    assert (lake.keys(), lake.uploads(), lake.journal()) == ([], [], [])
    lake.router(**PARTS).deliver(one)
    assert len(lake.keys()) == 1


CHILD = """
import pickle, sys
import muxly
router, delivery = pickle.load(sys.stdin.buffer)
router.open(muxly.Run("01A", "daily", route="lake", token=1))
sys.path.insert(0, {root!r})
from tests.routers.s3.test_faults import large
router.deliver(large(id=delivery))
"""


def test_process_killed_between_two_parts_leaves_nothing_for_long(
    lake: Lake, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import pickle

    monkeypatch.setenv("THE_SECRET", lake.store.options["secret_access_key"])
    router = S3(**{"bucket": lake.bucket, **lake.store.options, "secret_access_key": "${THE_SECRET}", **PARTS})
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(root=str(request.config.rootpath))], stdin=subprocess.PIPE
    )
    proxy.faults.append(Fault(on=PART, after=1, how="pass", call=lambda: os.kill(child.pid, signal.SIGKILL)))
    one = large()
    child.communicate(pickle.dumps((router, one.id)))
    assert child.returncode == -signal.SIGKILL
    assert (lake.keys(), len(lake.uploads()), len(lake.journal())) == ([], 1, 1)
    lake.router(token=2, **PARTS).deliver(one)
    assert len(lake.keys()) == 1
    assert (lake.uploads(), lake.journal()) == ([], [])


def test_records_that_break_off_leave_no_upload(lake: Lake) -> None:
    one = large()

    def breaking_off() -> Iterator[Any]:
        yield from one.all_batches()
        raise muxly.RetryableError("the records broke off")

    with pytest.raises(muxly.RetryableError, match="broke off"):
        lake.router(**PARTS).deliver(attrs.evolve(one, source=attrs.evolve(one.source, batches=breaking_off)))
    assert (lake.keys(), lake.uploads(), lake.journal()) == ([], [], [])


def test_folders_that_an_attempt_has_written_are_not_sent_again(lake: Lake, proxy: Proxy) -> None:
    one = numbered(*range(50))
    proxy.faults.append(Fault(on=r"^PUT .*day(=|%3D)2026-01-03", times=9, status=403, code="AccessDenied"))
    with pytest.raises(muxly.RouteError, match="AccessDenied"):
        lake.router(partition_by=["day"]).deliver(one)
    assert len(lake.keys()) == 4
    proxy.faults.clear()
    proxy.seen.clear()
    lake.router(partition_by=["day"]).deliver(one)
    assert len(lake.keys()) == 5
    assert len(proxy.lines(r"^PUT .*day(=|%3D)")) == 1


def test_value_that_is_refused_leaves_nothing_of_the_delivery(lake: Lake) -> None:
    from datetime import date

    days = pa.array([0, 1, 9_000_000], pa.int32()).cast(pa.date32())
    table = pa.table({"id": [1, 2, 3], "folder": ["a", "b", "c"], "day": days})
    assert table["day"][0].as_py() == date(1970, 1, 1)
    with pytest.raises(muxly.RejectedError, match="outside the years 1 to 9999"):
        lake.router(format="jsonl", partition_by=["folder"]).deliver(delivery(table, "numbers"))
    assert lake.keys() == []


def test_store_that_knows_no_conditions_is_looked_at_first(lake: Lake, proxy: Proxy) -> None:
    proxy.faults.append(Fault(on="PUT", times=99, header="if-none-match", status=501, code="NotImplemented"))
    one = numbered(1)
    for _ in range(2):
        lake.router(format="jsonl").deliver(one)
    with pytest.raises(muxly.ConflictError, match="other content"):
        lake.router(format="jsonl").deliver(numbered(2, id=one.id))
    assert len(lake.keys()) == 1
    assert {notice.code for notice in lake.notices} == {"no_conditional_writes"}


def test_store_that_ignores_conditions_is_found_out(careless: tuple[Lake, Proxy]) -> None:
    lake, proxy = careless
    proxy.faults.append(Fault(on="PUT|POST", times=999, how="strip", header="if-none-match"))
    one = numbered(1)
    lake.put(f"numbers/{one.id}.parquet")
    with pytest.raises(muxly.ConflictError, match="other content"):
        lake.router().deliver(one)
    assert lake.content(f"numbers/{one.id}.parquet") == b"foreign"
    lake.router(**PARTS).deliver(large())
    assert len(lake.keys()) == 2
    assert [notice.code for notice in lake.notices] == ["no_conditional_writes"]


def test_versioned_bucket_gets_one_version(lake: Lake) -> None:
    lake.client.put_bucket_versioning(Bucket=lake.bucket, VersioningConfiguration={"Status": "Enabled"})
    one = numbered(1)
    for _ in range(2):
        lake.router().deliver(one)
    found = lake.client.list_object_versions(Bucket=lake.bucket, Prefix="numbers/")
    assert len(found.get("Versions", [])) == 1


def test_temporary_folder_that_is_full_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for options in ({"single_put_bytes": 64 << 20}, {"partition_by": ["id"]}):
        with pytest.raises(muxly.RouteError, match=r"cannot keep what is to be sent in .*gone: .* let TMPDIR name"):
            lake.router(format="jsonl", **options).deliver(delivery(large().table(), "numbers"))
    monkeypatch.setattr(tempfile, "_get_default_tempdir", _nowhere)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(muxly.RouteError, match=r"in any of the folders for temporary files: .* let TMPDIR name"):
        lake.router(format="jsonl", partition_by=["id"]).deliver(large())


def _nowhere() -> str:
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


def test_object_that_is_not_deleted_this_time_may_be_the_next(lake: Lake, proxy: Proxy) -> None:
    answer = "<DeleteResult><Error><Key>numbers/x</Key><Code>{}</Code><Message>no</Message></Error></DeleteResult>"
    lake.put("numbers/day=2026-01-01/old.parquet")
    one = numbered(1, stream=muxly.Stream("numbers", overwrite_key="day"), mode="overwrite")
    for code, kind, message in (
        ("InternalError", muxly.RetryableError, r"numbers/x: no \(InternalError, HTTP 200\)$"),
        ("AccessDenied", muxly.RouteError, r"\(AccessDenied, HTTP 200\); give this identity s3:PutObject"),
    ):
        proxy.faults.append(Fault(on=r"^POST .*\?delete", status=200, body=answer.format(code).encode()))
        with pytest.raises(kind, match=message):
            lake.router().deliver(one)
    lake.router().deliver(one)
    assert lake.keys() == ["numbers/day=2026-01-01/current.parquet"]


def test_run_that_stops_waits_for_a_silent_store_no_longer_than_its_grace(
    lake: Lake, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_GRACE_SECONDS", 0.5)
    stop = threading.Event()
    for options, silent in ((PARTS, PART), ({}, WRITING)):
        # The store stays silent until this test is over.
        proxy.faults.append(Fault(on=silent, times=9, how="stall", call=stop.set))
        proxy.faults.append(Fault(on=ABORTING, times=9, how="stall"))
        router = lake.router(stop=stop, timeout_seconds=3600, **options)
        with pytest.raises(muxly.StoppedError, match="asked to stop"):
            router.deliver(large())
        stop.clear()
