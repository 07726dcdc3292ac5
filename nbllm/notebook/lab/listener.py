"""One front end: its comm, what it has been sent, and how often it wants to hear."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbllm.core.messages import NOWHERE
from nbllm.flow_context import CELLS
from nbllm.notebook.lab.state import changes

if TYPE_CHECKING:
    from nbllm.notebook.lab.shapes import State

Send = Callable[[dict[str, Any]], object]
PATIENCE_S = 10.0
SILENCE_S = 60.0
"""After so long without a word, one that is to be sent something is asked for a sign of life."""
SLOW_S = 2.0
"""How often one is told that cannot give a sign, because its messages wait for the running cell."""
MOST_PENDING = 8
"""How many commands of one page may wait for a worker."""
BYTES_PER_S = 100_000
"""Jupyter's server cuts all output of a kernel that sends more than 1 MB a second, and several pages may listen."""
_ROW_BYTES = 450
FIRST_S = 1.0
"""How long a first snapshot waits at most for the ledger to be read."""


class Listener:
    """Messages are numbered and sent by one thread, in `tick`. What the handlers set here is one value each, read there.

    Nobody says goodbye when a page is reloaded. When another front end of the same notebook comes, those before it are doubted: a
    number is left out, which a living one notices and asks for. One that does not ask is sent nothing more, until it does. So it
    is with one that was silent for long: Jupyter's server keeps all that is sent to a page that is gone.
    """

    def __init__(self, send: Send, now_s: float) -> None:
        self.tag: str | None = None
        self.app = ""
        self.updates_per_s = 5.0
        self.greeted = False
        self.wants_snapshot = False
        self.doubted = False
        self.paused = False
        self.in_turn = False
        """Whether its messages come in turn with the cells, not beside them."""
        self._pending = 0
        self._lock = threading.Lock()
        self._heard = True
        self._heard_s = now_s
        self._send = send
        self._began_s = now_s
        self._seq = 0
        self._sent: State | None = None
        self._doubted_s: float | None = None
        self._due_s = 0.0

    @property
    def listens(self) -> bool:
        """Whether it is to be sent anything."""
        return self.greeted and not self.paused

    @property
    def due_s(self) -> float:
        """From when on it may be sent the next message."""
        return self._due_s

    def say(self, message: dict[str, Any]) -> None:
        """Send what has no number, from any thread: the result of a command."""
        self._send(message)

    def takes_on(self) -> bool:
        """Whether it may have one more command carried out by a worker; then it is counted until `is_through`."""
        with self._lock:
            takes = self._pending < MOST_PENDING
            self._pending += takes
        return takes

    def is_through(self) -> None:
        """One of them is done, or never will be."""
        with self._lock:
            self._pending -= 1

    def heard(self, *, in_turn: bool = False) -> None:
        """Something came from it: it lives. in_turn: on the thread that runs the cells."""
        self.in_turn, self._heard = in_turn, True
        self.doubted = self.paused = False

    def tick(self, state: State, now_s: float, facts: dict[str, Any], *, complete: bool) -> None:
        """Send what is new, if it is time. complete: the session was read from the ledger, or there is nothing to read."""
        if self._heard:
            self._heard, self._heard_s = False, now_s
        if now_s < self._due_s or not self.listens:
            return
        if self._sent is None or self.wants_snapshot:
            if not complete and now_s - self._began_s < FIRST_S:
                return
            self._snapshot(state, now_s, facts)
            return
        change = changes(self._sent, state)
        if change is None:
            self._snapshot(state, now_s, facts)
            return
        silent = bool(change) and now_s - self._heard_s > SILENCE_S
        # While a cell runs, its answer would only come after it.
        slow = silent and self.in_turn and CELLS.running is not NOWHERE
        if silent and not slow:
            self.doubted = True
        if self._doubts(now_s) or change:
            self._seq += 1
            self._say({"v": 1, "type": "delta", "seq": self._seq, "state": change}, now_s)
            self._sent = state
            if slow:
                self._due_s = max(self._due_s, now_s + SLOW_S)

    def _snapshot(self, state: State, now_s: float, facts: dict[str, Any]) -> None:
        self.wants_snapshot = False
        self._sent = state
        self._say(
            {"v": 1, "type": "snapshot", "seq": self._seq, "kernel": facts, "notebook": self.tag, "state": state},
            now_s,
        )

    def _doubts(self, now_s: float) -> bool:
        """Leave a number out, once a doubt; whether that is to be said now."""
        if not self.doubted:
            self._doubted_s = None
            return False
        if self._doubted_s is None:
            self._doubted_s = now_s
            self._seq += 1
            return True
        if now_s - self._doubted_s > PATIENCE_S:
            self.paused = True
        return False

    def _say(self, message: dict[str, Any], now_s: float) -> None:
        rows = len(message["state"].get("calls", ()))
        self._due_s = now_s + max(1 / self.updates_per_s, rows * _ROW_BYTES / BYTES_PER_S)
        self._send(message)
