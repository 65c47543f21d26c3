"""Layers of a configuration: included files, the main file, its profile, the environment and ``--set``.

Every layer is read into a ``Document`` of its own. ``merge`` and ``overlay`` put one over another, and take the
location of each value with it, so that a message about a value names the layer that it came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen

from muxly._annotations import quoted
from muxly.config._document import (
    LIMITS,
    Document,
    FileLimits,
    FileText,
    KeyPath,
    Location,
    Node,
    Problem,
    Problems,
    UnreadableError,
    build_document,
    known_names_hint,
    parse_path,
    path_text,
    read_text,
)
from muxly.config._file_schema import Components
from muxly.config._schema_cursor import SchemaCursor, root_cursor

FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}


def read_document(path: Path, file: str, problems: Problems, limits: FileLimits = LIMITS) -> Document:
    """Read one file.

    Args:
        path: The file; its suffix determines the format.
        file: Its name for messages.
        problems: What is wrong is added here; a file that cannot be read is an empty document.
        limits: Limits that it must keep.
    """
    problems.files.append(file)
    try:
        return parse_document(read_text(path, file, limits), path.suffix.lower(), problems, limits)
    except UnreadableError as stop:
        problems.found.append(stop.problem)
        problems.unreadable.append(file)
        return Document({}, {(): stop.problem.location})


def parse_document(text: FileText, suffix: str, problems: Problems, limits: FileLimits = LIMITS) -> Document:
    """The document of a text.

    Args:
        text: The text.
        suffix: ``.yaml``, ``.yml``, ``.json`` or ``.toml``.
        problems: Duplicate keys are added here.
        limits: Limits that it must keep.

    Raises:
        UnreadableError: The text cannot be read any further.
    """
    return build_document(_tree(text, suffix, limits, problems), text, limits)


def _tree(text: FileText, suffix: str, limits: FileLimits, problems: Problems) -> Node:
    """The tree of a text; each reader is imported only when a file of its format is read."""
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
    raise UnreadableError(Problem(Location(text.file), (), f'a configuration file ends in {known}, not in "{suffix}"'))


_FIXED = frozenset({"include", "profiles", "version"})


@frozen
class Layer:
    """Values that override those of the layers before.

    Args:
        name: What it is: ``include``, ``file``, ``profile prod``.
        document: The values.
    """

    name: str
    document: Document


def read_layers(path: Path, profile: str | None, problems: Problems, limits: FileLimits = LIMITS) -> list[Layer]:
    """Read a file, what it includes, and the profile that was chosen.

    Args:
        path: The main file; included ones must be in its folder.
        profile: Name of a profile; None = none.
        problems: What is wrong is added here.
        limits: Limits that all files together must keep.
    """
    includer = _IncludeReader(path.resolve().parent, problems, limits)
    includer.read(path, str(path), ())
    layers = includer.layers
    return (
        layers
        if profile is None
        else [*layers, Layer(f"profile {profile}", _profile_document(layers, profile, problems))]
    )


@define
class _IncludeReader:
    """Reads a file after the files that it includes.

    A file outside the main file's folder is refused, so that a configuration cannot read files that its author
    could not have put there. The limits are shared: each file gets the nodes that the ones before have left.
    """

    root: Path
    problems: Problems
    limits: FileLimits
    layers: list[Layer] = field(factory=list)
    files: int = 0

    def read(self, path: Path, file: str, outer: tuple[Path, ...]) -> None:
        """Read a file after those that it includes, so that it overrides them."""
        document = read_document(path, file, self.problems, self.limits)
        self.files += 1
        self.limits = attrs.evolve(self.limits, nodes=max(0, self.limits.nodes - len(document.values)))
        resolved_path = path.resolve()
        for where, text in self.included(document):
            problem = self.refusal((resolved_path.parent / text).resolve(), text, (*outer, resolved_path))
            if problem is None:
                self.read(resolved_path.parent / text, _included_name(file, text), (*outer, resolved_path))
            else:
                self.problems.add(where, ("include",), problem)
        self.layers.append(Layer("include" if outer else "file", document))

    def included(self, document: Document) -> list[tuple[Location, str]]:
        """The texts under ``include`` with their locations; anything else is for the schema to refuse."""
        value = document.value.get("include")
        items = value if isinstance(value, list) else [value]
        first: KeyPath = ("include",)
        paths: list[KeyPath] = [(*first, number) for number in range(len(items))] if items is value else [first]
        return [(document.location(at), text) for at, text in zip(paths, items, strict=True) if isinstance(text, str)]

    def refusal(self, resolved_path: Path, text: str, outer: tuple[Path, ...]) -> str | None:
        if not resolved_path.is_relative_to(self.root):
            return f"{quoted(text)} is outside the folder of the main file; move it there"
        if resolved_path in outer:
            names = " -> ".join(file.name for file in (*outer[outer.index(resolved_path) :], resolved_path))
            return f"{quoted(text)} includes itself: {names}"
        if self.files >= self.limits.files:
            return f"more than {self.limits.files} files are included"
        return None if resolved_path.is_file() else f"there is no file {quoted(text)}"


def _included_name(file: str, text: str) -> str:
    """The name of an included file, as the user would write it."""
    return os.path.normpath(os.path.join(os.path.dirname(file), text))  # noqa: PTH118, PTH120


def _profile_document(layers: list[Layer], name: str, problems: Problems) -> Document:
    """The chosen profile as a document of its own."""
    merged = merge([layer.document for layer in layers])
    profiles = merged.value.get("profiles")
    known = [key for key in profiles if isinstance(key, str)] if isinstance(profiles, dict) else []
    if name not in known:
        hint = known_names_hint(name, known)
        problems.add(merged.key_location(("profiles",)), ("profiles",), f"there is no profile {quoted(name)}; {hint}")
        return Document()
    content = merged.value["profiles"][name]
    if not isinstance(content, dict):
        return Document()
    for key in content.keys() & _FIXED:
        path = ("profiles", name, key)
        problems.add(merged.key_location(path), path, f'a profile cannot change "{key}"; remove it')
    free = {key: item for key, item in content.items() if key not in _FIXED}
    return _subdocument(merged, ("profiles", name), free)


def _subdocument(document: Document, path: KeyPath, value: dict[str, Any]) -> Document:
    """A part of a document as a document."""
    length = len(path)
    values = {at[length:]: location for at, location in document.values.items() if at[:length] == path}
    keys = {at[length:]: location for at, location in document.keys.items() if at[:length] == path and at != path}
    return Document(value, values, keys)


def merge(documents: list[Document]) -> Document:
    """Merge documents, the last on top; mappings are merged, everything else is replaced.

    Every value keeps the location where it was written.
    """
    merged = Document()
    for layer in documents:
        overlay(merged, layer, (), layer.value)
    return merged


def overlay(merged: Document, top: Document, path: KeyPath, value: Any) -> None:
    """Put the value that ``top`` has at a path over what is there; ``merged`` is changed.

    Args:
        merged: What is below.
        top: Has the locations of the value.
        path: Where the value goes.
        value: A mapping is merged with the mapping that is there.
    """
    below = lookup(merged.value, path)
    if isinstance(value, dict) and isinstance(below, dict):
        merged.values.setdefault(path, top.location(path))
        if path in top.keys:
            merged.keys.setdefault(path, top.keys[path])
        for key, item in value.items():
            overlay(merged, top, (*path, key), item)
        return
    if below is not MISSING:
        _remove_locations(merged, path, below)
    parent = lookup(merged.value, path[:-1])
    parent[path[-1]] = _copy_value(merged, top, path, value)


def _remove_locations(merged: Document, path: KeyPath, value: Any) -> None:
    merged.values.pop(path, None)
    merged.keys.pop(path, None)
    for key, item in items_of(value):
        _remove_locations(merged, (*path, key), item)


def _copy_value(merged: Document, top: Document, path: KeyPath, value: Any) -> Any:
    """A copy of the value, so that no layer is changed by the layers over it."""
    merged.values[path] = top.location(path)
    if path in top.keys:
        merged.keys[path] = top.keys[path]
    if isinstance(value, dict):
        return {key: _copy_value(merged, top, (*path, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_value(merged, top, (*path, number), item) for number, item in enumerate(value)]
    return value


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def lookup(value: Any, path: KeyPath) -> Any:
    """The value at a path; ``MISSING`` if there is none."""
    for key in path:
        in_mapping = isinstance(value, dict) and key in value
        if not in_mapping and not (isinstance(value, list) and isinstance(key, int) and key < len(value)):
            return MISSING
        value = value[key]
    return value


def items_of(value: Any) -> list[tuple[str | int, Any]]:
    """The keys or numbers of a mapping's or list's items, with the items."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


PREFIX = "MUXLY__"
_NOT_A_NAME = re.compile(r"[^a-z0-9]")


@frozen
class Override:
    """A value from outside.

    Args:
        layer: ``environment`` or ``command line``.
        path: Where it goes.
        value: Of the type that the schema requires there.
        location: The variable or the flag; a value from outside is never shown in a message.
        reference: How another process finds the value again; None if it cannot.
    """

    layer: str
    path: KeyPath
    value: Any
    location: Location
    reference: str | None = None


def environment_overrides(
    environ: Mapping[str, str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in variables such as ``MUXLY__PIPELINES__DAILY__PARALLEL=8``, in the order of their names.

    Args:
        environ: Variables by name; those without the prefix are ignored.
        document: The files, for the names that users chose.
        components: Knows the options of plugins.
        problems: Unknown names are added here.
    """
    overrides = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        location = Location(f"environment variable {name}")
        parts = name.removeprefix(PREFIX).split("__")
        target = _path_of_variable(root_cursor(document.value, components), parts, (), location, problems)
        if target is not None:
            path, cursor = target
            overrides.append(Override("environment", path, cursor.read(environ[name]), location, f"${{{name}}}"))
    return overrides


def command_line_overrides(
    sets: Iterable[str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in ``--set pipelines.daily.parallel=8``.

    Args:
        sets: Texts ``KEY=VALUE``.
        document: The files, overridden by the environment.
        components: Knows the options of plugins.
        problems: Unknown keys are added here.
    """
    overrides = []
    for text in sets:
        key, equals, value = text.partition("=")
        location = Location(f"--set {key}")
        if not equals:
            problems.add(location, (), "a value is set with KEY=VALUE")
            continue
        cursor = _cursor_of_key(key, root_cursor(document.value, components), location, problems)
        if cursor is not None:
            overrides.append(Override("command line", parse_path(key), cursor.read(value), location))
    return overrides


def apply_overrides(document: Document, overrides: Iterable[Override]) -> None:
    """Apply the overrides to a document, which is changed."""
    for override in overrides:
        path, value = override.path, override.value
        while not isinstance(lookup(document.value, path[:-1]), dict | list):
            path, value = path[:-1], {path[-1]: value}
        overlay(document, Document({}, {path: override.location}), path, value)


def _cursor_of_key(key: str, cursor: SchemaCursor, location: Location, problems: Problems) -> SchemaCursor | None:
    try:
        path = parse_path(key)
    except ValueError as error:
        problems.add(location, (), str(error))
        return None
    for number, part in enumerate(path):
        inner = cursor.child(part) if isinstance(part, int) or part in cursor.names() else None
        if inner is None or (isinstance(part, int) and lookup(cursor.value, (part,)) is MISSING):
            _unknown(cursor, str(part), path[:number], location, problems)
            return None
        cursor = inner
    return cursor


def _path_of_variable(
    cursor: SchemaCursor, parts: list[str], path: KeyPath, location: Location, problems: Problems
) -> tuple[KeyPath, SchemaCursor] | None:
    """The path that the parts of a variable's name mean; the name of a key may itself contain ``__``."""
    if not parts:
        return path, cursor
    for count in range(len(parts), 0, -1):
        wanted = _normalized("__".join(parts[:count]))
        keys = [key for key in _keys(cursor) if _normalized(str(key)) == wanted]
        if len(keys) > 1:
            either = " or ".join(f'"{key}"' for key in keys)
            problems.add(location, path, f"could mean {either}; use --set, or rename one of them")
            return None
        inner = cursor.child(keys[0]) if keys else None
        if inner is not None:
            return _path_of_variable(inner, parts[count:], (*path, keys[0]), location, problems)
    _unknown(cursor, parts[0], path, location, problems)
    return None


def _keys(cursor: SchemaCursor) -> list[str | int]:
    if isinstance(cursor.value, list):
        return list(range(len(cursor.value)))
    return [*cursor.names()]


def _normalized(name: str) -> str:
    """A name as variables write it: they cannot contain dots and dashes, and are often in capitals."""
    return _NOT_A_NAME.sub("_", name.lower())


def _unknown(cursor: SchemaCursor, name: str, path: KeyPath, location: Location, problems: Problems) -> None:
    known = [str(key) for key in _keys(cursor)]
    where = path_text(path) if path else "the configuration"
    hint = known_names_hint(name, known)
    problems.add(location, path, f'{where} has no "{name.lower()}"; {hint}')
