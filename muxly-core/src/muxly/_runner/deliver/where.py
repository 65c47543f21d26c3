"""The filter of a route: one scalar SQL expression, checked on DuckDB's own parse tree.

The text of the user is never executed. DuckDB parses it (``json_serialize_sql``); every node of the
tree must be of a known kind and every function scalar and the same on each call; the names of
columns are then replaced by qualified ones, and the tree is written back as SQL
(``json_deserialize_sql``). The engine has no files, no network, no extensions, no temporary folder,
one thread, UTC, and a locked configuration.
"""

from __future__ import annotations

import json
import re

import pyarrow as pa

from muxly._runner.deliver.expressions import (
    Condition,
    engine,
    engine_error,
    engine_trouble,
    nodes_of,
    parsed,
    serialized,
    wrong,
)
from muxly.errors import RouteError, StreamError
from muxly.suggest import suggest

__all__ = ["Filter", "check_where"]

_RECORDS = "records"
_CLOCKS = frozenset(
    {
        *("current_catalog", "current_database", "current_role", "current_schema", "current_user"),
        *("current_date", "current_localtime", "current_localtimestamp", "current_time", "current_timestamp"),
        *("localtime", "localtimestamp", "session_user", "user"),
    }
)
"""What DuckDB parses as a column, and then takes for a function if no column has the name."""


def check_where(expression: str, schema: pa.Schema | None = None) -> None:
    """Check a filter before anything is read.

    Args:
        expression: The text of ``where``.
        schema: The stream's schema, if it is known; then columns and types are checked too.

    Raises:
        ConfigurationError: With the path ``("where",)``: DuckDB is not installed, a syntax
            error, something that is not one deterministic scalar expression, an unknown
            column with the nearest name, or an expression that is not true or false.
    """
    if schema is None:
        _check_columns(parsed(expression), None)
        return
    ready = Filter(expression, schema)
    _check_columns(ready.condition, schema)
    try:
        ready.mask(pa.RecordBatch.from_pylist([], schema=schema))
    except RouteError as error:
        raise wrong(error.message.removeprefix("where: ")) from None


def _check_columns(condition: Condition, schema: pa.Schema | None) -> None:
    for name in condition.columns:
        known = name.casefold() not in _CLOCKS if schema is None else _place(name, schema) is not None
        if not known:
            raise wrong(_unknown_column(name, schema))


def _unknown_column(name: str, schema: pa.Schema | None) -> str:
    if name.casefold() in _CLOCKS:
        return f"{name} does not return the same value on each call; compare with a literal or a column"
    names = schema.names if schema is not None else []
    near = suggest(name, names)
    hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(names[:10])}" if names else ""
    return f"there is no column {name!r}{hint}"


class Filter:
    """A filter ready to run on batches of one schema, in any thread; each has its own engine.

    Args:
        expression: The text of ``where``.
        schema: Of all batches. A column that is missing counts as null.

    Raises:
        ConfigurationError: As ``check_where``, except for unknown columns.
    """

    def __init__(self, expression: str, schema: pa.Schema) -> None:
        self.condition = parsed(expression)
        self._places = {name: _place(name, schema) for name in self.condition.columns}
        self._names = _unmistakable(self.condition.columns)
        self._query = _query(self.condition, self._names)

    def mask(self, batch: pa.RecordBatch) -> pa.Array:
        """Which records pass, in the batch's order; null counts as false.

        Raises:
            RouteError: The expression fails on a value, or is not true or false.
            StreamError: It could not be evaluated this time, for want of memory for example.
        """
        own = engine()
        own.register(_RECORDS, pa.Table.from_batches([self._projected(batch)]))
        try:
            result = own.sql(self._query).to_arrow_table().column(0)
        except Exception as error:
            if not isinstance(error, engine_error()):
                raise
            if isinstance(error, engine_trouble()):
                raise StreamError(f"where: {self.condition.text!r} could not be evaluated: {_said(error)}") from None
            raise RouteError(f"where: {self.condition.text!r} failed: {_said(error)}") from None
        finally:
            own.unregister(_RECORDS)
        if not pa.types.is_boolean(result.type):
            said = f"returns {result.type}, not true or false; use a comparison"
            raise RouteError(f"where: {self.condition.text!r} {said}")
        return result.combine_chunks().fill_null(False)

    def _projected(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {
            self._names[name]: pa.nulls(batch.num_rows) if place is None else _readable(batch.column(place))
            for name, place in self._places.items()
        }
        columns[""] = pa.nulls(batch.num_rows)
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _readable(column: pa.Array) -> pa.Array:
    """The column in a type that DuckDB reads: it has no decimals beyond 38 digits."""
    if not pa.types.is_decimal256(column.type):
        return column
    if column.type.scale > 38:
        return column.cast(pa.float64())
    try:
        return column.cast(pa.decimal128(38, column.type.scale))
    except pa.ArrowInvalid:
        return column.cast(pa.float64())


def _place(name: str, schema: pa.Schema) -> int | None:
    """The number of a column: by its exact name, else by the only one that differs in case."""
    names = schema.names
    if name in names:
        return int(names.index(name))
    alike = [place for place, other in enumerate(names) if other.casefold() == name.casefold()]
    if len(alike) > 1:
        raise wrong(
            f"{name!r} could be any of {', '.join(repr(names[place]) for place in alike)}; "
            'write the exact name in double quotes, "Name"'
        )
    return alike[0] if alike else None


def _unmistakable(columns: tuple[str, ...]) -> dict[str, str]:
    """A name for each referenced column that differs from the others in more than case."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name.casefold() in taken:
            name += "'"
        taken.add(name.casefold())
        names[column] = name
    return names


def _query(condition: Condition, names: dict[str, str]) -> str:
    tree = json.loads(condition.tree)
    for node in nodes_of(tree):
        if node["class"] == "COLUMN_REF":
            first, *rest = node["column_names"]
            node["column_names"] = [_RECORDS, names[first], *rest]
    statement = serialized("SELECT 1 FROM records")
    statement["statements"][0]["node"]["select_list"] = [tree]
    [[query]] = engine().sql("SELECT json_deserialize_sql(?::JSON)", params=[json.dumps(statement)]).fetchall()
    return str(query)


def _said(error: Exception) -> str:
    """What DuckDB says, in one line, without the values of the record."""
    line = str(error).split("\n", 1)[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"(?= to | is )", "'...'", re.sub(r"^[A-Za-z ]+ Error: ", "", line))
