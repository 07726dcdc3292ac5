"""A value that many ask for and one works out. Who would wait for itself is told so: no crowd of askers can lock itself up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from nbllm.errors import InvalidRequest

T = TypeVar("T")

_WORKED_OUT: ContextVar[Once[Any] | None] = ContextVar("nbllm_worked_out", default=None)
"""The value that the current code works out; None for no value. Threads that a copied context runs in work for it too."""
_waiting = threading.Lock()
"""Held while it is looked at and changed who waits for whom: two that begin to wait for each other are seen by the second."""


class Once(Generic[T]):
    """One value, worked out by the first who asks; others wait for it. name: what messages call it.

    A run that raises is not kept: who asks next works it out again.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._name = name
        self._lock = threading.Lock()
        self._value: list[T] = []
        self.waits_for: list[Once[Any]] = []
        """What its code asked for and has not got: as often as it did, since several of its threads may ask for one."""

    def get(self) -> T:
        """Return the value. Raises InvalidRequest where the value is needed to work out the value itself."""
        if self._value:
            return self._value[0]
        asks = _WORKED_OUT.get()
        if asks is None:
            return self._worked_out()
        with _waiting:
            if self._needs(asks):
                raise InvalidRequest(
                    f"{self._name}() needs its own answer to be worked out, so it would wait for itself for ever.",
                    hint="Let it ask with the answer of another function, or of a %%llm cell with another name.",
                )
            asks.waits_for.append(self)
        try:
            return self._worked_out()
        finally:
            with _waiting:
                asks.waits_for.remove(self)

    def _worked_out(self) -> T:
        with self._lock:
            if not self._value:
                token = _WORKED_OUT.set(self)
                try:
                    self._value.append(self._work())
                finally:
                    _WORKED_OUT.reset(token)
            return self._value[0]

    def _needs(self, other: Once[Any]) -> bool:
        """Whether this one cannot end before the other does."""
        seen: set[int] = set()
        todo: list[Once[Any]] = [self]
        while todo:
            one = todo.pop()
            if one is other:
                return True
            if id(one) not in seen:
                seen.add(id(one))
                todo += one.waits_for
        return False
