"""A configuration file as a document, whatever its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muxly.config._lines import LIMITS, Limits, Text, read_text
from muxly.config._location import Place, Problem, Problems, UnreadableError
from muxly.config._nodes import Document, Node, document

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}


def read_document(path: Path, file: str, problems: Problems, limits: Limits = LIMITS) -> Document:
    """Read one file.

    Args:
        path: The file; its suffix tells the format.
        file: Its name for messages.
        problems: What is wrong is noted here; a file that cannot be read on is an empty document.
        limits: What it may cost.
    """
    problems.files.append(file)
    try:
        return parse_document(read_text(path, file, limits), path.suffix.lower(), problems, limits)
    except UnreadableError as stop:
        problems.found.append(stop.problem)
        problems.unreadable.append(file)
        return Document({}, {(): stop.problem.place})


def parse_document(text: Text, suffix: str, problems: Problems, limits: Limits = LIMITS) -> Document:
    """The document of a text.

    Args:
        text: The text.
        suffix: ``.yaml``, ``.yml``, ``.json`` or ``.toml``.
        problems: Duplicate keys are noted here.
        limits: What it may cost.

    Raises:
        UnreadableError: The text cannot be read on.
    """
    return document(_tree(text, suffix, limits, problems), text, limits)


def _tree(text: Text, suffix: str, limits: Limits, problems: Problems) -> Node:
    """Each reader is imported only when a file of its format is read."""
    format_name = FORMATS.get(suffix)
    if format_name == "YAML":
        from muxly.config._yaml import read_yaml

        return read_yaml(text, limits, problems)
    if format_name == "JSON":
        from muxly.config._json import read_json

        return read_json(text, limits, problems)
    if format_name == "TOML":
        from muxly.config._toml import read_toml

        return read_toml(text, limits, problems)
    known = ", ".join(FORMATS)
    raise UnreadableError(Problem(Place(text.file), (), f'a configuration file ends in {known}, not in "{suffix}"'))
