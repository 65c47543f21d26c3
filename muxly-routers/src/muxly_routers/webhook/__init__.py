"""The router ``webhook``: records as signed HTTP requests."""

from muxly_routers.webhook.router import Basic, Hmac, Webhook, muxly_router

__all__ = ["Basic", "Hmac", "Webhook", "muxly_router"]
