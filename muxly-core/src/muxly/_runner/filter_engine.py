"""The engine that evaluates filters: DuckDB without files, network, extensions or a changeable setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    import duckdb

__all__ = ["connect", "engine_error", "wrong"]


def connect() -> duckdb.DuckDBPyConnection:
    """A new engine in memory: one thread, UTC, a locked configuration. About 40 ms.

    Raises:
        ConfigurationError: DuckDB is not installed.
    """
    engine: duckdb.DuckDBPyConnection = _duckdb().connect(
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
        raise wrong('a filter needs DuckDB; install it with `pip install "muxly-core[where]"`') from None
    return duckdb


def engine_error() -> type[Exception]:
    """What the engine raises."""
    kind: type[Exception] = _duckdb().Error
    return kind


def wrong(what: str) -> ConfigurationError:
    """A mistake in ``where``."""
    return ConfigurationError(f"where: {what}", path=("where",))
