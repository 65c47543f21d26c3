"""DuckDB, through Arrow."""
