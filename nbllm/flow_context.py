"""Which flow the current code is part of: a context variable, read when a call is opened."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

FLOW: ContextVar[Mapping[str, Any] | None] = ContextVar("nbllm_flow", default=None)


def current_flow() -> Mapping[str, Any] | None:
    """Return {"name": ..., "run": ..., "arguments": ...} of the innermost flow, None outside of one."""
    return FLOW.get()
