"""breaker: asked right before the attempt; open means the next rung at once; half-open probes are leased."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from nbllm.core.breaker import BreakerState, Decision, Outcome, Ticket, ask, refuses, report, switch_off
from nbllm.core.messages import Request, Rung, Sink
from nbllm.core.ports import SharedState
from nbllm.core.reply import Reply
from nbllm.errors import AttemptFailed, AuthenticationFailed, BreakerOpen, ConnectionFailed, PermissionDenied, Scope, Truncated
from nbllm.pipeline.stage import Clock, Stage, call_of, rung_of

Standing = Literal["closed", "half open", "open", "off"]


@lru_cache(maxsize=64)
def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:16]


class Breakers:
    """The breakers of all endpoints and models, and what a wrong key has switched off."""

    def __init__(self, store: SharedState[BreakerState], clock: Clock, key_of: Callable[[Rung], str | None]) -> None:
        self._store = store
        self._clock = clock
        self._key_of = key_of
        self._settings_version = 0
        self._opening: dict[str, asyncio.Event] = {}
        self._name, self._asked = os.urandom(8).hex(), itertools.count()
        self._shut: set[str] = set()
        """Keys of breakers that were seen open or switched off."""

    @staticmethod
    def keys(rung: Rung) -> tuple[str, str]:
        """Return the names of the endpoint's breaker and the model's."""
        return rung.endpoint_name, f"{rung.endpoint_name}/{rung.model}"

    def _settings(self, rung: Rung) -> str:
        """Stand for the key and the settings: what was switched off is on again when this changes."""
        return f"{self._settings_version}:{_digest(self._key_of(rung) or '')}"

    def settings_changed(self) -> None:
        """Let everything that was switched off be tried again."""
        self._settings_version += 1

    async def reset(self) -> None:
        """Close every breaker that was seen open, and switch on what was switched off: the next call tries it.

        What is in flight counts no more: it belongs to a generation that is over.
        """

        def closed(state: BreakerState | None) -> tuple[BreakerState, None]:
            return BreakerState(generation=state.generation + 1 if state else 0), None

        while self._shut:
            await self._store.apply(self._shut.pop(), closed)

    async def refuse_if_open(self, rung: Rung) -> None:
        """Raise BreakerOpen, or what switched the key or model off, without taking a probe."""
        for key in self.keys(rung):
            state = await self._store.read(key)
            if state is None or not (state.is_open or state.off):
                continue
            _, decision = ask(state, self._clock.now_s(), "", settings=self._settings(rung))
            if not decision.sends:
                raise self._refusal(rung, key, decision)

    async def standing(self, rung: Rung) -> Standing:
        """Return how a rung stands, without taking a probe: "off" is a key or model that was refused, until settings change."""
        worst: Standing = "closed"
        for key in self.keys(rung):
            state = await self._store.read(key)
            if state is None:
                continue
            if state.off is not None and state.off.settings == self._settings(rung):
                return "off"
            if state.is_open and worst != "open":
                worst = "open" if refuses(state, self._clock.now_s()) is not None else "half open"
        return worst

    async def ask(self, rung: Rung) -> list[tuple[str, Ticket]]:
        """Return a ticket of each breaker, or raise BreakerOpen. Every ticket must come back by `report`."""
        tickets: list[tuple[str, Ticket]] = []
        lease_id, settings = f"{self._name}.{next(self._asked)}", self._settings(rung)
        try:
            for key in self.keys(rung):
                ticket = await self._ticket(rung, key, lease_id, settings)
                tickets.append((key, ticket))
        except BaseException:
            await self.report(tickets, [Outcome.NEUTRAL] * len(tickets))
            raise
        return tickets

    async def _ticket(self, rung: Rung, key: str, lease_id: str, settings: str) -> Ticket:
        now_s = self._clock.now_s()
        decision: Decision = await self._store.apply(key, lambda state: ask(state, now_s, lease_id, settings=settings))
        if decision.ticket is None:
            raise self._refusal(rung, key, decision)
        return decision.ticket

    async def report(self, tickets: list[tuple[str, Ticket]], outcomes: list[Outcome]) -> None:
        """Give tickets back with how it went."""
        now_s = self._clock.now_s()
        for (key, ticket), outcome in zip(tickets, outcomes, strict=True):

            def change(
                state: BreakerState | None, ticket: Ticket = ticket, outcome: Outcome = outcome
            ) -> tuple[BreakerState, bool]:
                changed = report(state or BreakerState(), outcome, now_s, ticket)
                return changed, changed.is_open

            if await self._store.apply(key, change):
                self._shut.add(key)
                self._wake(key)

    async def switch_off(self, rung: Rung, exc: AttemptFailed) -> None:
        """Remember that the key (401) or the model (403) is off until settings change."""
        key = self.keys(rung)[0 if exc.advice.switch_off is Scope.ENDPOINT else 1]
        settings = self._settings(rung)
        self._shut.add(key)
        await self._store.apply(key, lambda state: (switch_off(state or BreakerState(), exc.summary, settings), None))
        self._wake(key)

    def _wake(self, key: str) -> None:
        """Wake those who wait for the limits of an endpoint that now refuses."""
        if key in self._opening:
            self._opening.pop(key).set()

    def opening(self, rung: Rung) -> list[asyncio.Event]:
        """Return events that are set when a breaker of this rung opens, for those who wait for its limits."""
        return [self._opening.setdefault(key, asyncio.Event()) for key in self.keys(rung)]

    def _refusal(self, rung: Rung, key: str, decision: Decision) -> AttemptFailed:
        self._shut.add(key)
        whole = key == rung.endpoint_name
        if decision.reason:
            kind: type[AttemptFailed] = AuthenticationFailed if whole else PermissionDenied
            return kind(
                f"Nothing was sent to {rung.id}: its {'key' if whole else 'model'} was refused before. {decision.reason}",
                rung=rung.id,
                hint="Set another key, or change the endpoint's settings; then it is tried again.",
            )
        left_s = max(0.0, (decision.retry_at_s or 0.0) - self._clock.now_s())
        what = f"the endpoint {rung.endpoint_name}" if whole else f"the model {rung.id}"
        return BreakerOpen(
            f"Nothing was sent to {rung.id}: {what} failed too often just now and rests for another {left_s:.1f} s.",
            rung=rung.id,
            retry_after_s=left_s,
            hint=f"One call tries it again in {left_s:.0f} s; another model on the ladder would be asked at once. "
            "If you know that it is well again: nbllm.get_client().reset_breakers().",
        )


class BreakerStage:
    """Asks both breakers, reports both, whatever happens."""

    def __init__(self, inner: Stage, breakers: Breakers) -> None:
        self._inner = inner
        self._breakers = breakers

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Send only when the endpoint and the model are thought to be well."""
        call, rung = call_of(request), rung_of(request)
        tickets = await self._breakers.ask(rung)
        outcomes = [Outcome.NEUTRAL, Outcome.NEUTRAL]
        tried = len(call.attempts)
        try:
            reply = await self._inner(request, sink)
        except AttemptFailed as exc:
            outcomes = _outcomes(exc, sent=any(attempt.sent for attempt in call.attempts[tried:]))
            if exc.advice.switch_off is not Scope.NOBODY:
                await self._breakers.switch_off(rung, exc)
            raise
        except Truncated:
            outcomes = [Outcome.SUCCESS, Outcome.SUCCESS]  # it answered; that the limit on tokens was low is not its fault
            raise
        else:
            outcomes = [Outcome.SUCCESS, Outcome.SUCCESS]
            return reply
        finally:
            await self._breakers.report(tickets, outcomes)


def _outcomes(exc: AttemptFailed, *, sent: bool) -> list[Outcome]:
    """Return how a failure counts for the endpoint and for the model."""
    if isinstance(exc, ConnectionFailed) and exc.whole_endpoint:
        return [Outcome.FAILURE, Outcome.NEUTRAL]
    # What was put on a socket, and any HTTP status, an error too, proves that the endpoint itself can be reached.
    endpoint = Outcome.SUCCESS if sent or exc.status is not None else Outcome.NEUTRAL
    return [endpoint, Outcome.FAILURE if exc.advice.breaker is Scope.MODEL else Outcome.NEUTRAL]
