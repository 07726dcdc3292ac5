"""A flight: one run, those who wait for it, and the way of its stream to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Call, Delta, Partial, Request, Sink
from nbllm.core.reply import Reply
from nbllm.errors import (
    AttemptFailed,
    AttemptTimeout,
    BreakerOpen,
    FirstTokenTimeout,
    StreamInterrupted,
    ThrottleTimeout,
    ValidationFailed,
)
from nbllm.pipeline.stage import call_of, rung_of, show_tool_calls

E = TypeVar("E")


@dataclass(eq=False, slots=True)
class Waiter:
    """One call that waits. `done` gets its outcome, once."""

    request: Request
    sink: Sink
    done: asyncio.Future[Reply]


class FanOut:
    """Passes the run's stream to every waiter; who joins late first gets what came so far, in one piece."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.sinks: list[Sink] = []
        self.so_far = Accumulator()
        self.began_s: float | None = None
        """When the latest attempt began, None before the first."""
        self._now_s = now_s
        self._attempt: Attempt | None = None

    def join(self, sink: Sink) -> None:
        """Show a sink what came so far, and everything from now on."""
        if self._attempt is not None:
            sink.started(self._attempt)
            partial = self.so_far.partial()
            if partial.text or partial.reasoning:
                sink.delta(Delta(text=partial.text, reasoning=partial.reasoning))
            show_tool_calls(partial.tool_calls, sink)
        self.sinks.append(sink)

    def started(self, attempt: Attempt) -> None:
        """Pass it on."""
        self._attempt, self.began_s = attempt, self._now_s()
        for sink in self.sinks:
            sink.started(attempt)

    def delta(self, delta: Delta) -> None:
        """Keep it for those who come late, and pass it on."""
        self.so_far.add(delta)
        for sink in self.sinks:
            sink.delta(delta)

    def restarted(self, reason: str) -> None:
        """Forget what came, and pass it on."""
        self.so_far = Accumulator()
        for sink in self.sinks:
            sink.restarted(reason)


@dataclass(eq=False)
class Flight:
    """One run and those who wait for it. `call` is the run's own: its deadline is the latest of the waiters'."""

    call: Call
    fan_out: FanOut
    waiters: list[Waiter] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    landed: bool = False

    @property
    def leader(self) -> Waiter:
        """The waiter that pays: the first that is still there."""
        return self.waiters[0]

    def join(self, waiter: Waiter) -> None:
        """Take one more waiter aboard."""
        self.waiters.append(waiter)
        self.fan_out.join(waiter.sink)
        self.changed()

    def changed(self) -> None:
        """Take over deadline, budgets and row from those who are still there."""
        lead = call_of(self.leader.request)
        self.call.deadline_at_s = max(call_of(w.request).deadline_at_s for w in self.waiters)
        self.call.call_id, self.call.session, self.call.payer = lead.call_id, lead.session, lead.payer
        self.call.attempts_before = lead.attempts_before + len(lead.attempts)

    def remove(self, waiter: Waiter) -> None:
        """Forget a waiter and its sink."""
        self.waiters.remove(waiter)
        self.fan_out.sinks = [sink for sink in self.fan_out.sinks if sink is not waiter.sink]

    def hand_over(self, waiter: Waiter) -> None:
        """Give a waiter's call the attempts that were made on its row, each once, and what the run has to say."""
        call = call_of(waiter.request)
        have = {attempt.attempt_id for attempt in call.attempts}
        call.attempts.extend(a for a in self.call.attempts if a.call_id == call.call_id and a.attempt_id not in have)
        call.notes.extend(note for note in self.call.notes if note not in call.notes)
        call.embedded.update(self.call.embedded)
        call.partial = self.fan_out.so_far.partial() or self.call.partial or call.partial

    def pass_on(self, runner: Waiter, outcome: Reply | Exception, *, alone: bool) -> bool:
        """Where the outcome is not everybody's, give it to those whose it is; whether somebody is left to run again for.

        alone: it is the runner's own matter (its budget, its share of its deadline), whatever the others asked for.
        A flight whose runner left meanwhile has another leader already, who has not been asked yet.
        """
        again = [w for w in self.waiters if w is not runner and (alone or self._goes_on(w.request, runner.request, outcome))]
        if not again:
            return False
        seen = self.fan_out.so_far.partial()
        for waiter in [w for w in self.waiters if w not in again]:
            self.remove(waiter)
            self.deliver(waiter, outcome if waiter is runner else _own(outcome))
        self._forget_lowered()
        if seen and self.leader.request.options.on_interrupt == "raise":
            broken = outcome if isinstance(outcome, StreamInterrupted) else _broken_off(self.leader.request, seen)
            for waiter in again:
                self.remove(waiter)
                self.deliver(waiter, _own(broken))
            return False
        if seen:
            self.fan_out.restarted("interrupted")
        self.changed()
        return True

    def _goes_on(self, mine: Request, theirs: Request, outcome: Reply | Exception) -> bool:
        """Whether a call that waits would not have ended with this outcome of a run under another call's options."""
        if isinstance(outcome, Reply):
            return outcome.truncated and self.call.lowered is not None
        return is_more_patient(mine, theirs, outcome)

    def _forget_lowered(self) -> None:
        """Say no more that max_tokens was lowered: it was for the budgets of a waiter that has its outcome."""
        self.call.notes[:] = [note for note in self.call.notes if note != self.call.lowered]
        self.call.lowered = None

    def arrive(self, runner: Waiter | None, outcome: Reply | BaseException | None) -> None:
        """Give everybody who is still there an outcome of his own."""
        for waiter in sorted(self.waiters, key=lambda w: w is not runner):
            if waiter is not runner:
                self._forget_lowered()
                outcome = replace(outcome, coalesced=True) if isinstance(outcome, Reply) else _own(outcome)
            self.deliver(waiter, outcome)

    def deliver(self, waiter: Waiter, outcome: Reply | BaseException | None) -> None:
        """Give a waiter its outcome: the reply, the error, or, where the run itself was cancelled, a cancellation."""
        self.hand_over(waiter)
        if waiter.done.done():
            return
        if isinstance(outcome, Reply):
            waiter.done.set_result(outcome)
        elif isinstance(outcome, Exception):
            waiter.done.set_exception(outcome)
        else:
            waiter.done.cancel()


def is_more_patient(mine: Request, theirs: Request, failure: Exception) -> bool:
    """Whether `mine` would not have given up with the failure that ended a run under the options of `theirs`."""
    own, other = mine.options, theirs.options
    if isinstance(failure, ValidationFailed):
        return own.repairs > other.repairs
    if not isinstance(failure, AttemptFailed) or isinstance(failure, BreakerOpen):
        return False
    if isinstance(failure, ThrottleTimeout):
        return mine.rungs_left < theirs.rungs_left  # its share of the deadline is longer
    if isinstance(failure, FirstTokenTimeout) and _longer(own.ttft_s, other.ttft_s):
        return True
    if isinstance(failure, StreamInterrupted) and _longer(own.idle_s, other.idle_s):
        return True
    if isinstance(failure, AttemptTimeout | StreamInterrupted) and (
        _longer(own.attempt_s, other.attempt_s) or mine.rungs_left < theirs.rungs_left
    ):
        return True
    # A stream that did not begin, or broke off, is left to the next rung where there is one, and retried where there is none.
    alone = mine.rungs_left <= 1 < theirs.rungs_left and own.retries > 0
    return failure.advice.retry and (own.retries > other.retries or (alone and isinstance(failure, FirstTokenTimeout)))


def _longer(own_s: float | None, other_s: float | None) -> bool:
    return other_s is not None and (own_s is None or own_s > other_s)


def _broken_off(request: Request, seen: Partial) -> StreamInterrupted:
    rung = rung_of(request)
    return StreamInterrupted(
        f"The answer of {rung.id} that this call shared ended early for the sake of the call that paid for it.",
        rung=rung.id,
        partial=seen,
        hint='Ask again, or let the answer begin anew with on_interrupt="restart".',
    )


def _own(failure: E) -> E:
    """Return a copy of an error: what is noted on one waiter's must not show up on another's."""
    if not isinstance(failure, Exception):
        return failure
    try:
        own = copy(failure)
    except Exception:
        return failure  # another library's, whose constructor asks for more than its args: better shared than none
    own.__notes__ = list(getattr(failure, "__notes__", ()))
    own.__cause__ = failure.__cause__
    return own.with_traceback(failure.__traceback__)
