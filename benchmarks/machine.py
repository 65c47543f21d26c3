"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import psutil


def machine() -> dict[str, str]:
    """Processor, memory, system and how busy it is, without any name of the machine."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "load": "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()),
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def versions(environment: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The versions of some distributions in an environment."""
    folders = [str(one) for one in environment.glob("lib/python*/site-packages")]
    installed = {one.name: one.version for one in distributions(path=folders)}
    return {name: installed[name] for name in names if name in installed}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
