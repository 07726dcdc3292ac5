"""Errors of local model servers."""

from __future__ import annotations

from nbllm.errors.base import NbllmError


class EngineError(NbllmError):
    """A local model server."""


class EngineNotPossible(EngineError):
    """A launch that cannot work as asked: no such engine or option, no program, the port is taken. Nothing was started."""


class EngineDoesNotFit(EngineNotPossible):
    """The model and its cache need more memory than there is. Nothing was started."""


class EngineFailed(EngineError):
    """An engine that did not become ready. What was started is ended.

    reason: what it was, for code ("out_of_memory", "port_taken", "no_such_model" ... or "unknown"). exit_code: how the engine
    ended, None when it was still alive. log_tail: its last lines, secrets masked.
    """

    def __init__(
        self, message: str, *, reason: str = "unknown", exit_code: int | None = None, log_tail: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.exit_code = exit_code
        self.log_tail = log_tail


class EngineWedged(EngineFailed):
    """An engine that says it is healthy and completes nothing."""
