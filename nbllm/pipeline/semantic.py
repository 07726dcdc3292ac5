"""semantic: a calibrated hit on a similar question? Only when switched on; in shadow, only a record of what would have been.

Inside the shared run, around the stages that ask the model and keep its answer. A hit is never kept as an entry: it is the answer
to another question. Whatever goes wrong here is a miss, said once: the model answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from nbllm.core.messages import Request, Sink
from nbllm.core.ports.matches import Match, Matches, MatchKind
from nbllm.core.ports.semantic import VectorIndex, VectorRow
from nbllm.core.reply import Reply
from nbllm.core.semantic import NotAsked, question_of
from nbllm.core.semantic.plan import SemanticPlan
from nbllm.core.why import Why
from nbllm.errors import NbllmError
from nbllm.pipeline.cache import Cache
from nbllm.pipeline.embedding import AlreadyFailed, Embedding
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.plans import Plans
from nbllm.pipeline.stage import Clock, Stage, call_of, patience_s, rung_of, show
from nbllm.pipeline.structure import StructureStage
from nbllm.pipeline.workers import Workers
from nbllm.redaction import redact
from nbllm.settings import Settings
from nbllm.settings.semantic import SemanticSettings

if TYPE_CHECKING:
    from nbllm.pipeline.matching import Asked, Matching, Met

SHADOW_FROM = 0.5
"""Matches below this similarity are not worth a record; no useful threshold lies there."""
_TIDIED_FOR_ONE = 4
_AFTERWARDS_S = 10.0
"""How long an answer waits at most, in shadow, for what would have been served."""
_MOST_OWNERS = 10_000
"""Whose writes are counted at once."""


class Semantic:
    """What the stage stands on; the search itself is loaded when it is first switched on."""

    def __init__(
        self,
        *,
        index: VectorIndex,
        matches: Matches,
        cache: Cache,
        structure: StructureStage,
        helpers: Helpers,
        embedding: Embedding,
        workers: Workers,
        readers: Workers,
        clock: Clock,
    ) -> None:
        self.index = index
        self.matches = matches
        self.clock = clock
        self.embedding = embedding
        self.plans = Plans(matches, index.count, readers, clock)
        self.store = cache.store
        self._cache = cache
        self._structure = structure
        self._helpers = helpers
        self._workers = workers
        self._matching: Matching | None = None
        self._guards: dict[SemanticSettings, str] = {}

    async def guards_name(self, settings: SemanticSettings) -> str:
        """Return the name of the guards in use. Their words, and numpy, are loaded in a thread: it takes tenths of a second."""
        name = self._guards.get(settings)
        if name is None:
            name = self._guards[settings] = await self._workers.run(lambda: self._load(settings))
        return name

    def _load(self, settings: SemanticSettings) -> str:
        import numpy as np  # noqa: F401 - of the vectors; here, because on the loop its import would stall other calls

        return self.matching.guards_name(settings)

    @property
    def matching(self) -> Matching:
        """The search."""
        if self._matching is None:
            from nbllm.pipeline.matching import Matching

            self._matching = Matching(
                index=self.index,
                matches=self.matches,
                cache=self._cache,
                structure=self._structure,
                helpers=self._helpers,
                clock=self.clock,
                workers=self._workers,
            )
        return self._matching


class SemanticStage:
    """Looks for an answer to a similar question, and offers new answers to later ones."""

    def __init__(self, inner: Stage, semantic: Semantic, settings: Callable[[], Settings]) -> None:
        self._inner = inner
        self._semantic = semantic
        self._clock = semantic.clock
        self._settings = settings
        self._writes: dict[str, tuple[int, int]] = {}
        self._tidied = 0

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Serve a match that the plan allows, else ask, record what was met, and let later questions find the answer."""
        settings = self._settings().semantic_cache
        asked = None if settings.mode == "off" else await self._asked(request, settings)
        if asked is None:
            return await self._inner(request, sink)
        matching, looks, met = self._semantic.matching, request.options.cache == "use", None
        kind: MatchKind = "shadow"
        if asked.plan is not None and looks:
            met = await matching.met(request, asked, asked.plan.threshold)
            if met is not None and met.reply is not None:
                if self._clock.jitter() >= settings.audit_share:
                    return self._served(request, sink, asked, met, met.reply, asked.plan)
                kind = "audit"
        reply = await self._inner(request, sink)
        if asked.plan is None and looks:
            met = await self._met_afterwards(request, asked)
        if met is not None:
            self._note(request, asked, met, kind, got=reply.text, probability=settings.audit_share if kind == "audit" else 1.0)
        await self._offer(request, asked)
        return reply

    async def _met_afterwards(self, request: Request, asked: Asked) -> Met | None:
        """Return what would have been served, while there is time: an answer that is there is not lost to a slow judge."""
        call = call_of(request)
        try:
            async with asyncio.timeout(patience_s(call, self._clock, at_most_s=_AFTERWARDS_S)):
                return await self._semantic.matching.met(request, asked, SHADOW_FROM)
        except TimeoutError:
            call.note("What the semantic cache would have served was not recorded: finding out took too long.")
            return None

    async def _asked(self, request: Request, settings: SemanticSettings) -> Asked | None:
        """Return the question with its vector; None when it takes no part, or cannot be embedded in time."""
        call, semantic = call_of(request), self._semantic
        try:
            guards = await semantic.guards_name(settings)
            async with asyncio.timeout(patience_s(call, self._clock, at_most_s=settings.embed_timeout_s)):  # may load it
                embedder = await semantic.embedding.identity(settings.embedder)
            question = question_of(request.content, request.options, rung_of(request), embedder=embedder)
            if isinstance(question, NotAsked) or redact(question.text) != question.text:  # a key must not last, nor reach others
                return None
            patience = patience_s(call, self._clock, at_most_s=settings.embed_timeout_s)
            now = await semantic.plans.in_force(settings, embedder=embedder, guards=guards, at_most_s=patience)
            plan, warning = now.plan, now.why_not
            if plan is not None and not plan.covers(question.scope):
                warning = f"plan {plan.plan_id} was not made for {rung_of(request).id} with this system prompt and these parameters"
                plan = None
            said = semantic.plans.say_once(warning)
            if said:
                call.note(said)
            patience = patience_s(call, self._clock, at_most_s=settings.embed_timeout_s)
            vector = await semantic.embedding.unit(request, settings.embedder, question.text, at_most_s=patience)
        except AlreadyFailed:
            return None
        except (NbllmError, TimeoutError) as exc:
            why = exc.summary if isinstance(exc, NbllmError) else f"no embedding within {settings.embed_timeout_s:g} s"
            call.note(f"No similar question was looked for: {why.rstrip('.')}.")
            return None
        from nbllm.pipeline.matching import Asked

        return Asked(question, vector, settings, embedder, guards, plan)

    def _served(self, request: Request, sink: Sink, asked: Asked, met: Met, stored: Reply, plan: SemanticPlan) -> Reply:
        self._note(request, asked, met, "hit", got=None, probability=None)
        why = Why(
            matched_text=met.neighbour.question,
            similarity=met.neighbour.score,
            guards=met.verdicts,
            threshold=plan.threshold,
            error_upper=plan.error_upper,
            plan_id=plan.plan_id,
        )
        reply = replace(stored, source="semantic", why=why, verdicts=None)  # those were of the other question
        show(reply, sink)
        return reply

    def _note(
        self, request: Request, asked: Asked, met: Met, kind: MatchKind, *, got: str | None, probability: float | None
    ) -> None:
        """Record a match. Losing one is no reason to lose the answer."""
        call = call_of(request)
        match = Match(
            match_id=f"{call.call_id}-{met.neighbour.key[:8]}",
            at=self._clock.epoch_s(),
            call_id=call.call_id,
            kind=kind,
            rung=rung_of(request).id,
            scope=asked.question.scope,
            embedder=asked.embedder,
            guards=asked.guards,
            query=asked.question.text,
            question=met.neighbour.question,
            key=met.neighbour.key,
            score=met.neighbour.score,
            failed=met.failed,
            would="" if met.reply is None else met.reply.text,
            got=got,
            probability=None if met.failed else probability,
            order=self._clock.jitter(),
            plan_id=None if asked.plan is None else asked.plan.plan_id,
            owner=owner_of(request),
            asked=call.key or "",
        )
        try:
            self._semantic.matches.note(match)
        except NbllmError as exc:
            call.note(f"A match was not recorded: {exc.summary}")

    async def _offer(self, request: Request, asked: Asked) -> None:
        """Let later questions find an answer that was kept just now."""
        call = call_of(request)
        if not call.kept or not call.key or not self._may_write(owner_of(request), asked.settings.writes_per_minute):
            return
        row = VectorRow(
            key=call.key,
            partition=asked.question.partition,
            question=asked.question.text,
            vector=asked.vector,
            created_at=self._clock.epoch_s(),
            embedder=asked.embedder,
        )
        try:
            await self._semantic.index.add(row)
            await self._tidy()
        except NbllmError as exc:
            call.note(f"Similar questions will not find this answer: {exc.summary}")

    async def _tidy(self) -> None:
        """Look at a few old questions for each new one, round and round, and drop those whose answers the cache has let go of."""
        index, store = self._semantic.index, self._semantic.store
        rows = await index.keys(after=self._tidied, limit=_TIDIED_FOR_ONE)
        self._tidied = rows[-1][0] if len(rows) == _TIDIED_FOR_ONE else 0
        gone = await store.missing([key for _, key in rows]) if rows else ()
        if gone:
            await index.drop(*gone)

    def _may_write(self, owner: str | None, most: int | None) -> bool:
        """Whether a caller may add one more question in this minute: nobody fills the index with answers for others to get."""
        if owner is None or most is None:
            return True
        minute = int(self._clock.now_s() // 60)
        if len(self._writes) > _MOST_OWNERS:
            self._writes = {who: (at, count) for who, (at, count) in self._writes.items() if at == minute}
        at, count = self._writes.get(owner, (minute, 0))
        count = count if at == minute else 0
        if count >= most:
            return False
        self._writes[owner] = (minute, count + 1)
        return True


def owner_of(request: Request) -> str | None:
    """Return whose call it is: the key that a service knows its caller by, else the user that the call names."""
    options = request.options
    return options.scopes[0].name if options.scopes else options.user
