"""The router ``prometheus``: numbers in columns become metrics that Prometheus scrapes or receives."""

from muxly_routers.prometheus.router import Basic, Metric, Operations, Prometheus, muxly_router

__all__ = ["Basic", "Metric", "Operations", "Prometheus", "muxly_router"]
