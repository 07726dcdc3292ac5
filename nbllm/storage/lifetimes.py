"""What has to be done to open files when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

FORK_WAIT_S = 1.0
"""How long a fork waits for what is under way in one file."""
EXIT_WAIT_S = 2.0


class Lock(Protocol):
    """A lock of threading."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False when that took longer than `timeout` seconds."""

    def release(self) -> None:
        """Let go of it."""


class Lasting(Protocol):
    """Something that lives as long as the process, if nobody closes it."""

    def locks(self) -> Sequence[Lock]:
        """Return the locks under which something may be under way, in the order in which they are taken."""

    def begin_anew_in_child(self) -> None:
        """In a forked child: hold nothing, for all of it is the parent's."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was queued is committed."""


class _Held(threading.local):
    """The locks that this thread's fork has taken. Two threads may fork at once."""

    def __init__(self) -> None:
        self.releases: list[Callable[[], None]] = []


_lasting: weakref.WeakSet[Lasting] = weakref.WeakSet()
_held = _Held()


def remember(lasting: Lasting) -> None:
    """See to it at forks and at the end of the process, for as long as somebody else holds it."""
    _lasting.add(lasting)


def _before_fork() -> None:
    """Let nothing be under way: SQLite's notes of who holds a lock are copied, and in the child nobody would let go of it."""
    for lasting in list(_lasting):
        for lock in lasting.locks():
            if lock.acquire(timeout=FORK_WAIT_S):
                _held.releases.append(lock.release)


def _after_fork_in_parent() -> None:
    while _held.releases:
        _held.releases.pop()()


def _after_fork_in_child() -> None:
    _held.releases.clear()
    for lasting in list(_lasting):
        lasting.begin_anew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _flush_all() -> None:
    """Commit what waits before the interpreter ends its daemon threads."""
    for lasting in list(_lasting):
        lasting.flush(EXIT_WAIT_S)
