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
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import field, frozen

from muxly.errors import ConfigurationError, RouteError, StreamError
from muxly.suggest import suggest

if TYPE_CHECKING:
    import duckdb


__all__ = [
    "Condition",
    "Filter",
    "MOST_CHARACTERS",
    "check_where",
    "engine",
    "engine_error",
    "engine_trouble",
    "nodes_of",
    "parsed",
    "serialized",
    "wrong",
]


MOST_CHARACTERS = 10_000
"""Of a filter's text."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLASSES = _words("BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE")
_REFUSED_CLASSES = {
    "LAMBDA": "lambda functions (for JSON write `->>` or json_extract in place of `->`)",
    "PARAMETER": "parameters",
    "STAR": "`*` and COLUMNS()",
    "SUBQUERY": "subqueries, EXISTS, ANY and ALL",
    "WINDOW": "window functions",
}
_REFUSED_OPERATORS = _words("GROUPING_FUNCTION OPERATOR_TRY")
# They look at a clock, which not every version of the engine says of them.
_CLOCKS = _words("age current_localtime current_localtimestamp")
# Other answers in another version, or about the engine itself.
_UNSTABLE = _words(
    "create_sort_key hash invoke json_deserialize_sql json_serialize_plan json_serialize_sql "
    "parse_duckdb_log_message version"
)
# Any aggregate by its name.
_AGGREGATES = _words(
    "aggregate array_aggr array_aggregate combine finalize list_aggr list_aggregate to_aggregate_state"
)
# A few characters become gigabytes, which no limit of the engine stops.
_GROWING = _words("array_resize bar format generate_series list_resize lpad printf range repeat rpad")
# Each makes its argument several times longer; one inside of another multiplies.
_SWELLING = _words(
    "array_to_json array_to_string base64 bin concat_ws hex json_array json_object json_pretty json_quote list_concat "
    "regexp_replace replace row_to_json strftime to_base to_base64 to_binary to_hex to_json url_encode"
)
_REFUSED_FUNCTIONS = _UNSTABLE | _AGGREGATES | _GROWING
# How the engine writes the types that hold an instant or a time with its zone.
_ZONED = re.compile(r"WITH TIME ZONE|TZ")
# Macros have no stability; these are made of stable functions.
_MACROS = _words(
    "array_append array_prepend array_reverse array_to_string date_add days_in_month fdiv fmod if list_append "
    "list_avg list_bool_and list_bool_or list_count list_first list_last list_max list_min list_prepend "
    "list_product list_reverse list_sum nullif split_part"
)
# Words of an expression, which no one takes for the name of a column.
_USUAL_WORDS = _words(
    "and as between case cast coalesce collate date distinct else end false from glob ilike in interval is isnull "
    "like not notnull null or select similar then time timestamp true try_cast when"
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


def parsed(expression: str) -> Condition:
    """Parse and check the text of a filter.

    Raises:
        ConfigurationError: It is not one deterministic scalar expression.
    """
    if len(expression) > MOST_CHARACTERS:
        raise wrong(f"it has {len(expression)} characters; at most {MOST_CHARACTERS} are allowed")
    if not expression.strip():
        raise wrong("it is empty; remove it to deliver every record")
    try:
        tree = _only_expression(expression)
        nodes = list(nodes_of(tree))
        for node in nodes:
            _check_node(node)
            _check_swelling(node)
    except RecursionError:
        raise wrong("it is nested too deeply") from None
    columns = dict.fromkeys(node["column_names"][0] for node in nodes if node["class"] == "COLUMN_REF")
    return Condition(expression, json.dumps(tree), tuple(columns))


def _only_expression(expression: str) -> dict[str, Any]:
    # The line break ends a comment, so that the parenthesis closes.
    found = serialized(f"SELECT (\n{expression}\n)")
    if found["error"]:
        raise wrong(f"{found['error_message']}{_position(found)}{_word_of_sql(expression)}")
    statements = found["statements"]
    node: dict[str, Any] = statements[0]["node"] if len(statements) == 1 else {"type": "several"}
    alone = node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    if not alone or not _is_bare(node) or node["select_list"][0]["alias"]:
        raise wrong("it must be one expression over the columns, such as `amount > 100 and country = 'DE'`")
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


def _position(found: dict[str, Any]) -> str:
    position = found.get("position")
    return f" (character {max(1, int(position) - len('SELECT ('))})" if position else ""


def _word_of_sql(expression: str) -> str:
    """A hint, if a column may have the name of one of SQL's own words, such as ``at``."""
    rows = engine().sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'").fetchall()
    words = {word for (word,) in rows} - _USUAL_WORDS
    used = [word for word in re.findall(r"[a-z_]+", expression.casefold()) if word in words]
    return f'; {used[0]} is an SQL keyword: if it is a column, write "{used[0]}" in double quotes' if used else ""


def serialized(statement: str) -> dict[str, Any]:
    """A statement as the engine's parse tree; parsed, neither bound nor executed."""
    [[text]] = engine().sql("SELECT json_serialize_sql(?::VARCHAR)", params=[statement]).fetchall()
    tree: dict[str, Any] = json.loads(text)
    return tree


def nodes_of(tree: Any) -> Iterator[dict[str, Any]]:
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
        raise wrong(f"{what} are not supported; it must be one scalar expression over the columns of a record")
    if kind == "OPERATOR" and node["type"] in _REFUSED_OPERATORS:
        raise wrong(f"{node['type'].removeprefix('OPERATOR_').lower()} is not supported in a filter")
    if kind == "FUNCTION":
        if node.get("schema") or node.get("catalog"):
            raise wrong(f"write {node['function_name']}(...) without a dot before it")
        if node.get("filter") or node.get("distinct") or (node.get("order_bys") or {}).get("orders"):
            raise wrong(f"{node['function_name']} with FILTER, DISTINCT or ORDER BY is not supported")
        _check_function(node["function_name"])


def _check_swelling(node: dict[str, Any]) -> None:
    """A kilobyte of nested replacements would fill the memory, which the engine's own limit does not see."""
    if not _swells(node):
        return
    inner = [child for child in nodes_of(list(node.values())) if _swells(child)]
    if inner:
        outer, first = node["function_name"], inner[0]["function_name"]
        raise wrong(f"{first} inside {outer} is not allowed: the result could grow to gigabytes")


def _swells(node: dict[str, Any]) -> bool:
    name = node["function_name"] if node["class"] == "FUNCTION" else None
    if name != "replace":
        return name in _SWELLING
    texts = [one["expression"].get("literal") or {} for one in node["arguments"][1:3]]
    lengths = [len(one["text"]) for one in texts if one.get("kind") == "STRING"]
    return len(lengths) < 2 or lengths[1] > lengths[0]


@lru_cache(maxsize=1)
def _functions() -> dict[str, dict[str, bool]]:
    """Of every function that the engine has: its kinds, and whether each gives the same on each call."""
    rows = engine().sql(
        "SELECT function_name, function_type, stability, parameter_types, return_type FROM duckdb_functions()"
    )
    known: dict[str, dict[str, list[str]]] = {}
    for name, kind, stability, parameters, result in rows.fetchall():
        verdict = _steadiness(stability, parameters, result)
        known.setdefault(name, {}).setdefault(kind, []).append(verdict)
    return {
        name: {kind: "changing" not in found and "steady" in found for kind, found in kinds.items()}
        for name, kinds in known.items()
    }


def _steadiness(stability: str | None, parameters: list[str | None], result: str | None) -> str:
    """What one overload gives on each call, in an engine whose time zone is UTC and cannot be set.

    DuckDB says "consistent within query" of two things: of what looks at a clock or a setting, and,
    since 2.0.1, of the overloads that take the time zone from the session, such as ``+`` of an
    instant and an interval. The latter stand beside overloads that need no zone; clocks do not.
    """
    if stability in {None, "CONSISTENT"}:
        return "steady"
    zoned = any(kind and _ZONED.search(kind) for kind in (*parameters, result))
    return "zoned" if stability == "CONSISTENT_WITHIN_QUERY" and parameters and zoned else "changing"


def _check_function(name: str) -> None:
    known = _functions()
    if name not in known:
        near = suggest(name, [other for other in known if other.isidentifier()])
        hint = f"; did you mean {near}?" if near else ""
        raise wrong(f"there is no function {name}{hint}")
    if name in _MACROS:
        return
    kinds = known[name]
    if not kinds.keys() & {"scalar", "macro"}:
        raise wrong(f"{name} is not a function of a single record; a filter sees one record at a time")
    if name in _CLOCKS or not all(kinds.values()):
        raise wrong(f"{name} does not return the same value on each call; compare with a literal or a column")
    if name in _REFUSED_FUNCTIONS or "macro" in kinds or name.startswith("__"):
        raise wrong(f"{name} is not allowed in a filter")


_thread = threading.local()


def engine() -> duckdb.DuckDBPyConnection:
    """This thread's engine, made when it is first asked for and freed with the thread.

    Raises:
        ConfigurationError: DuckDB is not installed.
    """
    if not hasattr(_thread, "engine"):
        _thread.engine = _connect()
    own: duckdb.DuckDBPyConnection = _thread.engine
    return own


def _connect() -> duckdb.DuckDBPyConnection:
    """A new engine in memory: one thread, UTC, a locked configuration. Takes about 40 ms."""
    made: duckdb.DuckDBPyConnection = _duckdb().connect(
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
        made.execute(setting)
        made.complete()
    return made


def _duckdb() -> Any:
    try:
        # Heavy, and only pipelines with a filter need it.
        import duckdb
    except ImportError:
        raise wrong('a filter needs DuckDB; install it with `pip install "muxly-core[where]"`') from None
    return duckdb


def engine_error() -> type[Exception]:
    """What the engine raises."""
    kind: type[Exception] = _duckdb().Error
    return kind


def engine_trouble() -> type[Exception]:
    """What of that is no fault of the expression or a value: memory, a thread, a file."""
    kind: type[Exception] = _duckdb().OperationalError
    return kind


def wrong(what: str) -> ConfigurationError:
    """A mistake in ``where``."""
    return ConfigurationError(f"where: {what}", path=("where",))


_RECORDS = "records"
_VALUE_FUNCTIONS = frozenset(
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
        known = name.casefold() not in _VALUE_FUNCTIONS if schema is None else _column_number(name, schema) is not None
        if not known:
            raise wrong(_unknown_column(name, schema))


def _unknown_column(name: str, schema: pa.Schema | None) -> str:
    if name.casefold() in _VALUE_FUNCTIONS:
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
        self._places = {name: _column_number(name, schema) for name in self.condition.columns}
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


def _column_number(name: str, schema: pa.Schema) -> int | None:
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
