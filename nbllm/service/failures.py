"""What a log says of an error: its kind, numbers, and where it happened.

What an error says may hold what callers sent, models wrote or providers repeat of it: a check that names the text it refused, a
value that is no number, a provider's 400 with half of the prompt. So it is logged only where log_prompts lets texts into the log.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path

import nbllm
from nbllm import errors
from nbllm.redaction import redact
from nbllm.service.problems import Problem, ServiceProblem

_log = logging.getLogger("nbllm.service")
_FRAMES = 5
_WAY = 15
_MOST_CAUSES = 8
_OURS = str(Path(nbllm.__file__).parent) + os.sep
_OF_THE_SERVICE = (
    errors.ConfigurationError,
    errors.StorageError,
    errors.BudgetError,
    errors.ConnectionFailed,
    errors.FirstTokenTimeout,
    errors.AttemptTimeout,
    errors.BreakerOpen,
    errors.ThrottleTimeout,
)
"""What these say is made of names, addresses and numbers of the service's own."""


def described(error: BaseException, *, say_why: bool = False) -> str:
    """Return an error of a call in a line. say_why: with all that it says, redacted."""
    kind = type(error).__name__
    if say_why or isinstance(error, _OF_THE_SERVICE):
        return f"{kind}: {redact(str(getattr(error, 'summary', error)))}"
    if isinstance(error, errors.AllRungsFailed):
        causes = [described(cause) for cause in error.exceptions[:_MOST_CAUSES]]
        return f"{kind} ({'; '.join(causes)})"
    if isinstance(error, errors.ValidationFailed):
        return f"{kind}: an answer of {len(error.text)} characters, {len(error.problem)} on what was wrong with it"
    if isinstance(error, errors.AttemptFailed):
        status = f", status {error.status}" if error.status else ""
        return f"{kind} of {error.rung or '?'}{status}"
    return kind


def place_of(error: BaseException) -> str:
    """Return where an error of a flow was raised, the innermost function first; of nbllm's own functions only that one."""
    found = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in found[:-1] if not frame.filename.startswith(_OURS)]
    return _way([*theirs[1 - _FRAMES :], *found[-1:]])


def _way(frames: Sequence[traceback.FrameSummary]) -> str:
    return " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))


def log_failure(request_id: str, error: Exception, problem: Problem, *, say_why: bool) -> None:
    """Log why a request, or a job, failed, where who asked is not told: its kind and place, for a bug the way it took.

    A ServiceProblem is logged by who raises it.
    """
    if problem.status < 500 or isinstance(error, ServiceProblem):
        return
    if problem.type != "internal":
        _log.error("Request %s failed: %s", request_id, described(error, say_why=say_why))
    elif say_why:
        _log.error("Request %s failed.", request_id, exc_info=error)
    else:
        _log.error("Request %s failed: %s", request_id, way_of(error))


def way_of(error: BaseException) -> str:
    """Return an error, and what it came from, as kinds and places: a traceback without what was said."""
    ways = ((type(one).__name__, traceback.extract_tb(one.__traceback__)[-_WAY:]) for one in _chain(error))
    return "; from ".join(f"{kind} in {_way(frames)}" for kind, frames in ways)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found and len(found) < _MOST_CAUSES:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found
