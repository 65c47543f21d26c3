"""The store: the database of the ledger, on SQLite or PostgreSQL."""
