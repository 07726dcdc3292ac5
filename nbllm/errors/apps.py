"""Errors of exported apps that run below a notebook."""

from __future__ import annotations

from nbllm.errors.base import NbllmError


class AppError(NbllmError):
    """An exported app."""


class AppNotPossible(AppError):
    """A start that cannot work as asked: no such folder, not an exported app, the port is taken. Nothing was started."""


class AppFailed(AppError):
    """An app that did not become ready. What was started is ended.

    exit_code: how it ended, None when it was still alive. log_tail: its last lines, secrets masked.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, log_tail: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.log_tail = log_tail
