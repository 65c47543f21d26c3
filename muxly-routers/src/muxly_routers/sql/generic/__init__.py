"""Any other database, through SQLAlchemy alone."""
