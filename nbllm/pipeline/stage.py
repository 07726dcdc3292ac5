"""What every stage is, and the few things that all of them share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from random import random
from types import coroutine
from typing import Any, Protocol, TypeVar

from nbllm.core.accumulator import fragments_of
from nbllm.core.messages import Call, Delta, Request, Rung, Sink
from nbllm.core.ports import Written
from nbllm.core.reply import Reply
from nbllm.errors import NbllmError, StorageError, UnknownModel

Row = TypeVar("Row")
T = TypeVar("T")
SETTLE_S = 0.05
"""How long a hit waits at most for its row, where the ledger is locked: an answer that is there is not held back for it."""


class Stage(Protocol):
    """One stage of the road. The answer is the return value, failure is an exception, the sink is a side channel."""

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Take the request on, and its answer back."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The only places where stages get time and chance from, so that tests can hold them still."""

    now_s: Callable[[], float] = time.monotonic
    """Monotonic seconds; the loop's own clock."""
    epoch_s: Callable[[], float] = time.time
    """Unix time in seconds."""
    jitter: Callable[[], float] = field(default=random)
    """Uniform in [0, 1)."""


def call_of(request: Request) -> Call:
    """Return the request's open call; every stage below record has one."""
    assert request.call is not None, "record opens the call before anything else happens"  # noqa: S101 - a broken road, not bad input
    return request.call


def rung_of(request: Request) -> Rung:
    """Return the rung that the ladder chose; every stage below it has one."""
    assert request.rung is not None, "ladder chooses the rung"  # noqa: S101 - a broken road, not bad input
    return request.rung


def known_rungs(models: Iterable[str], rung_of: Callable[[str], Rung], call: Call) -> list[Rung]:
    """Return the rungs of the models that somebody answers to; others are left out, and it is said. Raises where none is left."""
    rungs: list[Rung] = []
    unknown: UnknownModel | None = None
    for model in models:
        try:
            rungs.append(rung_of(model))
        except UnknownModel as exc:
            unknown = exc
            call.note(f"{exc.summary} The route went on without it.")
    if not rungs and unknown is not None:
        raise unknown
    return rungs


def patience_s(call: Call, clock: Clock, *, at_most_s: float = 1.0, part: float = 0.5) -> float:
    """Return how many seconds a slow disk may hold this call up just now: at_most_s, but only that part of what is left to it.

    So an answer that came in time is still in time when several disks are slow, one after the other.
    """
    left_s = (call.deadline_at_s - clock.now_s()) * part
    if left_s >= at_most_s:
        return at_most_s
    return max(0.0, left_s)


def written(write: Callable[[Row], Written], row: Row, call: Call) -> Written:
    """Hand a row to the ledger. Trouble with the disk is a note: it must not cost the caller an answer that is paid for."""
    try:
        return write(row)
    except NbllmError as exc:
        call.note(exc.summary)
        return None


async def committed(row: Written, call: Call, *, at_most_s: float) -> None:
    """Wait until a ledger row is committed, never longer than at_most_s; trouble with the disk is a note, not a failure."""
    if isinstance(row, asyncio.Future) and (at_most_s > 0 or row.done()):
        row = await row  # the loop's next turn
    if row is None or isinstance(row, asyncio.Future):
        return
    # Not wait_for: it can swallow a cancellation that comes together with the result.
    waiting = asyncio.wrap_future(row)
    waiting.add_done_callback(looked_at)
    await asyncio.wait([waiting], timeout=at_most_s)
    if not waiting.done():
        call.note("The ledger is locked by another program; this call's row will be written when it is free.")
    elif not waiting.cancelled() and (exc := waiting.exception()) is not None:
        call.note(exc.summary if isinstance(exc, NbllmError) else f"The ledger could not be written ({type(exc).__name__}).")


def looked_at(done: asyncio.Future[Any]) -> None:
    """Look at the error of a future that perhaps nobody waits for any more, so that asyncio does not complain that none did."""
    if not done.cancelled():
        done.exception()


async def within(at_most_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` does, and raise TimeoutError after at_most_s seconds; what is done at once needs no timer.

    Nor does what is done in the loop's next turn, as writes of a crowd are: a timer costs more than the turn.
    """
    try:
        waits_for = work.send(None)
        try:
            await asyncio.sleep(0)
        except BaseException as exc:
            waits_for = work.throw(exc)
        else:
            if waits_for is None or waits_for.done():
                waits_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(at_most_s):
        return await _gone_on(work, waits_for)


@coroutine
def _gone_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has begun and waits for something."""
    while True:
        try:
            try:
                sent = yield waits_for
            except BaseException as exc:
                waits_for = work.throw(exc)
            else:
                waits_for = work.send(sent)
        except StopIteration as done:
            result: T = done.value
            return result


def settle_now(row: Written, *, at_most_s: float = SETTLE_S) -> None:
    """The same for a caller's own thread: wait for a row that a writer thread commits."""
    if isinstance(row, Future):
        try:
            row.result(at_most_s)
        except (TimeoutError, StorageError):
            return


def show(reply: Reply, sink: Sink) -> None:
    """Let a watcher see an answer, or the rest of one, that comes in one piece."""
    if reply.text or reply.reasoning:
        sink.delta(Delta(text=reply.text, reasoning=reply.reasoning))
    show_tool_calls(reply.message.get("tool_calls") or (), sink)


def show_tool_calls(calls: Iterable[Mapping[str, Any]], sink: Sink) -> None:
    """Let a watcher see tool calls in OpenAI's shape, each as one fragment."""
    for fragment in fragments_of(calls):
        sink.delta(Delta(tool_call=fragment))
