"""What every stage is, and the few things that all of them share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from random import random
from typing import Protocol

from nbllm.core.messages import Call, Request, Rung, Sink
from nbllm.core.ports import Written
from nbllm.core.reply import Reply
from nbllm.errors import StorageError


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


async def committed(written: Written, call: Call, *, at_most_s: float = 1.0) -> None:
    """Wait until a ledger row is committed, never longer than at_most_s; trouble with the disk is a note, not a failure."""
    if written is None:
        return
    try:
        await asyncio.wait_for(asyncio.wrap_future(written), at_most_s)
    except TimeoutError:
        call.note("The ledger is locked by another program; this call's row will be written when it is free.")
    except StorageError as exc:
        call.note(exc.summary)


def settle_now(written: Written, *, at_most_s: float = 1.0) -> None:
    """The same for a caller's own thread: wait for a row that a writer thread commits."""
    if isinstance(written, Future):
        try:
            written.result(at_most_s)
        except (TimeoutError, StorageError):
            return
