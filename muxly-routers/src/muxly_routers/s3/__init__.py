"""The router ``s3``: CSV, JSON Lines, Parquet and Arrow objects in a bucket of S3, or of a store that speaks it."""

from muxly_routers.s3.router import S3, AssumeRole, Csv, Parquet, muxly_router

__all__ = ["AssumeRole", "Csv", "Parquet", "S3", "muxly_router"]
