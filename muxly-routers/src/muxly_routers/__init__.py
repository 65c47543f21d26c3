"""Muxly's routers: where the records go, one module for each kind of destination."""
