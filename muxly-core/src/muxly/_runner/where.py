"""The filter of a route: one scalar SQL expression, checked on DuckDB's own parse tree.

The text of the user is never executed. DuckDB parses it (``json_serialize_sql``); every node of the
tree must be of a known kind and every function scalar and the same on each call; the names of
columns are then replaced by qualified ones, and the tree is written back as SQL
(``json_deserialize_sql``). The engine has no files, no network, no extensions, no temporary folder,
one thread, UTC, and a locked configuration.
"""

from __future__ import annotations

import difflib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import field, frozen

from muxly.errors import ConfigurationError, RouteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

__all__ = ["Filter", "check_where"]

MOST_CHARACTERS = 10_000
_PATH = ("where",)
_RECORDS = "records"
_CLASSES = frozenset(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE".split()
)
_REFUSED_CLASSES = {
    "LAMBDA": "lambda functions (for JSON write `->>` or json_extract in place of `->`)",
    "PARAMETER": "parameters",
    "STAR": "`*` and COLUMNS()",
    "SUBQUERY": "subqueries, EXISTS, ANY and ALL",
    "WINDOW": "window functions",
}
_REFUSED_OPERATORS = frozenset({"GROUPING_FUNCTION", "OPERATOR_TRY"})
_REFUSED_FUNCTIONS = frozenset(
    # Other answers on another day, in another version, or about the engine itself.
    "age current_localtime current_localtimestamp hash version invoke create_sort_key "
    "json_serialize_sql json_serialize_plan json_deserialize_sql parse_duckdb_log_message "
    # Any aggregate by name.
    "aggregate array_aggr array_aggregate list_aggr list_aggregate combine finalize to_aggregate_state "
    # A few characters that become gigabytes.
    "array_resize bar format generate_series list_resize lpad printf range repeat rpad".split()
)
_MACROS = frozenset(
    "array_append array_prepend array_reverse array_to_string date_add days_in_month fdiv fmod if "
    "list_append list_avg list_bool_and list_bool_or list_count list_first list_last list_max list_min "
    "list_prepend list_product list_reverse list_sum nullif split_part".split()
)
_CLOCKS = frozenset(
    "current_catalog current_database current_date current_localtime current_localtimestamp current_role "
    "current_schema current_time current_timestamp current_user localtime localtimestamp session_user "
    "user".split()
)


@frozen
class Condition:
    """An expression that passed the checks.

    Args:
        text: As the user wrote it.
        tree: The expression as DuckDB serialises it.
        columns: The first name of every column reference.
    """

    text: str
    tree: str = field(repr=False)
    columns: tuple[str, ...]


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
    condition = _condition(expression)
    unknown = [name for name in condition.columns if schema is not None and _place(name, schema) is None]
    unknown += [name for name in condition.columns if schema is None and name.casefold() in _CLOCKS]
    if unknown:
        raise _wrong(_unknown_column(unknown[0], schema))
    if schema is None:
        return
    engine = Filter(expression, schema)
    try:
        engine.mask(pa.RecordBatch.from_pylist([], schema=schema))
    except RouteError as error:
        raise _wrong(error.message.removeprefix("where: ")) from error
    finally:
        engine.close()


def _unknown_column(name: str, schema: pa.Schema | None) -> str:
    if name.casefold() in _CLOCKS:
        return f"{name} is not the same on each call; compare with a literal or a column"
    names = schema.names if schema is not None else []
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names[:10])}" if names else ""
    return f"there is no column {name!r}{hint}"


class Filter:
    """A filter ready to run on batches of one schema, in one thread.

    Args:
        expression: The text of ``where``.
        schema: Of all batches. A column that is missing counts as null.

    Raises:
        ConfigurationError: As ``check_where``, except for unknown columns.
    """

    def __init__(self, expression: str, schema: pa.Schema) -> None:
        self._condition = _condition(expression)
        self._places = {name: _place(name, schema) for name in self._condition.columns}
        self._names = _unmistakable(self._condition.columns, schema)
        self._engine = _connect()
        self._query = _query(self._engine, self._condition, self._names)

    def mask(self, batch: pa.RecordBatch) -> pa.Array:
        """Which records pass: true, false or null, in the batch's order.

        Raises:
            RouteError: The expression fails on a value, or is not true or false.
        """
        self._engine.register(_RECORDS, pa.Table.from_batches([self._projected(batch)]))
        try:
            result = self._engine.sql(self._query).to_arrow_table().column(0)
        except Exception as error:
            if not isinstance(error, _duckdb().Error):
                raise
            raise RouteError(f"where: {self._condition.text!r} fails: {_said(error)}") from error
        finally:
            self._engine.unregister(_RECORDS)
        if not pa.types.is_boolean(result.type):
            raise RouteError(
                f"where: {self._condition.text!r} gives {result.type}, not true or false; compare it with something"
            )
        return result.combine_chunks()

    def _projected(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {
            self._names[name]: pa.nulls(batch.num_rows) if place is None else _readable(batch.column(place))
            for name, place in self._places.items()
        }
        columns[""] = pa.nulls(batch.num_rows)
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    def close(self) -> None:
        """Give the engine's memory back."""
        self._engine.close()


def _readable(column: pa.Array) -> pa.Array:
    """The column in a type that DuckDB reads: it has no decimals beyond 38 digits."""
    if not pa.types.is_decimal256(column.type):
        return column
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
        raise _wrong(
            f"{name!r} may be any of {', '.join(repr(names[place]) for place in alike)}; "
            'write the exact name in double quotes, "Name"'
        )
    return alike[0] if alike else None


def _unmistakable(columns: tuple[str, ...], schema: pa.Schema) -> dict[str, str]:
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


def _query(engine: duckdb.DuckDBPyConnection, condition: Condition, names: dict[str, str]) -> str:
    tree = json.loads(condition.tree)
    for node in _nodes(tree):
        if node["class"] == "COLUMN_REF":
            first, *rest = node["column_names"]
            node["column_names"] = [_RECORDS, names[first], *rest]
    statement = _serialized(engine, f"SELECT 1 FROM {_RECORDS}")
    statement["statements"][0]["node"]["select_list"] = [tree]
    [[query]] = engine.sql("SELECT json_deserialize_sql(?::JSON)", params=[json.dumps(statement)]).fetchall()
    return str(query)


@lru_cache(maxsize=256)
def _condition(expression: str) -> Condition:
    if len(expression) > MOST_CHARACTERS:
        raise _wrong(f"it has {len(expression)} characters; at most {MOST_CHARACTERS} are taken")
    if not expression.strip():
        raise _wrong("it is empty; leave it out to deliver every record")
    engine = _connect()
    try:
        tree = _only_expression(engine, expression)
        nodes = list(_nodes(tree))
        for node in nodes:
            _check_node(node)
        _check_functions(engine, {node["function_name"] for node in nodes if node["class"] == "FUNCTION"})
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    finally:
        engine.close()
    columns = dict.fromkeys(node["column_names"][0] for node in nodes if node["class"] == "COLUMN_REF")
    return Condition(expression, json.dumps(tree), tuple(columns))


def _only_expression(engine: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    # The line break ends a comment, so that the parenthesis closes.
    parsed = _serialized(engine, f"SELECT (\n{expression}\n)")
    if parsed["error"]:
        raise _wrong(f"{parsed['error_message']}{_position(parsed)}")
    statements = parsed["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {"type": "several"}
    alone = node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    if not alone or not _is_bare(node) or node["select_list"][0]["alias"]:
        raise _wrong("it must be one expression over the columns, such as `amount > 100 and country = 'DE'`")
    tree: dict[str, Any] = node["select_list"][0]
    return tree


def _is_bare(node: dict[str, Any]) -> bool:
    """Whether a SELECT has nothing but its list: no FROM, WHERE, GROUP BY, WITH, ORDER BY."""
    clauses = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")
    return (
        node["from_table"]["type"] == "EMPTY"
        and not node["cte_map"]["map"]
        and not any(node[clause] for clause in clauses)
    )


def _position(parsed: dict[str, Any]) -> str:
    position = parsed.get("position")
    return f" (character {max(1, int(position) - len('SELECT (') )})" if position else ""


def _serialized(engine: duckdb.DuckDBPyConnection, statement: str) -> dict[str, Any]:
    [[text]] = engine.sql("SELECT json_serialize_sql(?::VARCHAR)", params=[statement]).fetchall()
    tree: dict[str, Any] = json.loads(text)
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression of a tree, wherever it hangs."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += reversed(node)
        elif isinstance(node, dict):
            if "class" in node:
                yield node
            waiting += reversed(node.values())


def _check_node(node: dict[str, Any]) -> None:
    kind = node["class"]
    if kind not in _CLASSES:
        what = _REFUSED_CLASSES.get(kind, kind.replace("_", " ").lower() + "s")
        raise _wrong(f"{what} are not taken; it must be one scalar expression over the columns of a record")
    if kind == "OPERATOR" and node["type"] in _REFUSED_OPERATORS:
        raise _wrong(f"{node['type'].removeprefix('OPERATOR_').lower()} is not taken in a filter of records")
    if kind == "FUNCTION":
        if node.get("schema") or node.get("catalog"):
            raise _wrong(f"write {node['function_name']}(...) without a dot before it")
        if node.get("filter") or node.get("distinct") or (node.get("order_bys") or {}).get("orders"):
            raise _wrong(f"{node['function_name']} with FILTER, DISTINCT or ORDER BY is not taken")


def _check_functions(engine: duckdb.DuckDBPyConnection, names: set[str]) -> None:
    if not names:
        return
    rows = engine.sql("SELECT function_name, function_type, stability FROM duckdb_functions()").fetchall()
    known: dict[str, set[tuple[str, str | None]]] = {}
    for name, kind, stability in rows:
        known.setdefault(name, set()).add((kind, stability))
    for name in sorted(names):
        _check_function(name, known)


def _check_function(name: str, known: dict[str, set[tuple[str, str | None]]]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, [other for other in known if other.isidentifier()], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise _wrong(f"there is no function {name}{hint}")
    if name in _MACROS:
        return
    kinds = {kind for kind, _ in known[name]}
    if kinds & {"aggregate", "window", "table", "table_macro", "pragma"}:
        raise _wrong(f"{name} is no function of one record; a filter sees one record at a time")
    if {stability for _, stability in known[name]} & {"VOLATILE", "CONSISTENT_WITHIN_QUERY"}:
        raise _wrong(f"{name} is not the same on each call; compare with a literal or a column")
    if name in _REFUSED_FUNCTIONS or "macro" in kinds or name.startswith("__"):
        raise _wrong(f"{name} is not taken in a filter")


def _connect() -> duckdb.DuckDBPyConnection:
    engine = _duckdb().connect(
        ":memory:",
        config={
            "allow_community_extensions": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
            "max_expression_depth": "250",
            "memory_limit": "512MB",
            "python_enable_replacements": "false",
            "temp_directory": "",
            "threads": "1",
        },
    )
    for setting in ("SET TimeZone = 'UTC'", "SET lock_configuration = true"):
        engine.execute(setting)
        engine.complete()
    return engine


def _duckdb() -> Any:
    try:
        # Heavy, and only pipelines with a filter need it.
        import duckdb
    except ImportError:
        raise _wrong('a filter needs DuckDB; install it with `pip install "muxly-core[where]"`') from None
    return duckdb


def _said(error: Exception) -> str:
    """What DuckDB says, in one line, without the values of the record."""
    line = str(error).split("\n", 1)[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"(?= to | is )", "'...'", re.sub(r"^[A-Za-z ]+ Error: ", "", line))


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"where: {what}", path=_PATH)
