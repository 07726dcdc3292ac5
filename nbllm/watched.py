"""The way of one call from a door to the road: alone, or followed from outside, as a service follows the calls of a flow.

Who follows a call sees its answer come, is told how it ended, and may end it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from nbllm.background import Job, LoopHost, awaited, waited
from nbllm.core.messages import Attempt, Delta, NullSink, Request, Sink
from nbllm.core.reply import Reply
from nbllm.flow_context import WATCHER, FlowStopped, Watcher
from nbllm.live import LiveCall
from nbllm.outcome import Cancelled, Outcome
from nbllm.pipeline.stage import show

Send = Callable[[Request, Sink], Coroutine[Any, Any, Reply]]


def streams() -> bool:
    """Whether somebody outside wants to see answers of the current code as they come."""
    watcher = WATCHER.get()
    return watcher is not None and watcher.streams


def way_of(request: Request) -> Unwatched | Watched:
    """Return the way of a call that is made now."""
    watcher = WATCHER.get()
    return _UNWATCHED if watcher is None else Watched(watcher, request)


class Unwatched:
    """Nobody but the caller sees the call."""

    def hit(self, reply: Reply) -> Reply:
        """Return an answer that was found without a run."""
        return reply

    def wait(self, host: LoopHost, send: Send, request: Request) -> Reply:
        """Run the call and wait for it on the caller's own thread."""
        return waited(Job(host, lambda: send(request, NullSink())))

    async def run(self, host: LoopHost, send: Send, request: Request) -> Reply:
        """Run the call and wait for it on the caller's own loop."""
        return await (send(request, NullSink()) if host.is_here else awaited(Job(host, lambda: send(request, NullSink()))))

    def live(self, host: LoopHost, send: Send, request: Request, finished: Callable[[Reply], Reply]) -> LiveCall:
        """Start the call, for its caller to follow."""
        return LiveCall(host, request, send, finished=finished)


_UNWATCHED = Unwatched()


class Watched:
    """One call and who watches it."""

    def __init__(self, watcher: Watcher, request: Request) -> None:
        self._watcher = watcher
        self._sink = watcher.sink_for(request)

    def hit(self, reply: Reply) -> Reply:
        """Show an answer that was found without a run; return it."""
        show(reply, self._sink)
        self._watcher.replied(reply)
        return reply

    def wait(self, host: LoopHost, send: Send, request: Request) -> Reply:
        """See Unwatched. FlowStopped when the watcher ended it."""
        job = Job(host, lambda: send(request, self._sink))
        self._hold(job)
        try:
            return waited(job)
        except Cancelled:
            raise FlowStopped from None

    async def run(self, host: LoopHost, send: Send, request: Request) -> Reply:
        """See Unwatched. Cancelled when the watcher ended it.

        On the host's own loop, too, the call is a job: whoever made it may be shielded from its own cancellation.
        """
        job = Job(host, lambda: send(request, self._sink))
        self._hold(job)
        return await awaited(job)

    def live(self, host: LoopHost, send: Send, request: Request, finished: Callable[[Reply], Reply]) -> LiveCall:
        """See Unwatched."""
        sink = self._sink
        return LiveCall(host, request, lambda call, queue: send(call, _Both(queue, sink)), finished=finished, begins=self._hold)

    def _hold(self, job: Job[Reply]) -> None:
        # Nothing here leads to the LiveCall: one that is dropped is to end at once.
        let_go = self._watcher.hold(job.cancel)
        job.done.then(lambda: self._over(job.done, let_go))

    def _over(self, done: Outcome[Reply], let_go: Callable[[], object]) -> None:
        let_go()
        try:
            reply = done.get()
        except Cancelled:
            return
        except Exception as exc:
            self._watcher.failed(exc)
        else:
            self._watcher.replied(reply)


class _Both:
    """Two sinks as one."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._first = first
        self._second = second

    def started(self, attempt: Attempt) -> None:
        self._first.started(attempt)
        self._second.started(attempt)

    def delta(self, delta: Delta) -> None:
        self._first.delta(delta)
        self._second.delta(delta)

    def restarted(self, reason: str) -> None:
        self._first.restarted(reason)
        self._second.restarted(reason)
