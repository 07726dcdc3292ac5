"""A cascade on the ladder: answers of all models but the last are held back until they are accepted; the last one streams.

A rejected answer stays what it is, an answer of that model to that request: it is kept in the cache under that model's key, where
a call that names the model finds it, and the cascade judges it again instead of buying it again. What a verifier said is kept too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from nbllm.core.asking_helpers import criterion, verdict_in, verify_messages
from nbllm.core.cascade import Verdict, by_logprob
from nbllm.core.ladder import FALLBACK_RESERVE_S, Next, Step, next_step
from nbllm.core.messages import Attempt, Delta, Request, Rung, Sink
from nbllm.core.reply import Reply
from nbllm.core.routing_candidates import asked_by
from nbllm.core.routing_facts import facts_of
from nbllm.core.why import Why
from nbllm.errors import BadAnswer, BadParameter, BudgetExceeded, DeadlineExceeded, NbllmError, ValidationFailed
from nbllm.pipeline.cache import Cache
from nbllm.pipeline.deadline import tried_and_spent
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.stage import Clock, Stage, call_of, rung_of, show
from nbllm.pipeline.structure import ask_check
from nbllm.pipeline.workers import Workers
from nbllm.settings.strategies import Cascade

Failure = tuple[Rung, Exception]
_OWN = ("model", "cache")
"""Sources of answers to the question itself; what is said of another question's is not said of the one that is stored."""


class Judge:
    """Says whether a cascade accepts an answer."""

    def __init__(self, helpers: Helpers, cache: Cache, workers: Workers, clock: Clock) -> None:
        self._helpers = helpers
        self._cache = cache
        self._workers = workers
        self._clock = clock
        self._warned: set[str] = set()

    async def __call__(self, reply: Reply, request: Request, spec: Cascade) -> Verdict:
        """Judge an answer that has passed the call's own schema and check."""
        if spec.accept == "logprob":
            verdict = by_logprob(reply.logprobs, spec.min_logprob or 0.0)
            if verdict.score is None:
                self.warn(rung_of(request), request)
            return verdict
        if spec.accept == "verifier":
            return await self._verified(reply, request, spec)
        if spec.check is not None:
            try:
                check, answer = spec.check, reply.data if reply.data is not None else reply.text
                await self._workers.run(lambda: ask_check(check, answer, reply))
            except ValidationFailed:
                return Verdict(accepted=False, words="it did not pass the route's check")
        return Verdict(accepted=True, words="it is valid")

    def warn(self, rung: Rung, request: Request) -> None:
        """Say, once for each model, that it gives no log probabilities."""
        if rung.id not in self._warned:
            self._warned.add(rung.id)
            call_of(request).note(
                f"{rung.id} gave no log probabilities, so this cascade cannot accept its answers; "
                'use accept = "verifier" or "valid", or another model.'
            )

    async def _verified(self, reply: Reply, request: Request, spec: Cascade) -> Verdict:
        verifier, name = spec.verifier or "", criterion(spec.verifier or "", spec.instructions)
        said = (reply.verdicts or {}).get(name)
        if said is None:
            question = facts_of(request.content, request.options).text
            left_s = max(0.0, call_of(request).deadline_at_s - self._clock.now_s())
            try:
                verdict = await self._helpers.ask(
                    request,
                    verifier,
                    verify_messages(question, reply.text or str(reply.message.get("tool_calls") or ""), spec.instructions),
                    purpose="verify",
                    at_most_s=min(spec.at_most_s, left_s / 2),
                    cached=True,
                    keep_if=lambda found: verdict_in(found.text) is not None,
                    max_tokens=spec.max_tokens,
                )
                said = verdict_in(verdict.text)
                if said is None:
                    raise BadAnswer(f"{verifier} said neither yes nor no.")
            except NbllmError as exc:
                words = exc.summary.partition("\n")[0]
                call_of(request).note(f"An answer of {reply.rung} could not be verified ({words}).")
                return Verdict(accepted=False, words=f"{verifier} failed ({type(exc).__name__})", sure=False)
            if reply.source in _OWN:
                await self._cache.keep_verdict(request, name, said)
        return Verdict(accepted=said, words=f"{verifier} said {'yes' if said else 'no'}", score=float(said))


class Held:
    """A sink that holds every piece back, reasoning too, and remembers when the first one came."""

    def __init__(self, sink: Sink, clock: Clock, *, live: bool = False) -> None:
        self._sink = sink
        self._clock = clock
        self._live = live
        self.first_s: float | None = None
        self.seen = False
        """Whether a watcher has seen a piece."""

    def started(self, attempt: Attempt) -> None:
        """Pass it on."""
        self._sink.started(attempt)

    def delta(self, delta: Delta) -> None:
        """Hold it back; the last model's goes to the watcher at once."""
        if self.first_s is None:
            self.first_s = self._clock.now_s()
        if self._live:
            self.seen = True
            self._sink.delta(delta)

    def restarted(self, reason: str) -> None:
        """Pass it on where something was seen."""
        if self._live:
            self._sink.restarted(reason)


class CascadeWalk:
    """One call's way through a cascade."""

    def __init__(self, inner: Stage, judge: Judge, clock: Clock, request: Request, spec: Cascade, sink: Sink) -> None:
        self._inner = inner
        self._judge = judge
        self._clock = clock
        self._request = request
        self._spec = spec
        self._sink = sink
        self._best: tuple[float, Reply, str | None] | None = None
        self._rejections: list[str] = []
        self._first_s: float | None = None
        self._seen = False
        self.failures: list[Failure] = []

    async def __call__(self) -> Reply | Exception:
        """Return an accepted answer, else the best one, marked, or the error of a cascade without any answer."""
        call = call_of(self._request)
        reserve_s = min(FALLBACK_RESERVE_S, max(0.0, call.deadline_at_s - self._clock.now_s()) / 10)
        try:
            async with asyncio.timeout_at(call.deadline_at_s - reserve_s) as scope:
                outcome = await self._walk()
        except TimeoutError as exc:
            if not scope.expired():
                raise
            outcome = late(self._request)
            outcome.__cause__ = exc
        except NbllmError as exc:
            if not self._falls_back:
                raise
            outcome = exc
            call.refused = (exc.scope, exc.limit_usd) if isinstance(exc, BudgetExceeded) else None
        return self._fallen_back(outcome) if isinstance(outcome, Exception) and self._falls_back else outcome

    @property
    def _falls_back(self) -> bool:
        return self._best is not None and self._spec.if_none == "best"

    async def _walk(self) -> Reply | Exception:
        """Walk the rungs; return the last model's answer or an accepted one, else the last error."""
        left: Sequence[Rung] = self._request.rungs
        last_error: Exception = ValueError("a cascade has models")
        while left:
            rung, *rest = left
            try:
                if not rest:
                    return await self._last(rung)
                reply = await self._early(rung, len(left))
                if reply is not None:
                    return reply
                left = rest
            except Exception as exc:
                live = self._request.options.on_interrupt if not rest else "restart"
                step = next_step(exc, rung, rest, on_interrupt=live)
                if rest and self._refuses_logprobs(exc):
                    self._judge.warn(rung, self._request)
                    step = Step(Next.RUNG, tuple(rest))
                if step.next is Next.RAISE:
                    raise
                if isinstance(exc, ValidationFailed) and rest:
                    self._rejections.append(f"{rung.id}: not valid")
                self.failures.append((rung, exc))
                last_error, left = exc, step.rungs
        return last_error

    def _refuses_logprobs(self, exc: Exception) -> bool:
        """Whether a model refuses what only this cascade asks of it: the next one is not asked for it, or may know it."""
        added = asked_by(self._spec, self._request.content) is not self._request.content
        return added and isinstance(exc, BadParameter) and exc.parameter in (None, "logprobs", "top_logprobs")

    async def _early(self, rung: Rung, rungs_left: int) -> Reply | None:
        """Return an answer that was accepted; else remember it."""
        request, spec = self._request, self._spec
        options = replace(request.options, repairs=min(spec.repairs, request.options.repairs), on_interrupt="restart")
        asked = replace(request, content=asked_by(spec, request.content), options=options).on(rung, rungs_left=rungs_left)
        held = Held(self._sink, self._clock)
        try:
            reply = await self._inner(asked, held)
        finally:
            self._first_s = self._first_s if self._first_s is not None else held.first_s
        verdict = await self._judge(reply, asked, spec)
        if verdict.accepted:
            return self._shown(reply, f"{rung.id} accepted: {verdict.words}")
        if not verdict.sure and spec.if_none == "best":
            return self._shown(replace(reply, accepted=False), f"{rung.id}, not verified: {verdict.words}")
        score = float(len(self._rejections)) if verdict.score is None else verdict.score
        if self._best is None or score >= self._best[0]:
            self._best = (score, reply, call_of(request).key)
        self._rejections.append(f"{rung.id}: {verdict.words}")
        return None

    async def _last(self, rung: Rung) -> Reply:
        """Return the last model's answer, which needs no judge and streams as it comes."""
        live = Held(self._sink, self._clock, live=True)
        try:
            reply = await self._inner(self._request.on(rung, rungs_left=1), live)
        finally:
            self._seen = live.seen
        first_s = self._first_s if self._first_s is not None else live.first_s
        shown_s = live.first_s if live.first_s is not None else self._clock.now_s()
        return self._told(reply, f"{rung.id}, the last model", shown_s - first_s if first_s is not None else None)

    def _shown(self, reply: Reply, why: str) -> Reply:
        """Show an answer that was held back, and say for how long it was."""
        show(reply, self._sink)
        held_s = None if self._first_s is None else self._clock.now_s() - self._first_s
        return self._told(reply, why, held_s)

    def _told(self, reply: Reply, words: str, held_s: float | None) -> Reply:
        chosen = call_of(self._request).why
        before = f" after {'; '.join(self._rejections)}" if self._rejections else ""
        why = Why(reason=f"{chosen.reason}: {words}{before}").over(reply.why)
        return replace(reply, why=why, rejected=len(self._rejections), held_s=held_s)

    def _fallen_back(self, failure: Exception) -> Reply:
        """Return the best answer so far, marked. Who has seen pieces of another one is told to forget them, or it is raised."""
        assert self._best is not None  # noqa: S101 - asked before
        if self._seen and self._request.options.on_interrupt == "raise":
            raise failure
        if self._seen:
            self._sink.restarted("fallback")
        _, reply, key = self._best
        call, said = call_of(self._request), str(failure).partition("\n")[0]
        call.key = key  # its row names the answer that it got
        call.note(f"No answer was accepted; this is the best one so far, of {reply.rung}, because: {said}")
        return self._shown(replace(reply, accepted=False), f"{reply.rung}, the best so far")


def late(request: Request) -> DeadlineExceeded:
    """Return the error for a walk that a fallback behind it ended a moment before the deadline."""
    call = call_of(request)
    tried = tried_and_spent(call)
    return DeadlineExceeded(
        f"No answer within the deadline of {request.options.deadline_s:g} s (tried: {tried}).",
        partial=call.partial or None,
        hint="Raise deadline_s=, or put a faster model on the ladder.",
    )
