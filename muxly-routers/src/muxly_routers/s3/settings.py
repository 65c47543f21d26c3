"""What the options of the router come to, in values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

    import muxly
    from muxly_routers._files.layout import PartitionKey
    from muxly_routers._formats import Encoding

__all__ = ["Access", "Checksum", "Role", "Settings"]

Checksum = Literal["crc32", "sha256"]


@frozen(kw_only=True)
class Role:
    """A role to assume."""

    arn: str
    external_id: muxly.Secret | None
    session_name: str


@frozen(kw_only=True)
class Access:
    """How the store is reached; equal ways share one client.

    Args:
        guarded: Whether somebody else than the operator says so.
    """

    region: str | None
    endpoint_url: str | None
    addressing_style: str
    ca_bundle: Path | None
    timeout_seconds: float
    profile: str | None
    access_key_id: str | None
    secret_access_key: muxly.Secret | None
    session_token: muxly.Secret | None
    role: Role | None
    anonymous: bool
    guarded: bool


@frozen(kw_only=True)
class Settings:
    """How and where the objects of a route are written; equal options give equal settings."""

    bucket: str
    prefix: str
    folder: str
    file_name: str
    encoding: Encoding
    keys: tuple[PartitionKey, ...]
    keep_columns: bool
    most_folders: int
    single_put_bytes: int
    part_bytes: int
    uploads: int
    checksum: Checksum
    object_options: tuple[tuple[str, str | bool], ...]
    """Sent with each new object as they are: encryption, storage class."""
