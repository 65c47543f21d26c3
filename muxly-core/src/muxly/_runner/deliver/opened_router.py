"""An opened copy of a route's router, opened again after an error."""

from __future__ import annotations

import copy
from collections.abc import Callable

from muxly._runner.context import RunContext
from muxly.component import Notice
from muxly.pipeline import Route
from muxly.router import Router


class OpenedRouter:
    """One opened copy of a route's router; opened again after an error.

    Args:
        context: The run.
        route: The route.
        on_wait: Told when the router waits: for which stream, and for how many seconds.
    """

    def __init__(self, context: RunContext, route: Route, on_wait: Callable[[str, float], None]) -> None:
        self._context, self._route, self._on_wait = context, route, on_wait
        self.stream = ""
        self._router: Router | None = None
        self.begun: set[tuple[str, int]] = set()

    def router(self) -> Router:
        """The router, opened."""
        if self._router is None:
            router = copy.deepcopy(self._route.router)
            try:
                router.open(self._context.run.on_route(self._route.name, self._waits))
            except BaseException:
                _close_quietly(self._context, self._route.name, router)
                raise
            self._router = router
        return self._router

    def _waits(self, seconds: float) -> None:
        self._on_wait(self.stream, seconds)

    def close(self) -> None:
        """Close the router; may be repeated."""
        router, self._router = self._router, None
        self.begun.clear()
        if router is not None:
            _close_quietly(self._context, self._route.name, router)


def _close_quietly(context: RunContext, route: str, router: Router) -> None:
    """Close a router; what is acknowledged stays acknowledged, whatever closing raises."""
    try:
        router.close()
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        context.run.notice(Notice("close_failed", f"closing route {route!r} raised {type(error).__name__}: {error}"))
