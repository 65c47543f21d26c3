"""What a person looks at when a server cannot be reached, or does not answer."""

from __future__ import annotations

import re

__all__ = ["advised"]

# In the words of systems, of drivers and of our own; the first that fits.
_STEPS = (
    (
        re.compile(r"has no address|resolve|name resolution|name of a host|translate host|not known"),
        "is the name right, and can this machine look it up?",
    ),
    (
        re.compile(
            r"refused|unreachable|No route|Connection timed out|onnect timeout|onnection timeout|take the connection|"
            r"timeout expired|cannot be reached|Could not connect"
        ),
        "is the server running there, and does a firewall let this machine through?",
    ),
    (
        re.compile(r"in time\b|within total_seconds|timed out|[Rr]ead timeout"),
        "is the server stuck or busy? If it needs longer, raise the limit of seconds in the route's options",
    ),
)


def advised(said: str) -> str:
    """What was said about a connection, with the next step behind it where one is known.

    Args:
        said: By a system, a driver or a router, in a line.
    """
    step = next((step for pattern, step in _STEPS if pattern.search(said)), None)
    return said if step is None else f"{said}; {step}"
