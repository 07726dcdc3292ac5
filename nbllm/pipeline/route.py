"""route: picks the rungs for this request; says why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nbllm.core.messages import Request, Rung, Sink
from nbllm.core.reply import Reply
from nbllm.core.routing import Route
from nbllm.pipeline.stage import Stage, call_of

RungOf = Callable[[str], Rung]
Plan = Callable[[tuple[str, ...]], Route | None]
Discover = Callable[[], Awaitable[tuple[Route, bool]]]
"""Looks for a model when nothing is configured; returns it, and whether this call was the one that found it."""


class Router:
    """What the route stage and the fast door for hits have in common."""

    def __init__(self, plan: Plan, rung_of: RungOf, discover: Discover) -> None:
        self._plan = plan
        self.rung = rung_of
        self._discover = discover

    def now(self, request: Request) -> Request | None:
        """Return the request with its rungs, or None when a model has to be looked for first."""
        route = self._plan(request.models)
        return None if route is None else self._on(request, route)

    async def later(self, request: Request) -> Request:
        """Look for a model, say which one was found, and return the request with its rungs."""
        route, first = await self._discover()
        if first:
            call_of(request).note(route.why.reason)
        return self._on(request, route)

    def _on(self, request: Request, route: Route) -> Request:
        call_of(request).why = route.why
        return request.routed(tuple(map(self.rung, route.models)))


class RouteStage:
    """Fills in the rungs."""

    def __init__(self, inner: Stage, router: Router) -> None:
        self._inner = inner
        self._router = router

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Choose the rungs, unless the fast door has done so already."""
        if not request.rungs:
            request = self._router.now(request) or await self._router.later(request)
        return await self._inner(request, sink)
