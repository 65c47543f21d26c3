"""The layers of a configuration: included files, the file, its profile; and one on top of another."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field, frozen

from muxly._annotations import nearest, quoted
from muxly.config._document import (
    LIMITS,
    Document,
    KeyPath,
    Limits,
    Node,
    Place,
    Problem,
    Problems,
    Text,
    UnreadableError,
    document,
    parse_path,
    path_text,
    read_text,
)
from muxly.config._schema_cursor import Shape, root_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from muxly.config._file_schema import Components


_FIXED = frozenset({"include", "profiles", "version"})


@frozen
class Layer:
    """Values that lie over those of the layers before.

    Args:
        name: What it is, in words: ``include``, ``file``, ``profile prod``.
        document: The values.
    """

    name: str
    document: Document


def read_layers(path: Path, profile: str | None, problems: Problems, limits: Limits = LIMITS) -> list[Layer]:
    """Read a file, what it includes, and the profile that was chosen.

    Args:
        path: The main file; included ones must lie in its folder.
        profile: Name of a profile; None = none.
        problems: What is wrong is noted here.
        limits: What all files together may cost.
    """
    includer = _Includer(path.resolve().parent, problems, limits)
    includer.read(path, str(path), ())
    layers = includer.layers
    return layers if profile is None else [*layers, Layer(f"profile {profile}", _profile(layers, profile, problems))]


@define
class _Includer:
    root: Path
    problems: Problems
    limits: Limits
    layers: list[Layer] = field(factory=list)
    files: int = 0

    def read(self, path: Path, file: str, outer: tuple[Path, ...]) -> None:
        """Read a file after those that it includes, so that it lies over them."""
        document = read_document(path, file, self.problems, self.limits)
        self.files += 1
        self.limits = attrs.evolve(self.limits, nodes=max(0, self.limits.nodes - len(document.values)))
        real = path.resolve()
        for where, text in self.included(document):
            problem = self.refusal((real.parent / text).resolve(), text, (*outer, real))
            if problem is None:
                self.read(real.parent / text, _beside(file, text), (*outer, real))
            else:
                self.problems.add(where, ("include",), problem)
        self.layers.append(Layer("include" if outer else "file", document))

    def included(self, document: Document) -> list[tuple[Place, str]]:
        """The texts under ``include`` with their places; anything else is the schema's to refuse."""
        value = document.value.get("include")
        items = value if isinstance(value, list) else [value]
        first: KeyPath = ("include",)
        paths: list[KeyPath] = [(*first, number) for number in range(len(items))] if items is value else [first]
        return [(document.place(at), one) for at, one in zip(paths, items, strict=True) if isinstance(one, str)]

    def refusal(self, real: Path, text: str, outer: tuple[Path, ...]) -> str | None:
        if not real.is_relative_to(self.root):
            return f"{quoted(text)} lies outside the folder of the main file; move it there"
        if real in outer:
            names = " -> ".join(one.name for one in (*outer[outer.index(real) :], real))
            return f"{quoted(text)} includes itself: {names}"
        if self.files >= self.limits.files:
            return f"more than {self.limits.files} files are included"
        return None if real.is_file() else f"there is no file {quoted(text)}"


def _beside(file: str, text: str) -> str:
    """The name of an included file, as the user would write it."""
    return os.path.normpath(os.path.join(os.path.dirname(file), text))  # noqa: PTH118, PTH120


def _profile(layers: list[Layer], name: str, problems: Problems) -> Document:
    """The chosen profile as a document of its own."""
    merged = merge([layer.document for layer in layers])
    profiles = merged.value.get("profiles")
    known = [key for key in profiles if isinstance(key, str)] if isinstance(profiles, dict) else []
    if name not in known:
        close = nearest(name, known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
        problems.add(merged.key_place(("profiles",)), ("profiles",), f"there is no profile {quoted(name)}; {hint}")
        return Document()
    content = merged.value["profiles"][name]
    if not isinstance(content, dict):
        return Document()
    for key in content.keys() & _FIXED:
        path = ("profiles", name, key)
        problems.add(merged.key_place(path), path, f'a profile cannot change "{key}"; remove it')
    free = {key: item for key, item in content.items() if key not in _FIXED}
    return _rooted(merged, ("profiles", name), free)


def _rooted(document: Document, path: KeyPath, value: dict[str, Any]) -> Document:
    """A part of a document as a document."""
    length = len(path)
    values = {at[length:]: place for at, place in document.values.items() if at[:length] == path}
    keys = {at[length:]: place for at, place in document.keys.items() if at[:length] == path and at != path}
    return Document(value, values, keys)


def merge(documents: list[Document]) -> Document:
    """The documents over each other, the last on top; mappings are joined, all else is replaced.

    Every value keeps the place where it was written.
    """
    merged = Document()
    for layer in documents:
        overlay(merged, layer, (), layer.value)
    return merged


def overlay(merged: Document, top: Document, path: KeyPath, value: Any) -> None:
    """Lay the value that ``top`` has at a path over what is there; ``merged`` is changed.

    Args:
        merged: What lies below.
        top: Knows the places of the value.
        path: Where the value goes.
        value: A mapping is joined with the mapping that is there.
    """
    below = lookup(merged.value, path)
    if isinstance(value, dict) and isinstance(below, dict):
        merged.values.setdefault(path, top.place(path))
        if path in top.keys:
            merged.keys.setdefault(path, top.keys[path])
        for key, item in value.items():
            overlay(merged, top, (*path, key), item)
        return
    if below is not MISSING:
        _forget(merged, path, below)
    parent = lookup(merged.value, path[:-1])
    parent[path[-1]] = _copied(merged, top, path, value)


def _forget(merged: Document, path: KeyPath, value: Any) -> None:
    merged.values.pop(path, None)
    merged.keys.pop(path, None)
    for key, item in items_of(value):
        _forget(merged, (*path, key), item)


def _copied(merged: Document, top: Document, path: KeyPath, value: Any) -> Any:
    """A copy of the value, so that no layer is changed by what is laid over it."""
    merged.values[path] = top.place(path)
    if path in top.keys:
        merged.keys[path] = top.keys[path]
    if isinstance(value, dict):
        return {key: _copied(merged, top, (*path, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(merged, top, (*path, number), item) for number, item in enumerate(value)]
    return value


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def lookup(value: Any, path: KeyPath) -> Any:
    """What stands at a path; ``MISSING`` if nothing does."""
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
        value: Of the type that the schema wants there.
        place: The variable or the flag; a value from outside is never shown in a message.
        reference: How another process finds the value again; None if it cannot.
    """

    layer: str
    path: KeyPath
    value: Any
    place: Place
    reference: str | None = None


def environment_overrides(
    environ: Mapping[str, str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in ``MUXLY__PIPELINES__DAILY__PARALLEL=8`` and its like, in the order of their names.

    Args:
        environ: Variables by name; those without the prefix are nobody's business here.
        document: The files, for the names that users chose.
        components: Knows the options of plugins.
        problems: Unknown names are noted here.
    """
    found = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        place = Place(f"environment variable {name}")
        parts = name.removeprefix(PREFIX).split("__")
        target = _find(root_shape(document.value, components), parts, (), place, problems)
        if target is not None:
            path, shape = target
            found.append(Override("environment", path, shape.read(environ[name]), place, f"${{{name}}}"))
    return found


def command_line_overrides(
    sets: Iterable[str], document: Document, components: Components, problems: Problems
) -> list[Override]:
    """The overrides in ``--set pipelines.daily.parallel=8``.

    Args:
        sets: Texts ``KEY=VALUE``.
        document: The files with the environment laid over.
        components: Knows the options of plugins.
        problems: Unknown keys are noted here.
    """
    found = []
    for text in sets:
        key, equals, value = text.partition("=")
        place = Place(f"--set {key}")
        if not equals:
            problems.add(place, (), "a value is set with KEY=VALUE")
            continue
        shape = _walk(key, root_shape(document.value, components), place, problems)
        if shape is not None:
            found.append(Override("command line", parse_path(key), shape.read(value), place))
    return found


def apply_overrides(document: Document, overrides: Iterable[Override]) -> None:
    """Lay the overrides over a document, which is changed."""
    for one in overrides:
        path, value = one.path, one.value
        while not isinstance(lookup(document.value, path[:-1]), dict | list):
            path, value = path[:-1], {path[-1]: value}
        overlay(document, Document({}, {path: one.place}), path, value)


def _walk(key: str, shape: Shape, place: Place, problems: Problems) -> Shape | None:
    try:
        path = parse_path(key)
    except ValueError as error:
        problems.add(place, (), str(error))
        return None
    for number, part in enumerate(path):
        inner = shape.child(part) if isinstance(part, int) or part in shape.names() else None
        if inner is None or (isinstance(part, int) and lookup(shape.value, (part,)) is MISSING):
            _unknown(shape, str(part), path[:number], place, problems)
            return None
        shape = inner
    return shape


def _find(
    shape: Shape, parts: list[str], path: KeyPath, place: Place, problems: Problems
) -> tuple[KeyPath, Shape] | None:
    """Follow the parts of a variable's name; the name of a key may itself hold ``__``."""
    if not parts:
        return path, shape
    for count in range(len(parts), 0, -1):
        wanted = _folded("__".join(parts[:count]))
        keys = [key for key in _keys(shape) if _folded(str(key)) == wanted]
        if len(keys) > 1:
            both = " and ".join(f'"{key}"' for key in keys)
            problems.add(place, path, f"could mean {both}; use --set, or rename one of them")
            return None
        inner = shape.child(keys[0]) if keys else None
        if inner is not None:
            return _find(inner, parts[count:], (*path, keys[0]), place, problems)
    _unknown(shape, parts[0], path, place, problems)
    return None


def _keys(shape: Shape) -> list[str | int]:
    if isinstance(shape.value, list):
        return list(range(len(shape.value)))
    return [*shape.names()]


def _folded(name: str) -> str:
    """Variables cannot hold dots and dashes, and are often written in capitals."""
    return _NOT_A_NAME.sub("_", name.lower())


def _unknown(shape: Shape, name: str, path: KeyPath, place: Place, problems: Problems) -> None:
    known = [str(key) for key in _keys(shape)]
    where = path_text(path) if path else "the configuration"
    close = nearest(name, known)
    hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known) or 'none'}"
    problems.add(place, path, f'{where} has no "{name.lower()}"; {hint}')


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
