"""The exit codes of every command."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """What the end of a command tells the shell."""

    DELIVERED = 0
    """Everything that is required was delivered; of other commands: done."""
    FAILED = 1
    """Something went wrong that is neither of the others."""
    USAGE = 2
    """The command line or the configuration is wrong; nothing was read or written."""
    PARTIAL = 3
    """A required route or a partition is behind; the next run goes on from there."""
    HELD = 75
    """Another run holds the pipeline's lease; EX_TEMPFAIL of sysexits.h, so try again later."""
    INTERRUPTED = 130
    """Stopped by SIGINT (Ctrl-C); 128 + 2, as shells count."""
    TERMINATED = 143
    """Stopped by SIGTERM; 128 + 15, as shells count."""


_GRAVEST_FIRST = (
    ExitCode.TERMINATED,
    ExitCode.INTERRUPTED,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.PARTIAL,
    ExitCode.HELD,
)


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of a command that did several things."""
    found = set(codes)
    return next((code for code in _GRAVEST_FIRST if code in found), ExitCode.DELIVERED)


def of_error(error: BaseException) -> ExitCode:
    """The code of an error that ended a command."""
    from muxly.errors import ConfigurationError, LeaseHeldError, PluginError

    if isinstance(error, LeaseHeldError):
        return ExitCode.HELD
    if isinstance(error, (ConfigurationError, PluginError)):
        return ExitCode.USAGE
    return ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAILED
