"""throttle: the endpoint's own limits. Requests and tokens a minute, calls at once; fair between waiters."""

from __future__ import annotations

import asyncio
import math

from nbllm.core.billing import estimate_input_tokens
from nbllm.core.messages import Chat, Request, Rung, Sink
from nbllm.core.ports import RateLimits, SharedState
from nbllm.core.reply import Reply
from nbllm.core.throttle import BucketState, Limits, fullness, learn, room, take
from nbllm.errors import ThrottleTimeout
from nbllm.pipeline.breaker import Breakers
from nbllm.pipeline.stage import Clock, Stage, call_of, rung_of

_NOTE_AT = 0.8
"""Share of a limit from which on a note says so."""


class Slots:
    """One endpoint's calls at once, on this loop."""

    def __init__(self) -> None:
        self.taken = 0
        self.free = asyncio.Event()

    def give_back(self) -> None:
        """Let the next one in."""
        self.taken -= 1
        self.free.set()


class Throttles:
    """What is known of the endpoints' limits, from settings and from the providers' headers."""

    def __init__(self, store: SharedState[BucketState], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._slots: dict[str, Slots] = {}
        self._queues: dict[str, asyncio.Lock] = {}
        self._learned: set[str] = set()
        self._pending: set[asyncio.Task[None]] = set()

    def slots(self, rung: Rung) -> Slots:
        """Return the endpoint's slots."""
        return self._slots.setdefault(rung.endpoint_name, Slots())

    def queue(self, rung: Rung) -> asyncio.Lock:
        """Return the queue of those who share a bucket: a lock, because asyncio's is first come, first served.

        A model whose own limit is used up holds up nobody who asks the endpoint for another one, its fallback least of all.
        """
        return self._queues.setdefault(self.bucket(rung), asyncio.Lock())

    def limited(self, rung: Rung) -> bool:
        """Whether any limit is known for this endpoint."""
        endpoint = rung.endpoint
        return bool(endpoint.rpm or endpoint.tpm or endpoint.max_concurrency or self.bucket(rung) in self._learned)

    @staticmethod
    def bucket(rung: Rung) -> str:
        """Return the name of the bucket: providers limit each model apart, a user's own endpoint is limited as a whole."""
        endpoint = rung.endpoint
        return rung.endpoint_name if endpoint.rpm or endpoint.tpm else f"{rung.endpoint_name}/{rung.model}"

    async def take(self, rung: Rung, tokens: int) -> tuple[float, float]:
        """Take one request and its tokens; return (seconds to wait, 0 when taken; fullness of the tightest limit, 0..1)."""
        limits = Limits(rpm=rung.endpoint.rpm, tpm=rung.endpoint.tpm)
        now_s = self._clock.now_s()

        def change(state: BucketState | None) -> tuple[BucketState, tuple[float, float]]:
            taken, wait_s = take(state, limits, requests=1, tokens=tokens, now_s=now_s)
            return taken, (wait_s, fullness(taken, limits, now_s))

        return await self._store.apply(self.bucket(rung), change)

    async def room_s(self, rung: Rung, request: Request) -> float:
        """Return how long a request would have to wait for room under the limits, in seconds; nothing is taken. inf: for a slot."""
        most = rung.endpoint.max_concurrency
        if most is not None and self.slots(rung).taken >= most:
            return math.inf
        if not self.limited(rung):
            return 0.0
        state = await self._store.read(self.bucket(rung))
        limits = Limits(rpm=rung.endpoint.rpm, tpm=rung.endpoint.tpm)
        return take(state, limits, requests=1, tokens=_tokens(request), now_s=self._clock.now_s())[1]

    async def room(self, rung: Rung) -> tuple[int | None, int | None]:
        """Return how many requests and tokens the limits leave just now, None where none is known; nothing is taken."""
        limits = Limits(rpm=rung.endpoint.rpm, tpm=rung.endpoint.tpm)
        return room(await self._store.read(self.bucket(rung)), limits, self._clock.now_s())

    def learn(self, rung: Rung, limits: RateLimits) -> None:
        """Take in what the provider's headers say (in a task of its own: the headers come in mid-attempt)."""
        if limits == RateLimits():
            return
        key = self.bucket(rung)
        self._learned.add(key)
        now_s = self._clock.now_s()

        async def remember() -> None:
            await self._store.apply(key, lambda state: (learn(state, limits, now_s), None))

        task = asyncio.get_running_loop().create_task(remember())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)


class ThrottleStage:
    """Refuses at once when the breaker is open, else waits its turn, inside the rung's share of the deadline."""

    def __init__(self, inner: Stage, throttles: Throttles, breakers: Breakers, clock: Clock) -> None:
        self._inner = inner
        self._throttles = throttles
        self._breakers = breakers
        self._clock = clock

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Wait for a slot and for room under the limits; keep the slot until the attempt ends."""
        rung = rung_of(request)
        if not self._throttles.limited(rung):
            return await self._inner(request, sink)  # nothing to wait for: the breaker's own stage refuses as soon
        await self._breakers.refuse_if_open(rung)
        call, slots = call_of(request), self._throttles.slots(rung)
        began_s = self._clock.now_s()
        until_s = began_s + max(0.0, call.deadline_at_s - began_s) / max(1, request.rungs_left)
        if call.spill_s is not None and request.rungs_left > 1:
            until_s = min(until_s, began_s + call.spill_s)  # others may have taken the room since the route saw it
        try:
            await self._wait(request, rung, slots, until_s)
        finally:
            call.waited_s += self._clock.now_s() - began_s
        try:
            return await self._inner(request, sink)
        finally:
            slots.give_back()

    async def _wait(self, request: Request, rung: Rung, slots: Slots, until_s: float) -> None:
        """Return with a slot taken and the request counted in."""
        queue = self._throttles.queue(rung)
        try:
            # Not wait_for: it can lose the lock, or a cancellation, when both come at once.
            async with asyncio.timeout(until_s - self._clock.now_s()) as scope:
                await queue.acquire()
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise _no_room(rung, 0.0, None) from exc
        try:
            await self._breakers.refuse_if_open(rung)  # it may have opened while this one stood in line
            await self._slot(slots, rung, until_s)
            await self._room(request, rung, until_s)
            await self._slot(slots, rung, until_s)  # another model of the endpoint may have taken it meanwhile
            slots.taken += 1
        finally:
            queue.release()

    async def _slot(self, slots: Slots, rung: Rung, until_s: float) -> None:
        most = rung.endpoint.max_concurrency
        while most is not None and slots.taken >= most:
            left_s = until_s - self._clock.now_s()
            if left_s <= 0:
                raise _no_room(rung, 0.0, None)
            slots.free.clear()
            await self._pause(rung, left_s, slots.free)

    async def _room(self, request: Request, rung: Rung, until_s: float) -> None:
        call, tokens = call_of(request), _tokens(request)
        while True:
            wait_s, share = await self._throttles.take(rung, tokens)
            if wait_s <= 0:
                if share >= _NOTE_AT:
                    call.note(f"{rung.endpoint_name} is at {share:.0%} of its rate limit; further calls may have to wait.")
                return
            left_s = until_s - self._clock.now_s()
            if wait_s > left_s:
                raise _no_room(rung, left_s, wait_s)
            # Not less than a millisecond: a timer may ring a rounding error early, and asking again at once would only spin.
            await self._pause(rung, max(wait_s, 0.001), None)

    async def _pause(self, rung: Rung, at_most_s: float, event: asyncio.Event | None) -> None:
        """Sleep until the event, the time, or an opening breaker, whichever is first; an open breaker is raised."""
        opening = self._breakers.opening(rung)
        waits = [asyncio.ensure_future(e.wait()) for e in (*opening, *([event] if event else []))]
        try:
            await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if any(e.is_set() for e in opening):
            await self._breakers.refuse_if_open(rung)


def _no_room(rung: Rung, left_s: float, wait_s: float | None) -> ThrottleTimeout:
    when = "in time" if wait_s is None else f"for another {wait_s:.1f} s"
    return ThrottleTimeout(
        f"Nothing was sent to {rung.id}: its limits leave no room {when}, and this call could wait {max(0.0, left_s):.1f} s.",
        rung=rung.id,
        retry_after_s=wait_s,
        hint="Raise deadline_s=, add a rung to the ladder, or correct rpm, tpm or max_concurrency of the endpoint.",
    )


def _tokens(request: Request) -> int:
    """Estimate what a request counts against tpm: input, and the output it asks room for."""
    content = request.content
    return estimate_input_tokens(content) + ((content.max_tokens or 0) if isinstance(content, Chat) else 0)
