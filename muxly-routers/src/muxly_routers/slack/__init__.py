"""The router ``slack``: messages in a channel, for each record, for each delivery, or for what happens in runs."""

from muxly_routers.slack.router import Digest, QuietHours, RunEvents, Slack, muxly_router

__all__ = ["Digest", "QuietHours", "RunEvents", "Slack", "muxly_router"]
