"""Whether the records of a stream have what a template asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

import muxly

if TYPE_CHECKING:
    from muxly_routers._templates.template import Template

__all__ = ["check_fields"]


def check_fields(template: Template, schema: pa.Schema, stream: str) -> None:
    """Look before the first record is sent.

    Raises:
        StreamError: The records lack a field.
    """
    try:
        template.render({one.name: _nothing(one.type) for one in schema})
    except ValueError as error:
        raise muxly.StreamError(f"stream {stream!r}: the template does not fit: {error}") from error


def _nothing(kind: pa.DataType) -> Any:
    """A value with all fields of a type, all of them null."""
    return {one.name: _nothing(one.type) for one in kind} if pa.types.is_struct(kind) else None
