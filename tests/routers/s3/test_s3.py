"""The S3 router: its objects, its modes and its options, on a real store and as other readers see them."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

import muxly
from muxly_routers.s3 import S3, AssumeRole
from muxly_routers.s3.client import Clients
from muxly_testing import delivery
from tests.fixtures_s3 import KEY, SECRET, Store
from tests.routers.s3.deliveries import Lake, numbered
from tests.routers.s3.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAM = muxly.Stream("numbers", ("id",), overwrite_key=("day",))
DAYS = ("2026-01-01", "2026-01-02")
SAFE = re.compile(r"[A-Za-z0-9._=%~/-]+")


@pytest.fixture(scope="module", autouse=True)
def _shared_client() -> Iterator[None]:
    """The routers of all tests share a client, as those of one process do while a run lasts."""
    run = muxly.Run("01A", "all")
    run.shared("muxly_routers.s3.clients", Clients)
    yield
    run.end()


@pytest.fixture
def lake(seaweed: Store) -> Iterator[Lake]:
    with Lake(seaweed) as one:
        yield one


def by_pyarrow(lake: Lake) -> pyarrow.fs.S3FileSystem:
    return pyarrow.fs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=lake.store.url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )


def ids(lake: Lake, keys: list[str]) -> list[int]:
    return sorted(json.loads(line)["id"] for key in keys for line in lake.content(key).splitlines())


def test_other_readers_open_what_is_written(lake: Lake) -> None:
    one = numbered(*range(30))
    lake.router(prefix="raw/lake").deliver(one)
    path = f"{lake.bucket}/raw/lake/numbers/{one.id}.parquet"
    assert pq.read_table(path, filesystem=by_pyarrow(lake)).select(one.schema.names).equals(one.table())


def test_partition_folders_are_read_as_columns(lake: Lake) -> None:
    lake.router(partition_by=["day"], keep_partition_columns=False).deliver(numbered(1, 2, 11))
    found = pq.read_table(f"{lake.bucket}/numbers", filesystem=by_pyarrow(lake), partitioning="hive")
    assert sorted(found["id"].to_pylist()) == [1, 2, 11]
    assert {str(day) for day in found["day"].to_pylist()} == set(DAYS)


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv", "jsonl"])
@pytest.mark.parametrize("compression", ["auto", "zstd"])
def test_same_delivery_gives_the_same_bytes(lake: Lake, format: Any, compression: Any) -> None:
    one = numbered(*range(500))
    for prefix in ("first", "second"):
        lake.router(prefix=prefix, format=format, compression=compression).deliver(one)
    (first,), (second,) = lake.keys("first/"), lake.keys("second/")
    assert lake.content(first) == lake.content(second)


def test_objects_say_which_delivery_they_are(lake: Lake) -> None:
    one = numbered(1)
    lake.router().deliver(one)
    found = lake.client.head_object(Bucket=lake.bucket, Key=f"numbers/{one.id}.parquet")
    assert found["Metadata"] == {"muxly-delivery": one.id, "muxly-digest": one.digest}


@pytest.mark.parametrize("size", [1 << 20, 20 << 20])
def test_object_of_one_request_may_be_larger_than_what_stays_in_memory(lake: Lake, size: int) -> None:
    content = "".join(chr(97 + index * 7919 % 26) for index in range(1 << 18))
    records = pa.table({"id": range(size >> 18), "text": [content] * (size >> 18)})
    lake.router(format="jsonl", uploads=1).deliver(delivery(records, "numbers"))
    (key,) = lake.keys()
    assert "-" not in lake.client.head_object(Bucket=lake.bucket, Key=key)["ETag"], "sent in one request"
    assert [json.loads(line) for line in lake.content(key).splitlines()] == records.to_pylist()


def test_hostile_names_become_harmless_keys(lake: Lake) -> None:
    router = lake.router(prefix="raw", partition_by=["folder"])
    for name in ("../../x", "a//b", "new\nline", "", ".", "..", ".muxly", "x" * 2000, "naïve ☃", "%2e%2e"):
        records = [{"id": 1, "folder": name}, {"id": 2, "folder": None}]
        router.deliver(delivery(records, name))
    keys = lake.keys(all=True)
    assert len(lake.keys("raw/")) == 20
    assert [key for key in keys if not SAFE.fullmatch(key) or not key.startswith("raw/") or "/../" in key] == []


def test_key_that_would_be_too_long_is_refused(lake: Lake) -> None:
    router = lake.router(partition_by=[f"c{number}" for number in range(8)])
    with pytest.raises(muxly.RouteError, match="would be longer than 1024 bytes; use fewer levels"):
        router.deliver(delivery([{f"c{number}": "x" * 190 for number in range(8)}], "numbers"))


def test_same_id_with_other_content_is_a_conflict_in_other_folders_too(lake: Lake) -> None:
    one = numbered(1)
    lake.router(partition_by=["day"]).deliver(one)
    with pytest.raises(muxly.ConflictError, match="was written with another content before"):
        lake.router(partition_by=["day"]).deliver(numbered(50, id=one.id))


def overwriting(*numbers: int, **facts: Any) -> muxly.Delivery:
    return numbered(*numbers, stream=STREAM, mode="overwrite", **facts)


def test_value_that_is_overwritten_keeps_its_one_key(lake: Lake) -> None:
    router = lake.router(format="jsonl")
    router.deliver(overwriting(1, 2, 11, replaces=DAYS))
    keys = [f"numbers/day={day}/current.jsonl" for day in DAYS]
    assert (lake.keys(), ids(lake, keys)) == (keys, [1, 2, 11])
    router.deliver(overwriting(3, replaces=DAYS[:1]))
    assert (lake.keys(), ids(lake, keys)) == (keys, [3, 11])
    router.deliver(overwriting(4, replaces=DAYS))
    assert (lake.keys(), ids(lake, keys[:1])) == (keys[:1], [4])


def test_folders_below_a_value_that_are_no_more_are_deleted(lake: Lake) -> None:
    router = lake.router(format="jsonl", partition_by=["text"])
    router.deliver(overwriting(1, 2, replaces=DAYS[:1]))
    router.deliver(overwriting(2, 3, replaces=DAYS[:1]))
    assert lake.keys() == [f"numbers/day={DAYS[0]}/text=n{number}/current.jsonl" for number in (2, 3)]


def test_what_others_wrote_below_a_value_is_not_deleted(lake: Lake) -> None:
    lake.put(f"numbers/day={DAYS[0]}/notes.txt")
    with pytest.raises(muxly.RouteError, match=r"notes\.txt is not a file of this router; move it away"):
        lake.router().deliver(overwriting(1))
    assert lake.keys() == [f"numbers/day={DAYS[0]}/notes.txt"]


def test_interrupted_overwrite_ends_as_it_should(seaweed: Store) -> None:
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        lake.router(format="jsonl").deliver(overwriting(1, 11, replaces=DAYS))
        one = overwriting(2, 12, replaces=DAYS)
        proxy.faults.append(Fault(on=r"^PUT .*day(=|%3D)2026-01-02", times=9, status=403, code="AccessDenied"))
        with pytest.raises(muxly.RouteError, match="AccessDenied"):
            lake.router(format="jsonl").deliver(one)
        assert ids(lake, lake.keys()) == [2, 11], "each value is the old or the new one"
        proxy.reset()
        lake.router(format="jsonl").deliver(one)
        assert ids(lake, lake.keys()) == [2, 12]
        assert len(proxy.lines(r"^PUT .*day(=|%3D)")) == 1


def test_write_of_somebody_else_between_look_and_overwrite_is_noticed(seaweed: Store) -> None:
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        router = lake.router(format="jsonl")
        router.deliver(overwriting(1, replaces=DAYS[:1]))
        (key,) = lake.keys()
        proxy.faults.append(Fault(on=r"^PUT .*current", how="pass", call=lambda: lake.put(key)))
        with pytest.raises(muxly.RetryableError, match="somebody else wrote"):
            router.deliver(overwriting(2, replaces=DAYS[:1]))
        assert lake.content(key) == b"foreign"


def grow(router: S3, generation: int, *numbers: int) -> None:
    router.begin(STREAM, generation)
    router.deliver(numbered(*numbers, stream=STREAM, mode="replace", generation=generation))


def manifest(lake: Lake) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lake.content("numbers/_manifest.json"))
    return found


def test_manifest_names_the_objects_of_the_visible_generation(lake: Lake) -> None:
    router = lake.router(format="jsonl")
    grow(router, 1, 1, 2)
    assert (manifest(lake)["generation"], manifest(lake)["growing"], manifest(lake)["objects"]) == (None, 1, [])
    router.complete(STREAM, 1)
    grow(router, 2, 3)
    seen = [one["key"] for one in manifest(lake)["objects"]]
    assert ids(lake, seen) == [1, 2]
    router.complete(STREAM, 2)
    (only,) = manifest(lake)["objects"]
    assert lake.keys() == ["numbers/_manifest.json", only["key"]]
    assert only["key"].startswith("numbers/generation-000002/")
    assert only["bytes"] == len(lake.content(only["key"]))


def test_generation_that_never_became_whole_is_deleted_by_a_newer_one(lake: Lake) -> None:
    router = lake.router()
    grow(router, 1, 1)
    router.complete(STREAM, 1)
    grow(router, 2, 2)
    router.begin(STREAM, 3)
    assert [key.split("/")[1] for key in lake.keys("numbers/generation")] == ["generation-000001"]


def test_zombie_of_an_older_generation_changes_nothing(lake: Lake) -> None:
    zombie, router = lake.router(format="jsonl"), lake.router(format="jsonl", token=2)
    grow(zombie, 1, 1)
    grow(router, 2, 2)
    late: list[Callable[[], object]] = [
        lambda: zombie.complete(STREAM, 1),
        lambda: zombie.begin(STREAM, 1),
        lambda: lake.router(format="jsonl").deliver(numbered(3, stream=STREAM, mode="replace", generation=1)),
    ]
    for call in late:
        with pytest.raises(muxly.ConflictError, match="knows generation 2, and generation 1 is older"):
            call()
    router.complete(STREAM, 2)
    assert ids(lake, [one["key"] for one in manifest(lake)["objects"]]) == [2]


def test_manifest_that_changes_under_the_hand_is_read_again(seaweed: Store) -> None:
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        router = lake.router()
        grow(router, 1, 1)
        changed = json.dumps({**manifest(lake), "growing": 2}).encode()
        proxy.faults.append(
            Fault(on=r"^PUT .*_manifest", how="pass", call=lambda: lake.put("numbers/_manifest.json", changed))
        )
        with pytest.raises(muxly.ConflictError, match="knows generation 2"):
            router.complete(STREAM, 1)
        assert manifest(lake)["growing"] == 2


def test_lost_answer_of_the_manifest_is_no_harm(seaweed: Store) -> None:
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        router = lake.router(format="jsonl")
        proxy.faults.append(Fault(on=r"^PUT .*_manifest", times=2, applied=True))
        grow(router, 1, 1)
        proxy.faults.append(Fault(on=r"^PUT .*_manifest", times=1, applied=True))
        router.complete(STREAM, 1)
        assert ids(lake, [one["key"] for one in manifest(lake)["objects"]]) == [1]


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        b'{"version": 2, "objects": []}',
        b"{}",
        b'{"version": 1, "pipeline": "daily", "stream": "numbers", "generation": "x", "objects": []}',
        b"[" * 200_000,
        b"\xff",
    ],
)
def test_manifest_of_somebody_else_is_refused(lake: Lake, content: bytes) -> None:
    lake.put("numbers/_manifest.json", content)
    with pytest.raises(muxly.RouteError, match="is not a manifest of this router"):
        lake.router().begin(STREAM, 1)


def test_generation_that_was_not_begun_is_refused(lake: Lake) -> None:
    with pytest.raises(muxly.RouteError, match="read the stream again with --full-refresh"):
        lake.router().deliver(numbered(1, stream=STREAM, mode="replace", generation=1))


def test_two_routes_do_not_replace_one_place(lake: Lake) -> None:
    run = muxly.Run("01A", "daily")
    first, second = (S3(bucket=lake.bucket, format=one, **lake.store.options) for one in ("csv", "jsonl"))
    for router in (first, second):
        router.open(run)
    first.begin(STREAM, 1)
    with pytest.raises(muxly.RouteError, match="is replaced by another route of this pipeline too"):
        second.begin(STREAM, 1)
    for router in (first, second):
        router.close()
    run.end()


def test_encryption_and_storage_class_are_asked_for(moto: Store) -> None:
    with Proxy(moto.url) as proxy, Lake(Store(proxy.url), moto) as lake:
        lake.router(
            encryption="aws:kms", kms_key_id="key-1", bucket_key=True, storage_class="STANDARD_IA", checksum="sha256"
        ).deliver(numbered(1))
        (seen,) = [one for one in proxy.seen if re.match(r"PUT .*numbers/", one.line)]
        asked = {name: value for name, value in seen.headers.items() if name.startswith("x-amz-s")}
        assert asked == {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
            "x-amz-server-side-encryption-bucket-key-enabled": "true",
            "x-amz-storage-class": "STANDARD_IA",
        }
        assert seen.headers["if-none-match"] == "*"
        assert "x-amz-checksum-sha256" in seen.headers


def test_anonymous_requests_carry_no_credentials(moto: Store) -> None:
    with Proxy(moto.url) as proxy, Lake(Store(proxy.url), moto) as lake:
        proxy.faults.append(Fault(on="^HEAD", times=99, status=404))
        proxy.faults.append(Fault(on="", times=99, status=200, headers={"ETag": '"1"'}, body=b""))
        lake.router(anonymous=True, access_key_id=None, secret_access_key=None).deliver(numbered(1))
        assert proxy.lines(r"^PUT .*numbers/")
        assert [one.line for one in proxy.seen if "authorization" in one.headers] == []


ROLE = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2090-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_role_is_assumed_and_its_rights_are_used(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(moto.url) as proxy, Proxy(moto.url) as sts, Lake(Store(proxy.url), moto) as lake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        sts.faults.append(Fault(on=r"^POST /", times=9, status=200, body=ROLE % (b"ROLESKEY", b"of-the-role")))
        role = AssumeRole(role_arn="arn:aws:iam::123456789012:role/lake", external_id=muxly.Secret("external"))
        lake.router(assume_role=role).deliver(numbered(1))
        assert len(sts.lines()) == 1
        (seen,) = [one for one in proxy.seen if re.match(r"PUT .*numbers/", one.line)]
        assert "ROLESKEY" in seen.headers["authorization"]
        assert seen.headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize("single_put_bytes", [0, 64 << 20])
def test_tls_store_is_trusted_by_its_own_authority(lake: Lake, single_put_bytes: int) -> None:
    one = numbered(*range(30))
    secure: dict[str, Any] = {"endpoint_url": lake.store.tls_url, "ca_bundle": lake.store.ca_bundle}
    lake.router(**secure, single_put_bytes=single_put_bytes, format="jsonl").deliver(one)
    assert ids(lake, lake.keys()) == list(range(30))


def test_tls_store_that_is_not_trusted_stops_the_route(lake: Lake) -> None:
    with pytest.raises(muxly.RouteError, match="set ca_bundle to the certificates"):
        lake.router(endpoint_url=lake.store.tls_url).deliver(numbered(1))


def test_missing_credentials_name_the_ways_to_give_them(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    router = lake.router(access_key_id=None, secret_access_key=None)
    with pytest.raises(muxly.RouteError, match="give access_key_id and secret_access_key, a profile"):
        router.deliver(numbered(1))


def test_unknown_profile_is_a_configuration_error(lake: Lake) -> None:
    router = lake.router(access_key_id=None, secret_access_key=None, profile="nobody-has-this")
    with pytest.raises(muxly.ConfigurationError, match="nobody-has-this"):
        router.deliver(numbered(1))


def test_check_looks_at_the_bucket(lake: Lake) -> None:
    assert list(lake.router().check()) == []
    (notice,) = lake.router(bucket="nobody-made-this").check()
    assert (notice.code, notice.level) == ("bucket_not_usable", "error")


def test_endpoint_inside_the_network_is_refused_to_others_than_the_operator(lake: Lake) -> None:
    with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
        lake.router(guarded=True)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names, and the addresses that they have, one at each question; the last one stays."""
    found: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def fake(host: str, *arguments: Any, **more: Any) -> Any:
        addresses = found.get(host, [host])
        return real(addresses.pop(0) if len(addresses) > 1 else addresses[0], *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return found


PUBLIC = "93.184.215.14"


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_name_that_means_another_address_when_it_is_connected_to_is_refused(
    seaweed: Store, named: dict[str, list[str]], style: str
) -> None:
    """Once a stranger's name is asked for again; or the bucket stands in it, and has an address of its own."""
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        url = proxy.url.replace("127.0.0.1", "store.example")
        named["store.example"] = [PUBLIC, "127.0.0.1"]
        named[f"{lake.bucket}.store.example"] = ["127.0.0.1"]
        router = lake.router(guarded=True, endpoint_url=url, addressing_style=style)
        with pytest.raises(muxly.RouteError, match=r"store\.example may not be connected to: .* is loopback"):
            router.deliver(numbered(1))
        assert proxy.seen == []


def test_connection_goes_to_the_address_that_was_checked_and_past_proxies(
    seaweed: Store, named: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUXLY_EGRESS_ALLOW", "127.0.0.1/32")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Proxy(seaweed.url) as proxy, Lake(Store(proxy.url), seaweed) as lake:
        # Checked when the router is opened and when it connects; whoever asks again is told another address.
        named["store.example"] = ["127.0.0.1", "127.0.0.1", "10.0.0.1"]
        lake.router(guarded=True, endpoint_url=proxy.url.replace("127.0.0.1", "store.example"), format="jsonl").deliver(
            numbered(1)
        )
        assert ids(lake, lake.keys()) == [1]


@pytest.mark.parametrize("options", [{}, {"profile": "default"}])
def test_others_than_the_operator_bring_their_own_credentials(lake: Lake, options: dict[str, Any]) -> None:
    with pytest.raises(muxly.ConfigurationError, match="does not get the credentials of this machine") as caught:
        lake.router(guarded=True, endpoint_url=None, access_key_id=None, secret_access_key=None, **options)
    assert caught.value.path == ("access_key_id",)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bucket": "s3://lake/raw"}, "what follows the name belongs in prefix"),
        ({"prefix": "a//b"}, "prefix is made of names and slashes"),
        ({"prefix": "../x"}, "prefix is made of names and slashes"),
        ({"endpoint_url": "minio:9000"}, "endpoint_url begins with http:// or https://"),
        ({"endpoint_url": "https://user:password@minio"}, "holds no user or password"),
        ({"endpoint_url": "http://minio_server:9000"}, "a host made of letters, digits, dots and hyphens"),
        ({"endpoint_url": "https://a..b"}, "a host made of letters"),
        ({"endpoint_url": "https://host:port"}, "perhaps a port after a colon"),
        ({"endpoint_url": "https://host:0"}, "perhaps a port after a colon"),
        ({"endpoint_url": "https://host:99999"}, "perhaps a port after a colon"),
        ({"endpoint_url": "http://[::1"}, "or an address"),
        ({"part_bytes": 1024}, "part_bytes"),
        ({"format": "csv", "compression": "snappy"}, "csv is compressed with"),
        ({"folder": "raw"}, "files of different origin would be mixed"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        S3(**{"bucket": "lake", **options})


@pytest.mark.parametrize(
    "url", ["http://minio", "https://minio.example:9000/s3", "http://[::1]:9000", "http://10.0.0.1"]
)
def test_endpoint_that_the_sdk_takes_is_taken(url: str) -> None:
    router = S3(bucket="lake", endpoint_url=url, anonymous=True)
    run = muxly.Run("01A", "daily")
    router.open(run)
    assert router._bucket().client.meta.endpoint_url == url
    run.end()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"access_key_id": "a"}, "secret_access_key"),
        ({"secret_access_key": "bbbb"}, "access_key_id"),
        ({"session_token": "bbbb"}, "session_token"),
        ({"anonymous": True, "profile": "p"}, "anonymous"),
    ],
)
def test_credentials_that_contradict_each_other_are_refused(options: dict[str, Any], path: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match=r"go together|goes with|give one of") as caught:
        S3(bucket="lake", **options).open(muxly.Run("01A", "daily"))
    assert caught.value.path == (path,)


def test_options_load_neither_the_sdk_nor_arrow() -> None:
    import subprocess
    import sys

    code = "import sys, muxly_routers.s3 as s3; s3.S3(bucket='lake'); print({'botocore', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
