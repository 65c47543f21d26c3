"""Names of folders and files, made from names of streams and values of records, and the options that decide them.

Whatever a name is made from, it stays one harmless component of a path: letters, digits and
``._=-%~``, never a leading dot or dash, never more than 200 bytes, never a name that Windows reserves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args
from urllib.parse import quote

import attrs
from attrs import frozen

import muxly
from muxly_routers._formats import Compression, Csv, Encoding, Format, Parquet, resolve
from muxly_routers._formats.encoding import check_compression, check_level

__all__ = [
    "DatePart",
    "FileLayout",
    "FileOptions",
    "PartitionKey",
    "folder_name",
    "rendered",
    "slug",
    "stream_folder",
    "template_problem",
    "text_hash",
]

DatePart = Literal["year", "month", "day", "hour"]

NULL_TEXT = "__HIVE_DEFAULT_PARTITION__"

_LONGEST = 200
_LONGEST_SLUG = 80
_HASHED = re.compile(r"-[0-9a-f]{12}$")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_LITERAL = re.compile(r"[A-Za-z0-9._=-]*")
_KEY = re.compile(r"(?:(year|month|day|hour)\((.+)\)|(.+?))(?: as ([A-Za-z0-9_]+))?", re.DOTALL)


def slug(text: str) -> str:
    """The text as one component of a path, different for every text.

    A text that is fit already is kept; any other gets a hash of the whole text at its end. So does
    one that ends like such a hash, or it could be made to equal another's name.
    """
    clean = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip(".-")[:_LONGEST_SLUG].rstrip(".-")
    if _RESERVED.match(clean):
        clean = f"_{clean}"
    if clean == text and clean and not _HASHED.search(clean):
        return clean
    return f"{clean}-{text_hash(text)}" if clean else text_hash(text)


def text_hash(text: str, *, size: int = 6) -> str:
    """A name for a text of any kind, in hexadecimal digits: two for each of ``size`` bytes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def template_problem(template: str, needed: str, allowed: tuple[str, ...]) -> str | None:
    """What is wrong with a template of names, in words; None if nothing is.

    Args:
        template: Such as ``"raw/{stream}"``.
        needed: The placeholder without which two things would get one name.
        allowed: All placeholders that it may have.
    """
    placeholders = _PLACEHOLDER.findall(template)
    if needed not in placeholders:
        return f"{{{needed}}} must be in {template!r}, or files of different origin would be mixed"
    unknown = [name for name in placeholders if name not in allowed]
    if unknown:
        return f"{{{unknown[0]}}} is not known; there are {', '.join(f'{{{name}}}' for name in allowed)}"
    for part in template.split("/"):
        text = _PLACEHOLDER.sub("", part)
        if not part or part.startswith((".", "-")) or part.endswith(".") or not _LITERAL.fullmatch(text):
            return (
                f"{part!r} in {template!r} is not a name: use letters, digits, '._=-' and placeholders, "
                "no leading dot or dash"
            )
    return None


def rendered(template: str, values: Mapping[str, str]) -> str:
    """The template with each placeholder replaced by the slug of its value."""
    return _PLACEHOLDER.sub(lambda found: slug(values[found[1]]), template)


def stream_folder(template: str, stream: str, pipeline: str) -> tuple[str, ...]:
    """The folders of a stream, outermost first, by a template such as ``"raw/{stream}"``."""
    names = {"stream": stream, "pipeline": pipeline}
    return tuple(rendered(part, names) for part in template.split("/"))


@frozen
class PartitionKey:
    """One level of partition folders.

    Args:
        column: The column whose values make the folders.
        part: Which part of a date or time, or None for the value itself.
        label: What stands before the ``=`` in the folder's name.
    """

    column: str
    part: DatePart | None = None
    label: str = ""

    @classmethod
    def parse(cls, text: str) -> PartitionKey:
        """Read ``"country"``, ``"month(created)"`` or ``"month(created) as created_month"``.

        Raises:
            ValueError: The text is none of these.
        """
        match = _KEY.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} is neither a column nor one of {', '.join(f'{part}(column)' for part in get_args(DatePart))}"
            )
        part, inner, plain, label = match.groups()
        column = (inner or plain).strip()
        return cls(column, cast("DatePart | None", part), label or part or column)


def folder_name(label: str, text: str | None) -> str:
    """The partition folder of one value, ``country=DE``, as Hive and all its readers write it.

    Args:
        label: The name of the key.
        text: The value as text; None for a missing one.
    """
    value = NULL_TEXT if text is None else _escaped(text)
    name = f"{_escaped_label(label)}={value}"
    if len(name) > _LONGEST:
        # "~" is always escaped elsewhere, so a cut name never equals one that was not cut.
        name = f"{name[: _LONGEST - 13]}~{text_hash(f'{label}={text}')}"
    return f"{name[:-1]}%2E" if name.endswith(".") else name


def is_cut(name: str) -> bool:
    """Whether the value in a folder's name was too long to stand there whole."""
    return "~" in name


def _escaped(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass").replace("~", "%7E")


def _escaped_label(label: str) -> str:
    """The same, and not a hidden name or one that looks like an option of a command."""
    escaped = _escaped(label)
    return f"%{ord(label[0]):02X}{escaped[1:]}" if escaped[:1] in (".", "-") else escaped


def _check_folder(instance: Any, attribute: Any, value: str) -> None:
    if problem := template_problem(value, "stream", ("stream", "pipeline")):
        raise ValueError(f"folder: {problem}")


def _check_file_name(instance: Any, attribute: Any, value: str) -> None:
    problem = template_problem(value, "delivery", ("delivery", "stream", "pipeline"))
    if problem or "/" in value:
        raise ValueError(f"file_name: {problem or f'{value!r} is a path; folders belong in folder'}")


def _check_partition_by(instance: Any, attribute: Any, value: list[str]) -> None:
    keys = [PartitionKey.parse(text) for text in value]
    labels = [key.label for key in keys]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ValueError(f"partition_by has two folders {twice[0]!r}; name one with 'as', as in 'day(at) as at_day'")


@frozen(kw_only=True)
class FileLayout:
    """How the files of a route are called and written; equal options give equal layouts.

    Args:
        folder: Template of a stream's folder.
        file_name: Template of a file's name, without its ending.
        encoding: The format with its settings.
        keys: The levels of partition folders, outermost first.
        keep_columns: Whether the files keep the columns whose values name the folders.
        most_folders: How many partition folders one delivery may touch.
    """

    folder: str
    file_name: str
    encoding: Encoding
    keys: tuple[PartitionKey, ...]
    keep_columns: bool
    most_folders: int

    def stream_folder(self, stream: str, pipeline: str) -> tuple[str, ...]:
        """The folders of a stream, outermost first."""
        return stream_folder(self.folder, stream, pipeline)


class FileOptions(muxly.Options):
    """How files are written, and what they are called."""

    format: Format = muxly.option("Format of the files.", default="parquet")
    compression: Compression = muxly.option(
        "How the files are compressed; auto is zstd for parquet, lz4 for arrow, none for csv and jsonl.",
        default="auto",
        validator=check_compression,
    )
    compression_level: int | None = muxly.option(
        "Level of gzip (1 to 9) or of parquet's zstd (1 to 22); higher is smaller and slower.",
        default=None,
        validator=check_level,
    )
    partition_by: list[str] = muxly.option(
        "Folders by value, outermost first: a column, or year(c), month(c), day(c), hour(c) of a date or "
        "time, in UTC; 'month(at) as at_month' names the folder.",
        factory=list,
        validator=_check_partition_by,
    )
    keep_partition_columns: bool = muxly.option(
        "Whether the files keep the columns whose values name the folders.", default=True
    )
    max_folders: int = muxly.option(
        "Most partition folders that one delivery may touch.", default=1000, validator=attrs.validators.ge(1)
    )
    folder: str = muxly.option(
        "Folder of a stream, made of {stream} and {pipeline}.",
        default="{stream}",
        validator=_check_folder,
    )
    file_name: str = muxly.option(
        "Name of a file without its ending, made of {delivery}, {stream} and {pipeline}.",
        default="{delivery}",
        validator=_check_file_name,
    )
    csv: Csv = muxly.option("How CSV is written.", factory=Csv)
    parquet: Parquet = muxly.option("How Parquet is written.", factory=Parquet)

    def _layout(self) -> FileLayout:
        return FileLayout(
            folder=self.folder,
            file_name=self.file_name,
            encoding=resolve(self.format, self.compression, self.compression_level, self.csv, self.parquet),
            keys=tuple(PartitionKey.parse(text) for text in self.partition_by),
            keep_columns=self.keep_partition_columns,
            most_folders=self.max_folders,
        )
