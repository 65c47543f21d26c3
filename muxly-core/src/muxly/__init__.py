"""Muxly: read records once, deliver them to many places, lose nothing.

``import muxly`` is light: every name below is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly._runner.extract.preview import Reading, read
    from muxly._runner.run import run
    from muxly.batch import Batch, Cursor, Rejected
    from muxly.component import Component, Notice, Run
    from muxly.connector import Connector, Partition, Plan
    from muxly.errors import (
        ConfigurationError,
        ConflictError,
        CorruptSegmentError,
        DeliveryError,
        FencedError,
        LeaseHeldError,
        MuxlyError,
        PluginError,
        QuotaError,
        ReadError,
        RejectedError,
        RetryableError,
        RouteError,
        SpoolError,
        StaleCursorError,
        StoppedError,
        StoreError,
        StreamError,
        StreamUnavailableError,
    )
    from muxly.hookspecs import hookimpl
    from muxly.options import Options, Secret, option
    from muxly.pipeline import (
        BatchLimits,
        Columns,
        Pipeline,
        Route,
        RouteResult,
        RunFailedError,
        RunResult,
        StreamResult,
        StreamRules,
    )
    from muxly.retry import Backoff, Patience, RateBucket
    from muxly.router import Delivery, Mode, Promise, Receipt, Router, sequence_number
    from muxly.scheduler import Scheduler, Submit
    from muxly.stream import Stream

    __version__: str

_MODULES = {
    "_runner.extract.preview": ("Reading", "read"),
    "_runner.run": ("run",),
    "batch": ("Batch", "Cursor", "Rejected"),
    "component": ("Component", "Notice", "Run"),
    "connector": ("Connector", "Partition", "Plan"),
    "errors": (
        "ConfigurationError",
        "ConflictError",
        "CorruptSegmentError",
        "DeliveryError",
        "FencedError",
        "LeaseHeldError",
        "MuxlyError",
        "PluginError",
        "QuotaError",
        "ReadError",
        "RejectedError",
        "RetryableError",
        "RouteError",
        "SpoolError",
        "StaleCursorError",
        "StoppedError",
        "StoreError",
        "StreamError",
        "StreamUnavailableError",
    ),
    "hookspecs": ("hookimpl",),
    "options": ("Options", "Secret", "option"),
    "pipeline": (
        "BatchLimits",
        "Columns",
        "Pipeline",
        "Route",
        "RouteResult",
        "RunFailedError",
        "RunResult",
        "StreamResult",
        "StreamRules",
    ),
    "retry": ("Backoff", "Patience", "RateBucket"),
    "router": ("Delivery", "Mode", "Promise", "Receipt", "Router", "sequence_number"),
    "scheduler": ("Scheduler", "Submit"),
    "stream": ("Stream",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Backoff",
    "Batch",
    "BatchLimits",
    "Columns",
    "Component",
    "ConfigurationError",
    "ConflictError",
    "Connector",
    "CorruptSegmentError",
    "Cursor",
    "Delivery",
    "DeliveryError",
    "FencedError",
    "LeaseHeldError",
    "Mode",
    "MuxlyError",
    "Notice",
    "Options",
    "Partition",
    "Patience",
    "Pipeline",
    "Plan",
    "PluginError",
    "Promise",
    "QuotaError",
    "RateBucket",
    "ReadError",
    "Reading",
    "Receipt",
    "Rejected",
    "RejectedError",
    "RetryableError",
    "Route",
    "RouteError",
    "RouteResult",
    "Router",
    "Run",
    "RunFailedError",
    "RunResult",
    "Scheduler",
    "Secret",
    "SpoolError",
    "StaleCursorError",
    "StoppedError",
    "StoreError",
    "Stream",
    "StreamError",
    "StreamResult",
    "StreamRules",
    "StreamUnavailableError",
    "Submit",
    "__version__",
    "hookimpl",
    "option",
    "read",
    "run",
    "sequence_number",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("muxly-core")
    if name not in _HOME:
        raise AttributeError(f"module 'muxly' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"muxly.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
