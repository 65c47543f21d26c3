"""``muxly init``: a first pipeline that runs at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from muxly.cli._app import Command
from muxly.cli._output import current_messages
from muxly.errors import ConfigurationError

_CONFIGURATION = """\
# A first pipeline: one file, read once, delivered twice. Run it with
#   muxly run
# Every key is explained by `muxly config schema`; `muxly plugins` lists what `type` can be.
version: 1

pipelines:
  harbour:
    connector:
      type: file
      path: data/ships.csv
      primary_key: [name]

    routes: # the name of a route is its identity
      lake: # everything, as Parquet
        router: {type: file, path: out/lake, format: parquet}

      arrivals: # some columns, as JSON Lines
        router: {type: file, path: out/arrivals, format: jsonl}
        columns: {include: [name, arrived_at, berth]}
"""
_RECORDS = """\
name,flag,length_m,berth,arrived_at
Aurora,NO,182.5,4,2026-03-01T06:15:00Z
Bluebell,GB,96.0,2,2026-03-01T09:40:00Z
Cormorant,IS,61.3,7,2026-03-02T22:05:00Z
Dorothea,DK,210.8,1,2026-03-03T04:30:00Z
Estrela,PT,144.2,5,2026-03-04T17:55:00Z
"""
_IGNORED = ".muxly/\nout/\n"


@click.command(
    cls=Command,
    name="init",
    examples="""
        muxly init demo
        muxly run demo/muxly.yaml
    """,
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def command(folder: Path) -> None:
    """Write muxly.yaml and a small CSV file, a pipeline that runs at once.

    FOLDER is the working folder by default, and made if it is missing. A file that exists is never
    overwritten. The connector comes with muxly-connector-file, the routers with muxly-routers.
    """
    files = {"muxly.yaml": _CONFIGURATION, "data/ships.csv": _RECORDS}
    _refuse_existing(folder, files)
    if not (folder / ".gitignore").exists():
        files[".gitignore"] = _IGNORED
    for name, content in files.items():
        _write_new(folder / name, content)
    _say_next(folder)


def _refuse_existing(folder: Path, files: dict[str, str]) -> None:
    existing = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if existing:
        raise ConfigurationError(
            f"{folder / existing[0]} already exists and was not overwritten; choose another folder: muxly init FOLDER"
        )


def _write_new(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _say_next(folder: Path) -> None:
    from muxly import _plugins

    file = folder / "muxly.yaml"
    run = "muxly run" if folder == Path() else f"muxly run {file}"
    missing = [
        package
        for kind, package in (("connector", "muxly-connector-file"), ("router", "muxly-routers"))
        if "file" not in _plugins.names(kind)  # type: ignore[arg-type]
    ]
    first = f"pip install {' '.join(missing)} && " if missing else ""
    current_messages().say("info", f"wrote {file} and {folder / 'data' / 'ships.csv'}{os.linesep}next: {first}{run}")
