"""Threads that a flow starts belong to it: what they ask is recorded with it, and paid for by whom it runs for.

Python gives a thread a context of its own, an empty one (the docs of `contextvars`; from 3.14 it can inherit one). A flow that asks
five questions on a ThreadPoolExecutor would have asked none, and a service's caller would pay for none. So Thread.start and
ThreadPoolExecutor.submit carry the context along where they are called inside a flow, and do what they always do elsewhere. Other
pools that outlive a run (multiprocessing.pool.ThreadPool, queues) keep the context in which their threads were started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

from nbllm.flow_context import CALLER, FLOW

_OWN = "nbllm-"
"""What the names of our own threads begin with: they serve whoever comes."""
_followed = False
_lock = threading.Lock()


def follow_threads() -> None:
    """Have the threads of flows carry their context, from here on. Doing so twice is fine."""
    global _followed  # noqa: PLW0603 - what it changes is the process's, too
    if _followed:
        return
    with _lock:
        if not _followed:
            _wrap_start()
            _wrap_submit()
            _followed = True


def _in_a_flow() -> bool:
    return FLOW.get() is not None or CALLER.get() is not None


def _wrap_start() -> None:
    start = threading.Thread.start

    def started(self: threading.Thread) -> None:
        if _in_a_flow() and not self.name.startswith(_OWN):
            _carry(self)
        start(self)

    threading.Thread.start = started  # type: ignore[method-assign]


def _carry(thread: threading.Thread) -> None:
    """Have a thread run in this context, and let go of it in the end."""
    run, context = thread.run, copy_context()

    def run_here() -> None:
        try:
            context.run(run)
        finally:
            del thread.run  # a thread that is over is kept by whoever asks how it ended

    thread.run = run_here  # type: ignore[method-assign]


def _wrap_submit() -> None:
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    def submitted(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not _in_a_flow():
            return submit(self, fn, *args, **kwargs)
        # The pool may start a thread for it, which others use afterwards: that one is to know of no flow.
        return Context().run(submit, self, copy_context().run, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = submitted  # type: ignore[method-assign,assignment]
