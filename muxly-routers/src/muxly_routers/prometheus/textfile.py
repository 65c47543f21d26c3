"""A file for each stream, for the textfile collector of the Prometheus node exporter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

import muxly
from muxly_routers._failures import check_folder
from muxly_routers._files import layout
from muxly_routers.prometheus import files
from muxly_routers.prometheus.exposition import Exposed, render
from muxly_routers.prometheus.settings import Unit

__all__ = ["Textfile"]

# The node exporter runs as a user of its own.
_READABLE = 0o644


@frozen
class Textfile:
    """The collector's folder.

    Args:
        folder: Made if it is missing.
        token: The run's.
    """

    folder: Path
    token: int

    def publish(self, unit: Unit, exposed: Sequence[Exposed]) -> None:
        """Show these series of a stream, and no others."""
        content = render(exposed, "text", times=False)
        files.replace(self.folder / file_name(unit), content, mode=_READABLE, token=self.token)

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the folder can be written to, or be made."""
        return check_folder(self.folder)

    def close(self) -> None:
        """Nothing is held."""


def file_name(unit: Unit) -> str:
    """The name of a stream's file; of streams whose names differ they differ, whatever they are called."""
    parts = [unit.pipeline, *([unit.route] if unit.route else []), unit.stream]
    return f"{'.'.join(layout.slug(part).replace('.', '~') for part in parts)}.prom"
