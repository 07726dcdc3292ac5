"""The search for an answer to a similar question: neighbours, guards, judge, and the answer itself, read there and then."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from nbllm.core.guards import ALL, VERSION, GuardWords, Verdict, check, shipped
from nbllm.core.messages import Request
from nbllm.core.ports.matches import Matches
from nbllm.core.ports.semantic import Neighbour, VectorIndex
from nbllm.core.reply import Reply
from nbllm.core.semantic.plan import SemanticPlan
from nbllm.core.semantic.question import Question
from nbllm.errors import ConfigurationError, NbllmError, ValidationFailed
from nbllm.pipeline.cache import Cache
from nbllm.pipeline.guard_words import read_words
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.judging import same_answer
from nbllm.pipeline.stage import Clock, call_of, rung_of
from nbllm.pipeline.structure import StructureStage, needs_validation
from nbllm.pipeline.workers import Workers
from nbllm.settings.semantic import SemanticSettings

if TYPE_CHECKING:
    from nbllm.pipeline.embedding import Vector

_SHORT_CHARS = 400
NEIGHBOURS = 8
"""How many are tried, the most similar first: some are expired, blocked, or stopped by a guard."""


class Met(Struct, frozen=True, gc=False):
    """A stored question that came near. reply: its answer, None when something spoke against it (`failed`, in words)."""

    neighbour: Neighbour
    verdicts: tuple[Verdict, ...]
    failed: tuple[str, ...]
    reply: Reply | None
    judged: bool = False


class Asked(Struct, frozen=True):
    """One question on its way. embedder, guards: as a plan names them. plan: the one that may serve it, None for shadow."""

    question: Question
    vector: Vector
    settings: SemanticSettings
    embedder: str
    guards: str
    plan: SemanticPlan | None


class Matching:
    """Looks for what may stand in for an answer. Nothing here serves or records anything."""

    def __init__(
        self,
        *,
        index: VectorIndex,
        matches: Matches,
        cache: Cache,
        structure: StructureStage,
        helpers: Helpers,
        clock: Clock,
        workers: Workers,
    ) -> None:
        self._index = index
        self._matches = matches
        self._cache = cache
        self._structure = structure
        self._helpers = helpers
        self._clock = clock
        self._workers = workers
        self._words: dict[str | None, GuardWords] = {}

    def guards_name(self, settings: SemanticSettings) -> str:
        """Return the name of the guards in use, as a plan remembers them: which, with whose words, and the judge with its band.

        Raises ConfigurationError for guards or words that are none.
        """
        unknown = sorted(frozenset(settings.guards) - ALL - {"all"})
        if unknown:
            hint = f"There are all, {', '.join(sorted(ALL))}."
            raise ConfigurationError(f"semantic_cache.guards names {', '.join(unknown)}, which is no guard.", hint=hint)
        on = "all" if "all" in settings.guards else ",".join(sorted(settings.guards))
        judge = "" if settings.judge is None else f" judge {settings.judge} below {settings.judge_below}"
        own = "" if settings.guard_words is None else f" words {sha256(repr(self._words_of(settings)).encode()).hexdigest()[:8]}"
        return f"{VERSION} {on}{own}{judge}"

    async def met(self, request: Request, asked: Asked, at_least: float) -> Met | None:
        """Return the best match that counts, else the best that something spoke against; None without any."""
        best: Met | None = None
        try:
            near = await self._index.nearest(asked.question.partition, asked.vector, k=NEIGHBOURS, at_least=at_least)
            for neighbour in near:
                met = await self._looked_at(request, asked, neighbour)
                if met is not None and met.reply is not None:
                    return met
                best = best or met
                if met is not None and met.judged:
                    return met  # one judgement a question: what the judge refuses once is not bought again for the next
        except NbllmError as exc:
            call_of(request).note(f"No similar question was looked for: {exc.summary.rstrip('.')}.")
        return best

    async def _looked_at(self, request: Request, asked: Asked, neighbour: Neighbour) -> Met | None:
        """Return a neighbour with what guards and judge say of it; None for one that is no answer any more."""
        if neighbour.key == call_of(request).key:
            return None
        if self._clock.epoch_s() - neighbour.created_at > asked.settings.max_age_s:
            await self._index.drop(neighbour.key)
            return None
        if self._matches.blocked(asked.question.text, neighbour.question):
            return None
        verdicts = await self._verdicts(asked, neighbour)
        failed = tuple(f"{one.guard}: {one.detail}" for one in verdicts if not one.passed)
        if failed:
            return Met(neighbour, verdicts, failed, None)
        reply = await self._stored(request, neighbour)
        if reply is None:
            return None
        against = await self._judged(request, asked, neighbour)
        return Met(neighbour, verdicts, (against,), None, judged=True) if against else Met(neighbour, verdicts, (), reply)

    async def _verdicts(self, asked: Asked, neighbour: Neighbour) -> tuple[Verdict, ...]:
        """Return what the guards say; of longer texts in a thread, because that takes milliseconds."""
        query, question = asked.question.text, neighbour.question
        if len(query) + len(question) <= _SHORT_CHARS:
            return self.verdicts(query, question, asked.settings)
        return await self._workers.run(lambda: self.verdicts(query, question, asked.settings))

    def verdicts(self, query: str, question: str, settings: SemanticSettings) -> tuple[Verdict, ...]:
        """Return what the guards in force say of two questions."""
        on = ALL if "all" in settings.guards else frozenset(settings.guards)
        return check(query, question, words=self._words_of(settings), on=on)

    async def _judged(self, request: Request, asked: Asked, neighbour: Neighbour) -> str:
        """Return what the judge has against a match, "" for nothing. A judge that fails means a miss."""
        settings = asked.settings
        if settings.judge is None or (settings.judge_below is not None and neighbour.score >= settings.judge_below):
            return ""
        try:
            same = await same_answer(self._helpers, request, settings.judge, asked.question.text, neighbour.question)
        except NbllmError as exc:
            call_of(request).note(f"The judge {settings.judge} did not answer, so nothing was served: {exc.summary}")
            return "judge: no answer"
        return "" if same else "judge: another question"

    async def _stored(self, request: Request, neighbour: Neighbour) -> Reply | None:
        """Return the entry's answer, read there and then; one that is gone takes its vector with it."""
        stored = await self._cache.store.get(neighbour.key)
        if stored is None:
            await self._index.drop(*await self._cache.store.missing([neighbour.key]))  # not one that only cannot be read just now
            return None
        if stored.expires_at is not None and stored.expires_at < self._clock.epoch_s():
            await self._index.drop(neighbour.key)
            return None
        if not self._cache.fresh(stored, request):
            return None
        reply = self._cache.revive(stored, request, rung_of(request))
        if reply is None or not needs_validation(request):
            return reply
        try:
            return await self._structure.validate(reply, request)
        except ValidationFailed:
            return None

    def _words_of(self, settings: SemanticSettings) -> GuardWords:
        """Return the guards' words. Raises ConfigurationError for a file of one's own that is none."""
        name = settings.guard_words
        if name not in self._words:
            self._words[name] = shipped() if name is None else read_words(name)
        return self._words[name]
