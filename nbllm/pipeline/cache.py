"""cache: exact hit? Return it. On the way back (KeepStage, inside the shared run): keep complete, valid answers only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from msgspec.structs import asdict, replace

from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Call, Request, Rung, Sink, Usage
from nbllm.core.ports import ResponseStore, Stored
from nbllm.core.reply import Reply
from nbllm.errors import StorageError, ValidationFailed
from nbllm.pipeline.stage import Clock, Stage, call_of, patience_s, rung_of, show, within
from nbllm.pipeline.structure import StructureStage, needs_validation, quick, validated
from nbllm.pipeline.workers import Workers
from nbllm.redaction import redact_registered
from nbllm.settings import Settings

_COMPLETE = ("stop", "tool_calls")
_NOTHING = Decimal(0)
_PUT_S = 0.5
_LONG_CHARS = 50_000
"""How long an answer waits at most until it is kept."""


class Cache:
    """What the cache stage, the fast door for hits and the ladder's stale rung have in common: reading one entry as a Reply."""

    def __init__(self, store: ResponseStore, clock: Clock, settings: Callable[[], Settings]) -> None:
        self.store = store
        self.clock = clock
        self._settings = settings

    def fresh(self, stored: Stored, request: Request, *, stale_ok_s: float = 0.0) -> bool:
        """Whether an entry may answer: not older than allowed, not expired for longer than stale_ok_s."""
        now = self.clock.epoch_s()
        age_s = now - stored.created_at
        if age_s > self._settings().cache_max_age_days * 86_400:
            return False
        expires = [t for t in (stored.expires_at, _plus(stored.created_at, request.options.ttl_s)) if t is not None]
        return not expires or now <= min(expires) + stale_ok_s

    def revive(self, stored: Stored, request: Request, rung: Rung) -> Reply | None:
        """Return an entry as a Reply, its `.data` not built yet; None for one that is no answer as this version writes them."""
        call = call_of(request)
        age_s = max(0.0, self.clock.epoch_s() - stored.created_at)
        try:
            return _revived(stored, rung, age_s=age_s, latency_s=self.clock.now_s() - call.started_s, call=call)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def read_now(self, request: Request, rung: Rung, key: str, *, own_thread: bool) -> Reply | None:
        """Return a valid hit without waiting, on the caller's own thread; None for a miss, and for one to be read elsewhere.

        For requests whose validation runs no code of the user. A miss is noted on the call, so that the road does not look again.
        own_thread: False where a long text, which takes long to validate, would hold up an event loop.
        """
        call = call_of(request)
        call.looked_up = True
        stored = self.store.get_now(key)
        if stored is None or not self.fresh(stored, request):
            return None
        reply = self.revive(stored, request, rung)
        if reply is None or not needs_validation(request):
            return reply
        if not own_thread and not quick(reply, request):
            call.looked_up = False
            return None
        try:
            return validated(reply, request)
        except ValidationFailed:
            return None

    async def keep_verdict(self, request: Request, name: str, said: bool) -> None:
        """Keep what a verifier said with the answer that it said it of; an answer that is not kept has no place for it."""
        rung = rung_of(request)
        if request.options.cache == "off":
            return
        with suppress(StorageError, TimeoutError):  # then the verifier's own answer is still kept under its own key
            stored = await self.store.get(fingerprint(request.content, rung))
            if stored is not None:
                verdicts = {**stored.answer.get("verdicts", {}), name: said}
                entry = replace(stored, answer={**stored.answer, "verdicts": verdicts})
                await within(patience_s(call_of(request), self.clock, at_most_s=_PUT_S), self.store.put(entry))

    def entry(self, reply: Reply, request: Request) -> Stored:
        """Return the entry under which a complete answer is kept."""
        now = self.clock.epoch_s()
        call = call_of(request)
        done = [a for a in call.attempts if a.latency_s is not None]
        return Stored(
            key=call.key or "",
            model=reply.rung,
            created_at=now,
            expires_at=_plus(now, request.options.ttl_s),
            answer=_answer(reply),
            cost_usd=call.spent()[0],
            latency_s=sum(a.latency_s or 0.0 for a in done) if done else None,
            ttft_s=reply.ttft_s,
            tags=request.options.tags + ((f"feature:{request.options.feature}",) if request.options.feature else ()),
        )


def complete(reply: Reply) -> bool:
    """Whether an answer may be kept: it came to its end, and there is something in it."""
    if reply.source != "model" or reply.interrupted:
        return False
    if reply.vectors is not None:
        return True
    return reply.finish_reason in _COMPLETE and bool(reply.text or reply.message.get("tool_calls"))


class CacheStage:
    """Looks for an exact answer of this rung."""

    def __init__(self, inner: Stage, cache: Cache, structure: StructureStage) -> None:
        self._inner = inner
        self._cache = cache
        self._structure = structure

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Return a hit, else what comes from further down."""
        call, rung = call_of(request), rung_of(request)
        mode = request.options.cache
        if mode == "off":
            return await self._inner(request, sink)
        looked_up, call.looked_up = call.looked_up, False
        if not looked_up:  # else the fast door has made this rung's key
            call.key = fingerprint(request.content, rung)
        if mode == "use" and not looked_up:
            reply = await self.lookup(request)
            if reply is not None:
                show(reply, sink)
                return reply
        return await self._inner(request, sink)

    async def lookup(self, request: Request, *, stale_ok_s: float = 0.0, newer_than: float = 0.0) -> Reply | None:
        """Return a valid entry as a Reply, or None. Damage, and an entry that fails this request's schema or check, are misses."""
        rung = rung_of(request)
        stored = await self._cache.store.get(call_of(request).key or fingerprint(request.content, rung))
        if stored is None or stored.created_at < newer_than or not self._cache.fresh(stored, request, stale_ok_s=stale_ok_s):
            return None
        reply = self._cache.revive(stored, request, rung)
        if reply is None or not needs_validation(request):
            return reply
        try:
            return await self._structure.validate(reply, request)
        except ValidationFailed:
            return None


class KeepStage:
    """Keeps what came back, once, while the run's lease is held."""

    def __init__(self, inner: Stage, cache: Cache, workers: Workers) -> None:
        self._inner = inner
        self._cache = cache
        self._workers = workers

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Pass the answer through, and keep it when it is complete."""
        reply = await self._inner(request, sink)
        call = call_of(request)
        if request.options.cache == "off" or not call.key or not complete(reply):
            return reply
        if request.keep_if is not None and not request.keep_if(reply):
            return reply
        long = len(reply.text) + len(reply.reasoning) > _LONG_CHARS  # searched for every key in use: that takes a while
        if await self._workers.run(lambda: _holds_a_key(reply)) if long else _holds_a_key(reply):
            call.note("The answer holds a key that is in use here, so it was not kept in the cache.")
            return reply
        if call.may_store is not None and not await call.may_store():
            return reply
        try:
            # The answer is there: a disk that is slow to take it may not use up the time of those who wait for it.
            putting = self._cache.store.put(self._cache.entry(reply, request))
            await within(patience_s(call, self._cache.clock, at_most_s=_PUT_S), putting)
            call.kept = True
        except (StorageError, TimeoutError) as exc:
            why = exc.summary if isinstance(exc, StorageError) else "the disk was too slow."
            call.note(f"The answer was not kept in the cache: {why}")
        return reply


def _holds_a_key(reply: Reply) -> bool:
    """Whether a server has echoed a key: it must not last, and an answer without it would not be the answer."""
    calls = reply.message.get("tool_calls")
    return any(redact_registered(text) != text for text in (reply.text, reply.reasoning, str(calls) if calls else ""))


def _plus(start: float, seconds: float | None) -> float | None:
    return None if seconds is None else start + seconds


def _answer(reply: Reply) -> Mapping[str, Any]:
    answer: dict[str, Any] = {"text": reply.text, "finish_reason": reply.finish_reason, "model": reply.model}
    usage = {k: v for k, v in asdict(reply.usage).items() if v}
    optional = {
        "reasoning": reply.reasoning,
        "message": dict(reply.message) if reply.message.get("tool_calls") else None,
        "usage": usage,
        "logprobs": list(reply.logprobs),
        "repairs": reply.repairs,
    }
    answer.update({name: value for name, value in optional.items() if value})
    if reply.vectors is not None:
        answer["shape"] = list(reply.vectors.shape)
        answer["vectors"] = base64.b64encode(reply.vectors.astype("<f4").tobytes()).decode("ascii")
    return answer


def _revived(stored: Stored, rung: Rung, *, age_s: float, latency_s: float, call: Call) -> Reply:
    answer = stored.answer
    text = answer["text"]
    usage = answer.get("usage")
    verdicts = answer.get("verdicts")
    return Reply(
        text=text,
        model=answer.get("model") or rung.model,
        rung=rung.id,
        source="cache",
        finish_reason=answer["finish_reason"],
        call_id=call.call_id,
        reasoning=answer.get("reasoning", ""),
        message=answer.get("message") or {"role": "assistant", "content": text},
        usage=Usage(**usage) if usage else Usage(),
        cost_usd=_NOTHING,
        repair_cost_usd=_NOTHING,
        cost_basis="exact",
        logprobs=tuple(answer.get("logprobs", ())),
        vectors=_vectors(answer),
        saved_usd=stored.cost_usd,
        saved_s=stored.latency_s,
        age_s=age_s,
        latency_s=latency_s,
        simulated=rung.simulated,
        why=call.why,
        verdicts=verdicts,
    )


def _vectors(answer: Mapping[str, Any]) -> Any:
    if "vectors" not in answer:
        return None
    import numpy as np

    return np.frombuffer(base64.b64decode(answer["vectors"]), dtype="<f4").reshape(answer["shape"])


def as_stale(reply: Reply) -> Reply:
    """Mark an entry that is served past its time because nothing better answered."""
    return replace(reply, source="stale")
