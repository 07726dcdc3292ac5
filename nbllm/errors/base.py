"""The base of all errors, the warning, and the errors that belong to no call."""

from __future__ import annotations

from typing import Any

from nbllm.redaction import redact


class NbllmError(Exception):
    """Base of all errors of nbllm. Messages are redacted: no secret passes through one.

    `summary` says what happened, to which value; `hint` says what to do next and is shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.summary = redact(message)
        self.hint = redact(hint)
        super().__init__(self.summary)

    def __str__(self) -> str:
        """Return what happened and, on a line of its own, what to do next."""
        return f"{self.summary}\n{self.hint}" if self.hint else self.summary

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors be copied and sent between processes, whatever their constructors take."""
        return _rebuilt, (type(self), self.args, self.__dict__ | {"__cause__": self.__cause__})


def _rebuilt(kind: type[NbllmError], args: tuple[Any, ...], state: dict[str, Any]) -> NbllmError:
    error = kind.__new__(kind, *args)
    error.args = args
    cause = state.pop("__cause__", None)
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def drop_frames(error: BaseException) -> None:
    """Take the tracebacks off an error of ours and what it came from; another error, which is a bug, keeps its own.

    Frames hold variables, such as the headers of a request and what a server sent, and verbose tracebacks print them.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error] if isinstance(error, NbllmError) else []
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            todo += [one.__cause__, one.__context__]


class NbllmWarning(UserWarning):
    """Something a person should know about a call that went on: a soft budget passed, a disk that fails, a model that was found."""


class StorageError(NbllmError):
    """What lasts could not be read or written."""


class UnusableVector(NbllmError, ValueError):
    """An embedding that cannot be compared: zeros, numbers that are not finite, or another dimension than before."""


class SloViolated(NbllmError, AssertionError):
    """Measured percentiles or error rates are over what was promised; the message holds the numbers."""
