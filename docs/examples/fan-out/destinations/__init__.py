"""The destinations of the fan-out example: servers on the loopback address, and the console that rules them."""

from destinations.console import main

__all__ = ["main"]
