"""What a route with a strategy does: looks for a stored answer, else chooses the rungs, and says why.

A helper that fails (classifier, embedder) leaves the route's fixed ladder, `otherwise`, with one note; never an error.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from nbllm.core.asking_helpers import classify_messages, label_in
from nbllm.core.billing import estimate_input_tokens
from nbllm.core.messages import Chat, Request, Rung
from nbllm.core.routing_candidates import expanded
from nbllm.core.routing_facts import Facts, facts_of
from nbllm.core.routing_numbers import cheapest, fastest, spilled
from nbllm.core.routing_rules import Choice, by_task, canary, one_by_one, weighted
from nbllm.core.why import Why
from nbllm.errors import BadAnswer, ConfigurationError, InvalidRequest, NbllmError
from nbllm.pipeline.breaker import Breakers
from nbllm.pipeline.embedding import Embedding
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.observed import Observed
from nbllm.pipeline.route_plans import CutOff, Labels, Plan, Plans
from nbllm.pipeline.stage import Clock, call_of, known_rungs
from nbllm.pipeline.throttle import Throttles
from nbllm.settings import Settings
from nbllm.settings.strategies import (
    ByTask,
    Canary,
    Cascade,
    Cheapest,
    Classifier,
    Fastest,
    Learned,
    Names,
    RouteSpec,
    SpillOver,
    Weighted,
)

_PLAN_S = 5.0
"""How long a disk may take for a plan; then the fixed ladder answers."""
_READS = (Classifier, Learned, Cascade)
"""Strategies that are about what a chat says."""


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """The models to try in order, why, and the cascade that judges their answers, if one does."""

    models: Names
    reason: str
    cascade: Cascade | None = None
    threshold: float | None = None
    error_upper: float | None = None
    plan_id: str | None = None
    spill_s: float | None = None


class Chooser:
    """Asks strategies. Stateless but for what it stands on."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        rung_of: Callable[[str], Rung],
        helpers: Helpers,
        embedding: Embedding,
        breakers: Breakers,
        throttles: Throttles,
        observed: Observed,
        plans: Plans,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._rung_of = rung_of
        self._helpers = helpers
        self._embedding = embedding
        self._breakers = breakers
        self._throttles = throttles
        self._observed = observed
        self._plans = plans
        self._clock = clock

    async def __call__(self, request: Request, name: str) -> Request:
        """Return the request with the rungs that the route chose; the reason, and a cascade, are on its call."""
        call = call_of(request)
        made = await self._decide(name, request, facts_of(request.content, request.options))
        call.why = Why(
            route=name,
            reason=f"route {name}: {made.reason}",
            threshold=made.threshold,
            error_upper=made.error_upper,
            plan_id=made.plan_id,
        )
        call.cascade, call.strategy, call.spill_s = made.cascade, None, made.spill_s
        if made.cascade is not None:  # without its last model, a cascade would accept what it is there to judge
            return request.routed(tuple(map(self._rung_of, made.models)))
        return request.routed(tuple(known_rungs(made.models, self._rung_of, call)))

    async def _decide(self, name: str, request: Request, facts: Facts) -> Decision:
        routes = self._settings().routes
        spec = routes.get(name, (name,))  # removed a moment ago: then nobody answers to it, and it is said so
        if isinstance(spec, tuple):
            return Decision(models=spec, reason="its list")
        if isinstance(spec, _READS) and not isinstance(request.content, Chat):
            raise InvalidRequest(
                f"The route {name} ({spec.strategy}) goes by what a chat says, and these are texts to embed. Nothing was sent.",
                hint="Name an embedding model.",
            )
        if isinstance(spec, Cascade):
            return await self._cascade(spec, name, request, routes)
        if isinstance(spec, SpillOver):
            return await self._spilled(spec, request, routes)
        names, reason = await self._choice(spec, name, request, facts, routes)
        if names[0] not in routes or isinstance(routes[names[0]], tuple):
            return Decision(models=expanded(names, routes), reason=reason)
        inner = await self._decide(names[0], request, facts)
        # Behind a cascade's last model, whose answer is always accepted, there is nobody.
        rest = () if inner.cascade is not None else expanded(names[1:], routes)
        return replace(inner, models=one_by_one((*inner.models, *rest)), reason=f"{reason} > {names[0]}: {inner.reason}")

    async def _cascade(self, spec: Cascade, name: str, request: Request, routes: Mapping[str, RouteSpec]) -> Decision:
        models = expanded(spec.models, routes)
        if spec.accept != "logprob":
            return Decision(models=models, reason="cascade", cascade=spec)
        try:
            made = cut_off(spec, None if spec.plan is None else await self._plan(request, spec.plan))
        except ConfigurationError as exc:
            call_of(request).note(f"Route {name} cannot judge ({exc.summary}), so its fixed ladder answered.")
            return Decision(models=models, reason="the fixed ladder, because its plan cannot be read")
        return Decision(
            models=models,
            reason="cascade",
            cascade=dataclasses.replace(spec, min_logprob=made.threshold, plan=None) if spec.plan is not None else spec,
            threshold=made.threshold,
            error_upper=made.error_upper,
            plan_id=made.plan_id,
        )

    async def _choice(self, spec: RouteSpec, name: str, request: Request, facts: Facts, routes: Mapping[str, RouteSpec]) -> Choice:
        if isinstance(spec, ByTask):
            return by_task(spec, facts)
        if isinstance(spec, Weighted):
            return weighted(spec, name, facts)
        if isinstance(spec, Canary):
            return canary(spec, name, facts)
        if isinstance(spec, Classifier | Learned):
            return await self._labelled(spec, name, request, facts)
        assert isinstance(spec, Cheapest | Fastest)  # noqa: S101 - all other strategies are above
        rungs = known_rungs(expanded(spec.models, routes), self._rung_of, call_of(request))
        ordered, reason = await self._by_numbers(spec, rungs, request)
        return tuple(rung.id for rung in ordered), reason

    # ------------------------------------------------------------------ labels

    async def _labelled(self, spec: Classifier | Learned, name: str, request: Request, facts: Facts) -> Choice:
        """Return the models of the label; without one the fixed ladder, and one note."""
        try:
            label, how = await (
                self._classified(spec, request, facts) if isinstance(spec, Classifier) else self._learned(spec, request, facts)
            )
        except NbllmError as exc:
            said = exc.summary.partition("\n")[0]
            call_of(request).note(f"Route {name} could not choose ({said}), so its fixed ladder answered.")
            return spec.otherwise, f"the fixed ladder, because the {_helper(spec)} failed ({type(exc).__name__})"
        return one_by_one((*spec.labels[label], *spec.otherwise)), f"label {label!r} {how}"

    async def _classified(self, spec: Classifier, request: Request, facts: Facts) -> tuple[str, str]:
        labels = tuple(spec.labels)
        messages = classify_messages(facts.text, labels, spec.instructions, spec.most_chars)
        reply = await self._helpers.ask(
            request,
            spec.model,
            messages,
            purpose="classify",
            at_most_s=self._patience_s(request, spec.at_most_s),
            cached=True,
            keep_if=lambda found: label_in(found.text, labels) is not None,
            max_tokens=spec.max_tokens,
        )
        label = label_in(reply.text, labels)
        if label is None:
            raise BadAnswer(f"{spec.model} named none of the labels {', '.join(labels)}.")
        return label, f"by {spec.model}"

    async def _learned(self, spec: Learned, request: Request, facts: Facts) -> tuple[str, str]:
        plan = await self._plan(request, spec.plan, spec.strong_share)
        if not isinstance(plan, Labels):
            raise ConfigurationError(f"The plan {spec.plan} gives no labels.", hint="Use one of fit_labels or calibrate_route.")
        at_most_s = self._patience_s(request, spec.at_most_s)
        vector = await self._embedding.vector(request, spec.embedder, facts.text, at_most_s=at_most_s)
        label, how = plan.label(facts.text, vector)
        if label not in spec.labels:
            raise ConfigurationError(f"The plan {spec.plan} says {label!r}, for which the route names no models.")
        return label, how

    async def _plan(self, request: Request, path: str, strong_share: float | None = None) -> Plan:
        try:
            async with asyncio.timeout(self._patience_s(request, _PLAN_S)):
                return await self._plans.get(path, strong_share)
        except TimeoutError:
            raise ConfigurationError(f"The plan {path} could not be read in time.", hint="Put it on a local disk.") from None

    def _patience_s(self, request: Request, at_most_s: float) -> float:
        """Return how long a helper may take: half of what is left to the call is for the answer itself."""
        return min(at_most_s, max(0.0, call_of(request).deadline_at_s - self._clock.now_s()) / 2)

    # ------------------------------------------------------------------ numbers

    async def _spilled(self, spec: SpillOver, request: Request, routes: Mapping[str, RouteSpec]) -> Decision:
        rungs = known_rungs(expanded(spec.models, routes), self._rung_of, call_of(request))
        waits = {rung.id: await self._throttles.room_s(rung, request) for rung in rungs}
        ordered, reason = spilled(rungs, waits, spec.wait_s)
        roomy = waits[ordered[0].id] <= spec.wait_s
        return Decision(models=tuple(rung.id for rung in ordered), reason=reason, spill_s=spec.wait_s if roomy else None)

    async def _by_numbers(self, spec: Cheapest | Fastest, rungs: list[Rung], request: Request) -> tuple[Sequence[Rung], str]:
        healthy = {rung.id: await self._breakers.standing(rung) in ("closed", "half open") for rung in rungs}
        numbers = await self._observed.numbers()
        if isinstance(spec, Cheapest):
            return cheapest(rungs, healthy, numbers, estimate_input_tokens(request.content))
        return fastest(rungs, healthy, numbers, spec.min_calls)


def cut_off(spec: Cascade, plan: Plan | None) -> CutOff:
    """Return the cut-off of a cascade by log probability: its own, or that of its plan. Raises ConfigurationError."""
    if spec.min_logprob is not None:
        return CutOff(spec.min_logprob, None, None)
    if not isinstance(plan, CutOff):
        raise ConfigurationError(
            f"The plan {spec.plan} holds no threshold.", hint="Calibrate one with calibrate_threshold(mean_logprob, correct)."
        )
    return plan


def _helper(spec: Classifier | Learned) -> str:
    return "classifier" if isinstance(spec, Classifier) else "embedder or plan"
