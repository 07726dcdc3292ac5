"""route: picks the rungs for this request; says why. A route with a strategy first takes a rung that holds an exact answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from msgspec.structs import replace

from nbllm.core.asking_helpers import criterion
from nbllm.core.cascade import by_logprob
from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Chat, Request, Rung, Sink
from nbllm.core.reply import Reply
from nbllm.core.routing import Route
from nbllm.core.routing_candidates import Candidate, asked_by, candidates
from nbllm.core.routing_facts import facts_of
from nbllm.core.why import Why
from nbllm.errors import ConfigurationError, UnknownModel
from nbllm.pipeline.cache import Cache, CacheStage
from nbllm.pipeline.choose import Chooser, cut_off
from nbllm.pipeline.route_plans import CutOff, Plans
from nbllm.pipeline.stage import Stage, call_of, known_rungs, show
from nbllm.settings.strategies import Cascade, RouteSpec

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
        call = call_of(request)
        call.why, call.strategy = route.why, route.strategy
        if route.strategy is not None:
            return request.routed(tuple(known_rungs(route.models, self.rung, call)))
        return request.routed(tuple(map(self.rung, route.models)))


class Keepsakes:
    """Stored answers that a route with a strategy may serve instead of choosing anew."""

    def __init__(self, routes: Callable[[], Mapping[str, RouteSpec]], rung_of: RungOf, cache: Cache, plans: Plans) -> None:
        self._routes = routes
        self._rung_of = rung_of
        self._cache = cache
        self._plans = plans

    def now(self, request: Request, name: str, *, own_thread: bool) -> Reply | None:
        """Return one without waiting, as Cache.read_now does. What was looked for in vain is noted on the call."""
        call, sure = call_of(request), True
        for one, rung, asked in self._places(request, name):
            if one.cascade is not None and not self._known_criterion(one.cascade):
                sure = False
                continue
            key = fingerprint(asked.content, rung)
            reply = self._cache.read_now(asked, rung, key, own_thread=own_thread)
            sure, call.looked_up = sure and call.looked_up, False
            if reply is not None and self._accepted(reply, one.cascade):
                call.key = key
                return self._said(reply, name, one.cascade)
        call.looked_over = sure
        return None

    async def later(self, request: Request, name: str, reader: CacheStage) -> Reply | None:
        """Return one, read as the cache stage reads it: users' code runs in a thread, and a store may have to be waited for."""
        call = call_of(request)
        for one, rung, asked in self._places(request, name):
            if one.cascade is not None and one.cascade.plan is not None:
                with suppress(ConfigurationError):  # said where the route has to choose
                    await self._plans.get(one.cascade.plan)
            call.key = fingerprint(asked.content, rung)
            reply = await reader.lookup(asked.on(rung, rungs_left=1))
            if reply is not None and self._accepted(reply, one.cascade):
                return self._said(reply, name, one.cascade)
        call.key = None
        return None

    def _places(self, request: Request, name: str) -> list[tuple[Candidate, Rung, Request]]:
        places = []
        for one in candidates(name, self._routes(), facts_of(request.content, request.options)):
            with suppress(UnknownModel):  # was said when the route was looked up
                places.append((one, self._rung_of(one.model), _asked(request, one.cascade)))
        return places

    def _known_criterion(self, cascade: Cascade) -> bool:
        """Whether nothing has to be read or run to tell if a cascade accepts a stored answer."""
        return cascade.check is None and (cascade.plan is None or self._plans.known(cascade.plan) is not None)

    def _accepted(self, reply: Reply, cascade: Cascade | None) -> bool:
        """Whether a stored answer would be accepted again, by what is kept with it. A check of users' code is not run for this."""
        if cascade is None:
            return True
        if cascade.accept == "verifier":
            return (reply.verdicts or {}).get(criterion(cascade.verifier or "", cascade.instructions), False)
        if cascade.accept == "valid":
            return cascade.check is None  # schema and check of the call itself were passed
        made = self._cut_off(cascade)
        return made is not None and by_logprob(reply.logprobs, made.threshold).accepted

    def _cut_off(self, cascade: Cascade) -> CutOff | None:
        """Return the cut-off in force, None where a plan cannot be read."""
        try:
            return cut_off(cascade, self._plans.known(cascade.plan) if cascade.plan is not None else None)
        except ConfigurationError:
            return None

    def _said(self, reply: Reply, name: str, cascade: Cascade | None) -> Reply:
        """Return the answer with the reason; of a cascade by log probability with the cut-off that it holds against."""
        made = self._cut_off(cascade) if cascade is not None and cascade.accept == "logprob" else None
        why = Why(
            route=name,
            reason=f"route {name}: {reply.rung} holds the exact answer",
            threshold=made.threshold if made else None,
            error_upper=made.error_upper if made else None,
            plan_id=made.plan_id if made else None,
        )
        return replace(reply, why=why)


def _asked(request: Request, cascade: Cascade | None) -> Request:
    """Return the request as an earlier model of a cascade gets it."""
    if cascade is None or not isinstance(request.content, Chat):
        return request
    content = asked_by(cascade, request.content)
    return request if content is request.content else replace(request, content=content)


class RouteStage:
    """Fills in the rungs."""

    def __init__(self, inner: Stage, router: Router, chooser: Chooser, keepsakes: Keepsakes, reader: CacheStage) -> None:
        self._inner = inner
        self._router = router
        self._chooser = chooser
        self._keepsakes = keepsakes
        self._reader = reader

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Choose the rungs, unless the fast door has done so already."""
        if not request.rungs:
            request = self._router.now(request) or await self._router.later(request)
        call = call_of(request)
        if call.strategy is not None:
            if request.options.cache == "use" and not call.looked_over:
                reply = await self._keepsakes.later(request, call.strategy, self._reader)
                if reply is not None:
                    show(reply, sink)
                    return reply
            request = await self._chooser(request, call.strategy)
        return await self._inner(request, sink)
