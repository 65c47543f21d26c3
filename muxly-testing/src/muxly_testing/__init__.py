"""Conformance tests that every plugin has to pass, and components to test with.

::

    from muxly_testing import FakeConnector, CollectingRouter, ConnectorConformance, RouterConformance

``FakeConnector``, ``CollectingRouter`` and ``ChaosRouter`` also work from configuration, as
``type: "muxly_testing:FakeConnector"``. Each name is imported when it is first used, so that
the pytest plugin does not slow down the start of pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly_testing._connector_conformance import ConnectorConformance as ConnectorConformance
    from muxly_testing._deliveries import delivery as delivery
    from muxly_testing._fake_connector import FakeConnector as FakeConnector
    from muxly_testing._fake_routers import ChaosRouter as ChaosRouter
    from muxly_testing._fake_routers import CollectingRouter as CollectingRouter
    from muxly_testing._faults import Call as Call
    from muxly_testing._faults import Fault as Fault
    from muxly_testing._router_conformance import RouterConformance as RouterConformance

# The same names for the time of execution; a test compares them with the imports above.
_MODULES: dict[str, tuple[str, ...]] = {
    "muxly_testing._connector_conformance": ("ConnectorConformance",),
    "muxly_testing._deliveries": ("delivery",),
    "muxly_testing._fake_connector": ("FakeConnector",),
    "muxly_testing._fake_routers": ("ChaosRouter", "CollectingRouter"),
    "muxly_testing._faults": ("Call", "Fault"),
    "muxly_testing._router_conformance": ("RouterConformance",),
}
_MODULE_OF = dict(sorted((name, module) for module, names in _MODULES.items() for name in names))

if not TYPE_CHECKING:  # a type checker goes by the imports above: it cannot evaluate this list
    __all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _MODULE_OF:
        raise AttributeError(f"module 'muxly_testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(_MODULE_OF)
