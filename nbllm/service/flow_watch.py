"""How one run of a flow is followed: its events, what its calls cost, and the way to end it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nbllm.core.messages import Attempt, Delta, NullSink, Request, Sink
from nbllm.core.reply import Reply
from nbllm.flow_context import FlowStopped


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run, as a stream tells it: started, delta, restarted; then reply or error, once."""

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallsMade:
    """What a run asked: names in the order of their first call. cost_usd: None when that of any call is unknown."""

    calls: int = 0
    models: tuple[str, ...] = ()
    rungs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    cost_usd: Decimal | None = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0


class Follower:
    """The Watcher of one run. tell: gets each event, from any thread; None: nobody wants to see answers come.

    `stop` ends the calls that are under way, and lets no other begin: the flow's code meets FlowStopped there.
    """

    def __init__(self, tell: Callable[[Event], object] | None = None) -> None:
        self.streams = tell is not None
        self._tell = tell
        self._lock = threading.Lock()
        self._stops: set[Callable[[], object]] = set()
        self._calls = 0
        self._ended: list[Reply | Exception] = []
        self.stopped = False

    # ------------------------------------------------------------------ as a Watcher

    def sink_for(self, request: Request) -> Sink:
        """Return the sink of one call; its events carry the call's number, from 1."""
        with self._lock:
            self._calls += 1
            number = self._calls
        return NullSink() if self._tell is None or request.purpose != "answer" else _CallSink(number, self._tell)

    def hold(self, stop: Callable[[], object]) -> Callable[[], object]:
        """Keep what ends a call. Raises FlowStopped after `stop`."""
        with self._lock:
            if self.stopped:
                raise FlowStopped
            self._stops.add(stop)
        return lambda: self._let_go(stop)

    def _let_go(self, stop: Callable[[], object]) -> None:
        with self._lock:
            self._stops.discard(stop)

    def replied(self, reply: Reply) -> None:
        """Count a call."""
        with self._lock:
            self._ended.append(reply)

    def failed(self, error: Exception) -> None:
        """Count a call that ended without an answer."""
        with self._lock:
            self._ended.append(error)

    # ------------------------------------------------------------------ for whoever runs the flow

    def stop(self) -> None:
        """End what is under way: upstream is closed within a second. From any thread, more than once."""
        with self._lock:
            self.stopped = True
            stops = tuple(self._stops)
        for stop in stops:
            stop()

    def made(self) -> CallsMade:
        """Return what was asked so far."""
        with self._lock:
            ended = tuple(self._ended)
        replies = [one for one in ended if isinstance(one, Reply)]
        costs = [one.cost_usd if isinstance(one, Reply) else _spent(one) for one in ended]
        return CallsMade(
            calls=len(ended),
            models=tuple(dict.fromkeys(reply.model for reply in replies)),
            rungs=tuple(dict.fromkeys(reply.rung for reply in replies)),
            sources=tuple(dict.fromkeys(reply.source for reply in replies)),
            cost_usd=None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0)),
            input_tokens=sum(reply.usage.input_tokens or 0 for reply in replies),
            output_tokens=sum(reply.usage.output_tokens or 0 for reply in replies),
        )


def _spent(error: Exception) -> Decimal | None:
    """Return what a call without an answer cost: 0 for one that was refused before anything was sent."""
    spent: Decimal | None = getattr(error, "spent_usd", Decimal(0))
    return spent


class _CallSink:
    """Turns what a call's sink sees into events."""

    def __init__(self, number: int, tell: Callable[[Event], object]) -> None:
        self._number = number
        self._tell = tell

    def started(self, attempt: Attempt) -> None:
        """An attempt is about to be sent."""
        self._tell(Event("started", {"call": self._number, "attempt": attempt.number, "model": attempt.rung}))

    def delta(self, delta: Delta) -> None:
        """A piece came. Fragments of tool calls are the flow's own business."""
        if delta.text:
            self._tell(Event("delta", {"call": self._number, "text": delta.text}))
        elif delta.reasoning:
            self._tell(Event("delta", {"call": self._number, "reasoning": delta.reasoning}))

    def restarted(self, reason: str) -> None:
        """What came so far is void."""
        self._tell(Event("restarted", {"call": self._number, "reason": reason}))
