"""The router ``file``: CSV, JSON Lines, Parquet and Arrow files in a folder."""

from muxly_routers.file.router import Csv, File, Parquet, muxly_router

__all__ = ["Csv", "File", "Parquet", "muxly_router"]
