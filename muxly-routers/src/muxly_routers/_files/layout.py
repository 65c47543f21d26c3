"""Names of folders and files, made from the names of streams and the values of records.

Whatever a name is made from, it stays one harmless component of a path: letters, digits and
``._=-%~``, never a leading dot or dash, never more than 200 bytes, never a name that Windows reserves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Literal, cast, get_args
from urllib.parse import quote

from attrs import frozen

__all__ = [
    "DatePart",
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
    unknown = [one for one in placeholders if one not in allowed]
    if unknown:
        return f"{{{unknown[0]}}} is not known; there are {', '.join(f'{{{one}}}' for one in allowed)}"
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
        found = _KEY.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                f"{text!r} is neither a column nor one of {', '.join(f'{one}(column)' for one in get_args(DatePart))}"
            )
        part, inner, plain, label = found.groups()
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
