"""Which flow the current code is part of: a context variable, read when a call is opened."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any
from uuid import uuid4

_MOST_LEVELS = 20
_MOST_ITEMS = 10_000


class Flow:
    """One run of a flow. Its arguments are turned into plain values only when a recording wants them."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._name = name
        self._arguments = arguments
        self._run = uuid4().hex[:12]

    @cached_property
    def shown(self) -> Mapping[str, Any]:
        """The flow as recordings keep it: name, run (an id that all its calls share) and arguments."""
        return {"name": self._name, "run": self._run, "arguments": {k: plain(v) for k, v in self._arguments.items()}}


FLOW: ContextVar[Flow | None] = ContextVar("nbllm_flow", default=None)


def current_flow() -> Mapping[str, Any] | None:
    """Return {"name": ..., "run": ..., "arguments": ...} of the innermost flow, None outside of one."""
    flow = FLOW.get()
    return None if flow is None else flow.shown


def plain(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return a value as JSON would hold it; what is none of JSON's types, too deep or too long as its repr, cut."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if levels and isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        return {str(k): plain(v, levels - 1) for k, v in value.items()}
    if levels and isinstance(value, (list, tuple)) and len(value) <= _MOST_ITEMS:
        return [plain(v, levels - 1) for v in value]
    if isinstance(value, (Mapping, list, tuple)):
        return f"<{type(value).__name__} of {len(value)}>"
    try:
        return repr(value)[:1000]
    except Exception:  # a user's __repr__; a recording is not worth a flow
        return f"<{type(value).__name__}>"
