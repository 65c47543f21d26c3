"""Names of tables and columns, made from the names of streams and of their columns.

A name that the database can hold is kept as it is; it is quoted wherever it stands in SQL. Any other is
mended and gets a hash of the original at its end, so that two names never become one and the same name
always becomes the same. Where a database takes ``A`` and ``a`` for one name, the second to come gets
the hash, and keeps it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muxly_routers.sql.dialect import Dialect

__all__ = ["assigned", "digest", "fit", "own", "rendered", "template_problem"]

OWN = "_muxly_"
"""What the names of our own tables and columns begin with."""

_PLACEHOLDER = re.compile(r"\{([a-z]*)\}")
_HASHED = re.compile(r"_x[0-9a-f]{8}$")
_KNOWN = ("stream", "route", "pipeline")


def digest(*texts: str, size: int = 4) -> str:
    """Hexadecimal digits that stand for the texts, two for each byte of ``size``."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=size).hexdigest()


def own(kind: str, *texts: str) -> str:
    """The name of a table or index of ours, with a hash of what it is for."""
    return f"{OWN}{kind}_{digest(*texts)}"


def fit(name: str, dialect: Dialect, *, table: bool = False) -> str:
    """The name as this database can hold it; the same name, if it can."""
    kept = (
        _clean(name, dialect) == name
        and name
        and dialect.length(name, table=table) <= dialect.longest_name
        and not _HASHED.search(name)
    )
    if kept and not name.startswith(OWN) and not dialect.reserved(name, table=table):
        return name
    return hashed(name, dialect, table=table)


def hashed(name: str, dialect: Dialect, *, table: bool = False) -> str:
    """The name mended, cut where it is too long, with a hash of the original."""
    head, end = _clean(name, dialect) or "unnamed", f"_x{digest(name)}"
    if head.startswith(OWN) or dialect.reserved(head + end, table=table):
        head = f"x{head}"
    while dialect.length(head + end, table=table) > dialect.longest_name:
        head = head[:-1]
    return head + end


def _clean(name: str, dialect: Dialect) -> str:
    return unicodedata.normalize("NFC", "".join(one if dialect.holds(one) else "_" for one in name)).strip()


def assigned(names: Iterable[str], there: Iterable[str], dialect: Dialect, *, table: bool = False) -> dict[str, str]:
    """The name in the database for each name.

    Args:
        names: All different.
        there: The names that the database has already; one that was given before is found among them.
        dialect: Which names are one for it.
        table: Whether they are names of tables; else of columns.
    """
    existing = set(there)
    taken = {dialect.folded(name, table=table): name for name in existing}
    chosen: dict[str, str] = {}
    # Those that are there come first: a newcomer must not take the name of one that was before it.
    for name in sorted(names, key=lambda one: fit(one, dialect, table=table) not in existing):
        wanted = fit(name, dialect, table=table)
        if wanted not in existing and dialect.folded(wanted, table=table) in taken:
            wanted = hashed(name, dialect, table=table)
        taken.setdefault(dialect.folded(wanted, table=table), wanted)
        chosen[name] = wanted
    return chosen


def template_problem(template: str, needed: str | None) -> str | None:
    """What is wrong with a template of names, in words; None if nothing is.

    Args:
        template: Such as ``"crm_{stream}"``.
        needed: The placeholder without which two streams would get one table; None = there is none.
    """
    placeholders = _PLACEHOLDER.findall(template)
    if unknown := [one for one in placeholders if one not in _KNOWN]:
        return f"{{{unknown[0]}}} is not known; there are {', '.join(f'{{{one}}}' for one in _KNOWN)}"
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
        return f"{template!r} has a brace that belongs to no placeholder"
    if needed and needed not in placeholders:
        return f"{{{needed}}} must be in {template!r}, or all streams would share one table"
    return None if template.strip() else "a name cannot be empty"


def rendered(template: str, values: Mapping[str, str]) -> str:
    """The template with each placeholder replaced by its value, as it is; ``fit`` comes after."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
