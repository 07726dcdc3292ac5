"""KeyboardInterrupt at a chosen step of nbllm's own code in this thread, where Ctrl-C would really raise it.

CPython looks for signals when a function is entered, at the end of a loop's turn, and after a call of a C function
(CHECK_EVAL_BREAKER in its evaluation loop). Those places are found with an opcode trace; an interrupt anywhere else would be one
that no user can cause (before a `with` has released its lock, say).
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import nbllm

_PACKAGE = str(Path(nbllm.__file__).parent)
_CALLS = ("CALL", "CALL_FUNCTION_EX", "PRECALL", "CALL_KW")
_TURNS = ("RESUME", "JUMP_BACKWARD")


class Interrupt:
    """Counts the places where Ctrl-C may come while nbllm's code runs in this thread, and raises KeyboardInterrupt at one.

    Finalisers are left out: what is raised in `__del__` Python itself ignores.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.where = ""
        self._before: dict[int, str] = {}
        """Frame (by its id) -> what it ran last; "" after a call that was one of a Python function."""
        self._codes: dict[CodeType, bytes] = {}

    def run(self, work: Callable[[], object]) -> bool:
        """Do the work under the trace; whether it was interrupted."""
        outer = sys.gettrace()
        sys.settrace(self._entered)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(outer)
        return False

    def _entered(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        if frame.f_back is not None:
            self._before[id(frame.f_back)] = ""
        if not frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_name == "__del__":
            return None
        self._before[id(frame)] = ""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event != "opcode":
            return self._step
        code = frame.f_code
        if code not in self._codes:
            self._codes[code] = code.co_code
        now = dis.opname[self._codes[code][frame.f_lasti]]
        before = self._before.get(id(frame), "")
        self._before[id(frame)] = now
        if before in _TURNS or (before in _CALLS and now not in _CALLS):
            self.count += 1
            if self.count == self.at:
                self.where = f"{Path(code.co_filename).relative_to(_PACKAGE)}:{frame.f_lineno} {code.co_name}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._step
