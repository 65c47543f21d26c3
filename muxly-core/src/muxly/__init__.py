"""Muxly: read records once, deliver them to many places, lose nothing.

``import muxly`` is light: every name below is imported when it is first used. They are the names that users and
authors of plugins write; all others that are public stand in their modules, such as ``muxly.errors.FencedError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly import errors as errors
    from muxly import pipeline as pipeline
    from muxly import router as router
    from muxly import scheduler as scheduler
    from muxly._runner.extract.preview import Reading as Reading
    from muxly._runner.extract.preview import read as read
    from muxly._runner.run import run as run
    from muxly.batch import Batch as Batch
    from muxly.batch import Cursor as Cursor
    from muxly.batch import Rejected as Rejected
    from muxly.component import Component as Component
    from muxly.component import Notice as Notice
    from muxly.component import Run as Run
    from muxly.connector import Connector as Connector
    from muxly.connector import Partition as Partition
    from muxly.connector import Plan as Plan
    from muxly.errors import ConfigurationError as ConfigurationError
    from muxly.errors import ConflictError as ConflictError
    from muxly.errors import DeliveryError as DeliveryError
    from muxly.errors import LeaseHeldError as LeaseHeldError
    from muxly.errors import MuxlyError as MuxlyError
    from muxly.errors import PluginError as PluginError
    from muxly.errors import QuotaError as QuotaError
    from muxly.errors import ReadError as ReadError
    from muxly.errors import RejectedError as RejectedError
    from muxly.errors import RetryableError as RetryableError
    from muxly.errors import RouteError as RouteError
    from muxly.errors import StaleCursorError as StaleCursorError
    from muxly.errors import StoppedError as StoppedError
    from muxly.errors import StreamError as StreamError
    from muxly.errors import StreamUnavailableError as StreamUnavailableError
    from muxly.hookspecs import hookimpl as hookimpl
    from muxly.options import Options as Options
    from muxly.options import Secret as Secret
    from muxly.options import option as option
    from muxly.pipeline import BatchLimits as BatchLimits
    from muxly.pipeline import Columns as Columns
    from muxly.pipeline import Pipeline as Pipeline
    from muxly.pipeline import Route as Route
    from muxly.pipeline import RunFailedError as RunFailedError
    from muxly.pipeline import RunResult as RunResult
    from muxly.pipeline import StreamRules as StreamRules
    from muxly.retry import Backoff as Backoff
    from muxly.retry import RateBucket as RateBucket
    from muxly.retry import Retry as Retry
    from muxly.router import Delivery as Delivery
    from muxly.router import Mode as Mode
    from muxly.router import Promise as Promise
    from muxly.router import Receipt as Receipt
    from muxly.router import Router as Router
    from muxly.stream import Stream as Stream

    __version__: str

# What stands above for type checkers, for `__getattr__`; a test holds the two together.
_MODULES: dict[str, tuple[str, ...]] = {
    "muxly._runner.extract.preview": ("Reading", "read"),
    "muxly._runner.run": ("run",),
    "muxly.batch": ("Batch", "Cursor", "Rejected"),
    "muxly.component": ("Component", "Notice", "Run"),
    "muxly.connector": ("Connector", "Partition", "Plan"),
    "muxly.errors": (
        "ConfigurationError",
        "ConflictError",
        "DeliveryError",
        "LeaseHeldError",
        "MuxlyError",
        "PluginError",
        "QuotaError",
        "ReadError",
        "RejectedError",
        "RetryableError",
        "RouteError",
        "StaleCursorError",
        "StoppedError",
        "StreamError",
        "StreamUnavailableError",
    ),
    "muxly.hookspecs": ("hookimpl",),
    "muxly.options": ("Options", "Secret", "option"),
    "muxly.pipeline": ("BatchLimits", "Columns", "Pipeline", "Route", "RunFailedError", "RunResult", "StreamRules"),
    "muxly.retry": ("Backoff", "RateBucket", "Retry"),
    "muxly.router": ("Delivery", "Mode", "Promise", "Receipt", "Router"),
    "muxly.stream": ("Stream",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_NAMES = sorted([*_MODULE_OF, "__version__"])

_SUBMODULES = frozenset({"errors", "pipeline", "router", "scheduler"})

if not TYPE_CHECKING:  # a type checker goes by the imports above: it cannot evaluate this list
    __all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("muxly-core")
    if name in _SUBMODULES:
        return importlib.import_module(f"muxly.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'muxly' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return _NAMES
