"""Counts and times every request, by the template of its route: addresses hold ids: series without end."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsp.base.console_metrics import UNKNOWN, ConsoleMetrics

_WAYS_IN = {"/sign-in": "password", "/enter": "link"}
_API = "/api/"


class Measure:
    """ASGI middleware, outermost: what is refused before it is routed counts, too."""

    def __init__(self, app: ASGIApp, routes: list[Route], metrics: ConsoleMetrics) -> None:
        self.app, self.metrics = app, metrics
        self._templates: dict[Any, str] = {
            route.endpoint: route.path.replace(":int", "").replace(":path", "") for route in routes
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, self.metrics.began()

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            route = self._templates.get(scope.get("endpoint"), UNKNOWN)
            self.metrics.ended(began, scope["method"], route, status)
            if scope["method"] == "POST" and route in _WAYS_IN:
                self.metrics.sign_in(_WAYS_IN[route], status)
            elif status == 401 and route.startswith(_API) and any(k == b"authorization" for k, _ in scope["headers"]):
                self.metrics.sign_in("key", status)
