"""Components to test with, and the tests that every plugin has to pass.

::

    from muxly_testing import FakeConnector, CollectingRouter, ConnectorConformance, RouterConformance

``FakeConnector``, ``CollectingRouter`` and ``ChaosRouter`` also work from configuration, as
``type: "muxly_testing:FakeConnector"``. Nothing here is imported before it is used, so that
the pytest plugin does not slow down the start of pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly_testing.calls import Call
    from muxly_testing.chaos_router import ChaosRouter
    from muxly_testing.collecting_router import CollectingRouter
    from muxly_testing.connector_conformance import ConnectorConformance
    from muxly_testing.deliveries import delivery
    from muxly_testing.fake_connector import FakeConnector
    from muxly_testing.faults import Fault
    from muxly_testing.router_conformance import RouterConformance

_HOME = {
    "Call": "calls",
    "ChaosRouter": "chaos_router",
    "CollectingRouter": "collecting_router",
    "ConnectorConformance": "connector_conformance",
    "FakeConnector": "fake_connector",
    "Fault": "faults",
    "RouterConformance": "router_conformance",
    "delivery": "deliveries",
}

__all__ = [
    "Call",
    "ChaosRouter",
    "CollectingRouter",
    "ConnectorConformance",
    "FakeConnector",
    "Fault",
    "RouterConformance",
    "delivery",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module 'muxly_testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"muxly_testing.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
