"""Names of tables and columns, made from the names of streams and of their columns.

A name that the database can hold is kept as it is; it is quoted wherever it stands in SQL. Any other name
is repaired and gets a hash of the original as its suffix, so two names never become one, and the same name
always becomes the same. Where a database takes ``A`` and ``a`` for one name, the second to come gets the
hash, and keeps it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import ClassVar

from attrs import frozen

__all__ = [
    "OWN_PREFIX",
    "NameRules",
    "TableName",
    "assigned",
    "digest",
    "fit",
    "hashed",
    "own_name",
    "rendered",
    "template_problem",
]

OWN_PREFIX = "_muxly_"
"""What the names of the router's own tables and columns begin with."""

_PLACEHOLDER = re.compile(r"\{([a-z]*)\}")
_HASHED = re.compile(r"_x[0-9a-f]{8}$")
_PLACEHOLDERS = ("stream", "route", "pipeline")


@frozen
class TableName:
    """The name of a table; ``schema`` None = the schema that the connection looks in first."""

    schema: str | None
    name: str


class NameRules:
    """Rules of a database about names; the base of every dialect.

    ``table`` says whether a name is one of a table; otherwise it is one of a column.
    """

    longest_name: ClassVar[int] = 63
    """Bytes of UTF-8 (``in_bytes``) or characters that a name may have."""

    in_bytes: ClassVar[bool] = True

    def allows_character(self, character: str) -> bool:
        """Whether a name may have this character; never a control character."""
        return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")

    def length(self, name: str, *, table: bool = False) -> int:
        """The length of a name, in what ``longest_name`` counts."""
        return len(name.encode()) if self.in_bytes else len(name)

    def quoted(self, name: str) -> str:
        """A name as it stands in SQL, always quoted."""
        return '"' + name.replace('"', '""') + '"'

    def folded(self, name: str, *, table: bool = False) -> str:
        """One form for all names that this database takes for the same name (PostgreSQL: the name itself)."""
        return name

    def reserved(self, name: str, *, table: bool = False) -> bool:
        """Whether the database keeps a name for itself even if it is quoted (``ctid``)."""
        return False


def digest(*texts: str, size: int = 4) -> str:
    """Hexadecimal digits that stand for the texts, two for each byte of ``size``."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=size).hexdigest()


def own_name(purpose: str, *texts: str) -> str:
    """The name of one of the router's own tables or indexes, with a hash of what it belongs to."""
    return f"{OWN_PREFIX}{purpose}_{digest(*texts)}"


def fit(name: str, rules: NameRules, *, table: bool = False) -> str:
    """The name as this database can hold it; unchanged, if it can."""
    possible = (
        _clean(name, rules) == name
        and name
        and rules.length(name, table=table) <= rules.longest_name
        and not _HASHED.search(name)
    )
    if possible and not name.startswith(OWN_PREFIX) and not rules.reserved(name, table=table):
        return name
    return hashed(name, rules, table=table)


def hashed(name: str, rules: NameRules, *, table: bool = False) -> str:
    """The name repaired, cut where it is too long, with a hash of the original."""
    head, suffix = _clean(name, rules) or "unnamed", f"_x{digest(name)}"
    if head.startswith(OWN_PREFIX) or rules.reserved(head + suffix, table=table):
        head = f"x{head}"
    while rules.length(head + suffix, table=table) > rules.longest_name:
        head = head[:-1]
    return head + suffix


def _clean(name: str, rules: NameRules) -> str:
    allowed = "".join(character if rules.allows_character(character) else "_" for character in name)
    return unicodedata.normalize("NFC", allowed).strip()


def assigned(names: Iterable[str], existing: Iterable[str], rules: NameRules, *, table: bool = False) -> dict[str, str]:
    """The name in the database for each name.

    Args:
        names: All different.
        existing: The names that the database has already; one that was assigned before is among them.
        rules: Decide which names are the same for the database.
        table: Whether they are names of tables; otherwise of columns.
    """
    present = set(existing)
    taken = {rules.folded(name, table=table): name for name in present}
    chosen: dict[str, str] = {}
    # Existing ones come first: a newcomer must not take the name of one that was before it.
    for name in sorted(names, key=lambda name: fit(name, rules, table=table) not in present):
        wanted = fit(name, rules, table=table)
        if wanted not in present and rules.folded(wanted, table=table) in taken:
            wanted = hashed(name, rules, table=table)
        taken.setdefault(rules.folded(wanted, table=table), wanted)
        chosen[name] = wanted
    return chosen


def template_problem(template: str, needed: str | None) -> str | None:
    """A sentence about what is wrong with a template of names; None if nothing is.

    Args:
        template: Such as ``"crm_{stream}"``.
        needed: The placeholder without which two streams would get one table; None = there is none.
    """
    placeholders = _PLACEHOLDER.findall(template)
    if unknown := [placeholder for placeholder in placeholders if placeholder not in _PLACEHOLDERS]:
        known = ", ".join(f"{{{placeholder}}}" for placeholder in _PLACEHOLDERS)
        return f"{{{unknown[0]}}} is not known; there are {known}"
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
        return f"{template!r} has a brace that belongs to no placeholder"
    if needed and needed not in placeholders:
        return f"{{{needed}}} must be in {template!r}, or all streams would share one table"
    return None if template.strip() else "a name cannot be empty"


def rendered(template: str, values: Mapping[str, str]) -> str:
    """The template with each placeholder replaced by its value, unchanged; ``fit`` comes after."""
    return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template)
