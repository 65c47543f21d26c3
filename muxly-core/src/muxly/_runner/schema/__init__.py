"""Schemas of streams: how they grow, and how records are cast to them."""
