"""The console: starts all destinations, obeys typed commands, ends everything."""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from destinations.programs import HOST, USER, Destination, NotReadyError, Postgres, Pushgateway, SeaweedFS
from destinations.receivers import Slack, SmallPushgateway, Webhook

HERE = Path(__file__).absolute().parents[1]
FIRST_PORT = 27430
NAMES = ("postgres", "s3", "pushgateway", "webhook", "slack")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = ("stop", "start", "freeze", "thaw")
HELP = "Type `stop NAME`, `start NAME`, `freeze NAME` (it hangs) or `thaw NAME`. Ctrl-C ends everything."


def main() -> int:
    """Start what is asked for, serve until Ctrl-C, and end it; the exit code."""
    arguments = _arguments()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    if arguments.fresh:
        _forget(arguments.folder)
    started: list[Destination] = []
    try:
        for one in _destinations(arguments):
            started.append(one)
            one.start()
        for one in started:
            one.wait()
            _say(f"{one.name:12} {one.address}")
        _say(_next(arguments))
        _serve({one.name: one for one in started})
    except KeyboardInterrupt:
        _say("")
    except NotReadyError as error:
        print(f"start-services: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        _end(started)
    _say("Everything has ended.")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="start-services", description=__doc__, epilog=HELP)
    parser.add_argument("--without", action="append", default=[], choices=NAMES, help="leave one out; may be repeated")
    parser.add_argument(
        "--first-port", type=_port, default=FIRST_PORT, metavar="N", help=f"{len(NAMES)} ports from here; %(default)s"
    )
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="for what they keep; out beside this program")
    parser.add_argument("--fresh", action="store_true", help="forget what was delivered before, and begin again")
    return parser.parse_args()


def _port(text: str) -> int:
    port = int(text)
    if not 1024 <= port <= 65536 - len(NAMES):
        raise argparse.ArgumentTypeError(f"{port} is not between 1024 and {65536 - len(NAMES)}")
    return port


def _forget(folder: Path) -> None:
    """What the destinations hold, and what Muxly knows of it: one without the other would not fit."""
    for one in (folder, HERE / ".muxly"):
        shutil.rmtree(one, ignore_errors=True)


def _destinations(arguments: argparse.Namespace) -> list[Destination]:
    kinds = (Postgres, SeaweedFS, Pushgateway if Pushgateway.program() else SmallPushgateway, Webhook, Slack)
    chosen = [
        (kind, arguments.first_port + number) for number, kind in enumerate(kinds) if kind.name not in arguments.without
    ]
    for kind, port in chosen:
        _refuse_taken(kind.name, port)
    folder = arguments.folder.absolute()
    return [kind(folder, port) for kind, port in chosen]


def _refuse_taken(name: str, port: int) -> None:
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((HOST, port))
        except OSError as error:
            advice = f"end what listens there, or choose others: start-services --first-port {FIRST_PORT + 1000}"
            raise NotReadyError(f"port {port} for {name} cannot be had ({error.strerror}): {advice}") from error


def _next(arguments: argparse.Namespace) -> str:
    """What to do now; with other ports than usual, what the other terminal must know first."""
    configuration = HERE / "muxly.yaml"
    with suppress(ValueError):
        configuration = configuration.relative_to(Path.cwd())
    lines = ["", "Ready. In another terminal:", ""]
    if arguments.first_port != FIRST_PORT:
        lines += [f"  export {name}={value}" for name, value in _places(arguments.first_port).items()]
    return "\n".join([*lines, f"  uv run muxly run {configuration}", "", HELP])


def _places(first: int) -> dict[str, str]:
    """Where muxly.yaml finds each of them."""
    postgres, s3, pushgateway, webhook, slack = range(first, first + len(NAMES))
    return {
        "FAN_OUT_POSTGRES": f"postgresql://{USER}@{HOST}:{postgres}/postgres",
        "FAN_OUT_S3": f"http://{HOST}:{s3}",
        "FAN_OUT_PUSHGATEWAY": f"http://{HOST}:{pushgateway}",
        "FAN_OUT_WEBHOOK": f"http://{HOST}:{webhook}/hook",
        "FAN_OUT_SLACK": f"http://{HOST}:{slack}/api/",
    }


def _serve(destinations: dict[str, Destination]) -> None:
    """Obey commands until Ctrl-C, or until the terminal or pipe that they come from is closed."""
    lines: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while (line := lines.get()) is not None:
        if line.strip():
            _say(_obey(line.split(), destinations))


def _obey(words: list[str], destinations: dict[str, Destination]) -> str:
    """Do one command; what came of it."""
    if len(words) != 2 or words[0] not in COMMANDS or words[1] not in destinations:
        return f"{HELP} The names: {', '.join(destinations)}."
    command, name = words
    try:
        getattr(destinations[name], command)()
        if command == "start":
            destinations[name].wait()
    except NotReadyError as error:
        return f"failed: {error}"
    return f"done: {command} {name}"


def _read(lines: SimpleQueue[str | None]) -> None:
    """Hand over each line; in the background of a shell there is no terminal to read."""
    with suppress(ValueError, OSError):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        ends = not Path("/dev/stdin").samefile("/dev/null")
        for line in sys.stdin:
            lines.put(line)
        if ends:
            lines.put(None)


def _end(started: list[Destination]) -> None:
    """End them all; what does not end is killed, so another Ctrl-C would only leave some behind."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for one in reversed(started):
        one.stop()


def _say(text: str) -> None:
    print(text, flush=True)
