"""The router ``sql``: tables of a SQL database."""

from muxly_routers.sql.router import Sql, muxly_router

__all__ = ["Sql", "muxly_router"]
