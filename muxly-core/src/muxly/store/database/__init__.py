"""The database of the store: SQLite or PostgreSQL."""
