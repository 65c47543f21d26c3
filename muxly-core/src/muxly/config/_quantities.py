"""Sizes and durations as people write them: ``64 MiB``, ``15m``, ``1h 30m``."""

from __future__ import annotations

import re
from datetime import timedelta

_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
    "KB": 1000,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_TIME_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?([kKMGT]?B|[KMGT]iB)$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)? ?(ms|s|m|h|d|w) ?)+$"
_SIZE_PARTS = re.compile(r"([0-9.]+) ?([A-Za-z]*)")
_DURATION_PART = re.compile(r"([0-9.]+) ?([a-z]+)")


def size_bytes(text: str) -> int:
    """Bytes of a text that matches ``SIZE_PATTERN``."""
    match = _SIZE_PARTS.fullmatch(text)
    assert match is not None
    return round(float(match[1]) * _SIZE_UNITS[match[2]])


def duration_seconds(text: str) -> float:
    """Seconds of a text that matches ``DURATION_PATTERN``."""
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def duration_text(duration: timedelta) -> str:
    """The shortest text that ``duration_seconds`` reads as this duration."""
    seconds = duration.total_seconds()
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % _TIME_UNITS[unit] == 0:
            return f"{seconds / _TIME_UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"
