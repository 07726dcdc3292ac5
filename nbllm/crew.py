"""Threads for users' code: started when there is work, gone when there is none, and never in the way of the interpreter's exit.

The standard library's ThreadPoolExecutor keeps its threads until it is shut down, and at exit waits for whatever they still do: a
check function that hangs would keep Python from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
LINGER_S = 1.0


class _Work(NamedTuple):
    future: Future[Any]
    call: Callable[[], Any]


class Crew(Executor):
    """At most `size` daemon threads; each ends after LINGER_S without work."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._line: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have it called on a thread. RuntimeError after shutdown."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("No work is taken after shutdown.")
            self._line.put(_Work(future, lambda: fn(*args, **kwargs)))
            if self._line.qsize() > self._idle and len(self._threads) < self._size:
                thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. wait: until what was taken is done. cancel_futures: what has not begun is cancelled."""
        with self._lock:
            self._closed = True
            threads = tuple(self._threads)
            while cancel_futures and (work := self._next(0)) is not None:
                work.future.cancel()
            for _ in threads:
                self._line.put(None)
        if wait:
            for thread in threads:
                thread.join()

    def _next(self, at_most_s: float) -> _Work | None:
        try:
            return self._line.get(timeout=at_most_s)
        except Empty:
            return None

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            work = self._next(LINGER_S)
            with self._lock:
                self._idle -= 1
                # Under the lock, or work that was put in just now would find nobody.
                if work is None and (self._closed or self._line.empty()):
                    self._threads.discard(threading.current_thread())
                    return
            if work is not None:
                _do(work)
                del work


def _do(work: _Work) -> None:
    if not work.future.set_running_or_notify_cancel():
        return
    try:
        result = work.call()
    except BaseException as exc:  # it is the caller's, who waits for it
        work.future.set_exception(exc)
    else:
        work.future.set_result(result)
