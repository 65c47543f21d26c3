"""Records as bytes: CSV, JSON Lines, Parquet and Arrow IPC, written column by column.

A router makes an ``Encoding`` from its options and asks it for an ``Encoder``; where the bytes
go (a file, an upload) is the router's own affair.
"""

from __future__ import annotations

from muxly_routers._formats.encoding import Encoder, Encoding, Format, Sink
from muxly_routers._formats.options import Compression, Csv, Parquet, resolve

__all__ = ["Compression", "Csv", "Encoder", "Encoding", "Format", "Parquet", "Sink", "resolve"]
