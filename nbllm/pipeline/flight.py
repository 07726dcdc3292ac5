"""A flight: one run, those who wait for it, and the way of its stream to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Call, Delta, Request, Sink
from nbllm.core.reply import Reply
from nbllm.pipeline.stage import call_of, show_tool_calls


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
        self.call.attempts_before = len(lead.attempts)

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
        call.partial = self.fan_out.so_far.partial() or self.call.partial or call.partial

    def pass_on(self, runner: Waiter, refusal: Exception) -> bool:
        """Let the next waiter lead when the runner gives up for itself alone; False when there is none to run again for.

        A flight whose runner left meanwhile has another leader already, who has not been asked yet.
        """
        if not self.waiters:
            return False
        if self.leader is runner:
            if len(self.waiters) == 1:
                return False
            self.remove(runner)
            self.deliver(runner, None, refusal)
        self.changed()
        return True

    def arrive(self, runner: Waiter | None, reply: Reply | None, failure: BaseException | None) -> None:
        """Give everybody who is still there an outcome of his own."""
        for place, waiter in enumerate(self.waiters):
            if reply is not None and waiter is not runner:
                self.deliver(waiter, replace(reply, coalesced=True), None)
            else:
                self.deliver(waiter, reply, _own(failure) if place else failure)

    def deliver(self, waiter: Waiter, reply: Reply | None, failure: BaseException | None) -> None:
        """Give a waiter its outcome: the reply, the error, or, where the run itself was cancelled, a cancellation."""
        self.hand_over(waiter)
        if waiter.done.done():
            return
        if reply is not None:
            waiter.done.set_result(reply)
        elif isinstance(failure, Exception):
            waiter.done.set_exception(failure)
        else:
            waiter.done.cancel()


def _own(failure: BaseException | None) -> BaseException | None:
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
