"""MySQL and MariaDB: what they say differently, tables whose texts compare byte by byte."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import muxly
from muxly_routers._failures import needs
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.mysql import errors, types
from muxly_routers.sql.quoting import SEQUENCE, Column, Fault, Form, Merge, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from sqlalchemy import URL

    from muxly_routers.sql.session import Session, Waits

__all__ = ["Mysql"]

_DRIVERS = ("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql")

# Each server reads its own comment and skips the other's: the collation that takes no two different texts
# for one, not even where they end in spaces (from MySQL 8.0.17 and MariaDB 10.2).
_TABLE_END = (
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    " /*M!100202 COLLATE=utf8mb4_nopad_bin */ /*!80017 COLLATE=utf8mb4_0900_bin */"
)

# A table is a file, in whose name a character beyond ASCII letters and digits takes five bytes.
_FILE_NAME_BYTES, _SPECIAL_BYTES = 250, 5


class Mysql(Dialect):
    """The words of MySQL and MariaDB."""

    name = "mysql"
    longest_name = 64
    in_bytes = False
    transactional = False

    def open(self, url: URL, waits: Waits) -> Session:
        if url.drivername not in _DRIVERS:
            raise muxly.ConfigurationError(
                f"{url.drivername} is not used here; write mysql+pymysql://user:password@host/database", path=("url",)
            )
        with needs("mysql"):
            from muxly_routers.sql.mysql import session

        return session.opened(url, waits)

    def fault(self, error: Exception) -> Fault | None:
        return errors.fault(error)

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        return types.form(kind, key=key)

    def widened(self, there: str, wanted: str) -> str | None:
        return types.widened(there, wanted)

    def loads_into(self, there: str, wanted: str) -> bool:
        # Everything is loaded as text, which the server makes into what the column is, or refuses.
        return self.widened(there, wanted) == there

    def length(self, name: str, *, table: bool = False) -> int:
        if not table:
            return len(name)
        size = sum(1 if one.isascii() and (one.isalnum() or one == "_") else _SPECIAL_BYTES for one in name)
        return max(len(name), -(-size * self.longest_name // _FILE_NAME_BYTES))

    def holds(self, character: str) -> bool:
        return character <= "\uffff" and super().holds(character)

    def folded(self, name: str, *, table: bool = False) -> str:
        # Small letters by a table of the server's own, in which the dot of İ is lost.
        return unicodedata.normalize("NFC", name.casefold().replace("\u0307", ""))

    def quoted(self, name: str) -> str:
        # Every statement runs through PyMySQL's formatting, for which a percent sign stands twice.
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    def parameter(self, number: int) -> str:
        return "%s"

    def same(self, left: str, right: str) -> str:
        return f"{left} <=> {right}"

    def cast(self, expression: str, type: str) -> str:
        # An assignment converts, and under our strict mode it refuses what does not fit.
        return expression

    def ordered(self, expression: str, type: str) -> str:
        if types.is_text(type):
            return f"CAST(CONVERT({expression} USING utf8mb4) AS BINARY)"
        return expression

    def create_table(
        self, place: Place, columns: Sequence[Column], key: Sequence[str] = (), *, temporary: bool = False
    ) -> str:
        return super().create_table(place, columns, key, temporary=temporary) + _TABLE_END

    def drop_table(self, place: Place, *, temporary: bool = False) -> str:
        # Without the word it would commit what has been done so far.
        return f"DROP {self.temporary if temporary else ''}TABLE IF EXISTS {self.at(place)}"

    def change_type(self, place: Place, column: Column) -> list[str]:
        return [f"ALTER TABLE {self.at(place)} MODIFY COLUMN {self.quoted(column.name)} {column.type}"]

    def rename_table(self, place: Place, name: str) -> str:
        # A bare name would be one of the connection's own database.
        return f"RENAME TABLE {self.at(place)} TO {self.at(Place(place.schema, name))}"

    def exchange(self, new: Place, old: Place, aside: Place) -> list[str]:
        return [f"RENAME TABLE {self.at(old)} TO {self.at(aside)}, {self.at(new)} TO {self.at(old)}"]

    def create_index(self, name: str, place: Place, columns: Sequence[str], *, unique: bool = False) -> str:
        # MySQL cannot be told to leave one alone that is there; the session takes no offence at it.
        word = "UNIQUE INDEX" if unique else "INDEX"
        return f"CREATE {word} {self.quoted(name)} ON {self.at(place)} ({self.listed(columns)})"

    def delete_matching(self, target: Place, values: Place, columns: Sequence[Column], *, nulls: bool) -> str:
        pairs = [(f"t.{self.quoted(one.name)}", f"v.{self.quoted(one.name)}") for one in columns]
        condition = " AND ".join(self.same(*pair) if nulls else " = ".join(pair) for pair in pairs)
        return f"DELETE t FROM {self.at(target)} AS t JOIN {self.at(values)} AS v ON {condition}"

    def merge(self, merge: Merge) -> list[str]:
        """Keep the newest record of each key, change what is there, then add what is not.

        ON DUPLICATE KEY UPDATE into the table itself would be fewer statements, but it takes any unique
        index for the key, and so would change another record where a table has a second one. Here it
        finds the newest, in a table that has only the one.
        """
        newest = Place(None, f"{merge.stage.table}_newest")
        made = [*merge.columns, Column(SEQUENCE, "bigint")]
        names = [one.name for one in made]
        keys = " AND ".join(f"t.{self.quoted(name)} = s.{self.quoted(name)}" for name in merge.key)
        changes = ", ".join(
            f"t.{self.quoted(name)} = {self.merged(merge, name, 's', 't')}" for name in names if name not in merge.key
        )
        target, source = f"{self.at(merge.target)} AS t", f"{self.at(newest)} AS s"
        return [
            self.create_table(newest, made, merge.key, temporary=True),
            self._keep_newest(merge, newest, names),
            f"UPDATE {target} JOIN {source} ON {keys} SET {changes} WHERE {self.newer(merge, 's', 't')}",
            self._add_missing(merge, names, f"{source} LEFT JOIN {target} ON {keys}"),
            self.drop_table(newest, temporary=True),
        ]

    def _keep_newest(self, merge: Merge, newest: Place, names: Sequence[str]) -> str:
        # An assignment sees those before it, so what decides comes last; once it is taken over, the
        # condition still holds.
        deciding = [SEQUENCE, *([] if merge.cursor is None else [merge.cursor])]
        ordered = [*(name for name in names if name not in deciding and name not in merge.key), *deciding]
        kept, later = f"{self.at(newest)}.", self._is_later(merge, f"{self.at(newest)}.")
        changes = ", ".join(
            f"{kept}{name} = IF({later}, VALUES({name}), {kept}{name})" for name in map(self.quoted, ordered)
        )
        listed = self.listed(names)
        return (
            f"INSERT INTO {self.at(newest)} ({listed}) SELECT {listed} FROM {self.at(merge.stage)} "
            f"ON DUPLICATE KEY UPDATE {changes}"
        )

    def _is_later(self, merge: Merge, kept: str) -> str:
        """A condition: the staged record beats the one of its key that is kept so far."""
        later = f"VALUES({self.quoted(SEQUENCE)}) >= {kept}{self.quoted(SEQUENCE)}"
        if merge.cursor is None:
            return later
        kind = next(one.type for one in merge.columns if one.name == merge.cursor)
        name = self.quoted(merge.cursor)
        new, old = self.ordered(f"VALUES({name})", kind), self.ordered(f"{kept}{name}", kind)
        return f"({new} > {old} OR ({new} IS NOT NULL AND {old} IS NULL) OR ({self.same(new, old)} AND {later}))"

    def _add_missing(self, merge: Merge, names: Sequence[str], joined: str) -> str:
        return (
            f"INSERT INTO {self.at(merge.target)} ({self.listed(names)}) SELECT {self.listed(names, 's.')} "
            f"FROM {joined} WHERE t.{self.quoted(merge.key[0])} IS NULL"
        )
