"""The router's options, ready to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import URL

__all__ = ["Settings"]


@frozen(kw_only=True)
class Settings:
    """See ``muxly_routers.sql.Sql`` for what they mean."""

    url: URL
    fast: bool
    schema: str | None
    table: str
    hard: bool
    indexes: Mapping[str, Sequence[Sequence[str]]]
    primary_keys: bool
    remember_seconds: float
    connect_seconds: int
    lock_seconds: int
