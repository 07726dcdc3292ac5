"""Errors of calls that were on their way: what went wrong, and what the road does about it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from nbllm.errors.base import NbllmError
from nbllm.redaction import redact

if TYPE_CHECKING:
    from nbllm.core.messages import Partial


class Scope(Enum):
    """How far the blame for a failure reaches."""

    NOBODY = "nobody"
    MODEL = "model"
    ENDPOINT = "endpoint"


class Advice(NamedTuple):
    """What the road does about a failed attempt, as FAILURES of this kind ask for.

    retry: send the same request to the same rung again, if retries, deadline and budget allow.
    next_rung: let the ladder try the next rung.
    breaker: what the failure counts against.
    switch_off: what stays off until settings change (a wrong key stays wrong).
    """

    retry: bool
    next_rung: bool
    breaker: Scope
    switch_off: Scope


RETRY = Advice(retry=True, next_rung=True, breaker=Scope.MODEL, switch_off=Scope.NOBODY)
NEXT_RUNG = Advice(retry=False, next_rung=True, breaker=Scope.MODEL, switch_off=Scope.NOBODY)
NOT_ITS_FAULT = Advice(retry=False, next_rung=True, breaker=Scope.NOBODY, switch_off=Scope.NOBODY)
GIVE_UP = Advice(retry=False, next_rung=False, breaker=Scope.NOBODY, switch_off=Scope.NOBODY)


class CallFailed(NbllmError):
    """A call that ended without an answer.

    partial: what was received before it failed, or None. spent_usd: what the call cost all the same, None when unknown.
    call_id: the call's row in the ledger, "" when it has none.
    """

    def __init__(self, message: str, *, partial: Partial | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.partial = partial
        self.spent_usd: Decimal | None = None
        self.call_id = ""


class AttemptFailed(CallFailed):
    """One request to one endpoint went wrong.

    advice: what the road does about it; the class's own, unless this one failure calls for another. rung: the model id that was
    tried. status: the HTTP status, None without one. retry_after_s: how long the provider asks to wait, None when it does not say.
    earlier: failures of the tries before this one.
    """

    advice: Advice = RETRY

    def __init__(
        self,
        message: str,
        *,
        rung: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        partial: Partial | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, partial=partial, hint=hint)
        self.rung = rung
        self.status = status
        self.retry_after_s = retry_after_s
        self.earlier: tuple[AttemptFailed, ...] = ()


class ConnectionFailed(AttemptFailed):
    """Refused, reset before headers, DNS or TLS. `whole_endpoint`: no model behind that address can be reached."""

    def __init__(self, message: str, *, whole_endpoint: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.whole_endpoint = whole_endpoint


class ServerFailed(AttemptFailed):
    """The endpoint answered 5xx."""


class BadAnswer(AttemptFailed):
    """The endpoint answered 200 with something that is no answer: no JSON, no choices, nothing in it."""


class AnswerTooLarge(AttemptFailed):
    """More bytes than an answer may have. The connection was closed."""

    advice = NEXT_RUNG


class RateLimited(AttemptFailed):
    """429. Never counts on the breaker."""

    advice = Advice(retry=True, next_rung=True, breaker=Scope.NOBODY, switch_off=Scope.NOBODY)


class FirstTokenTimeout(AttemptFailed):
    """The stream did not begin within ttft_s. Retried only where no other rung remains."""


class AttemptTimeout(AttemptFailed):
    """The whole answer did not come within attempt_s or the rung's share of the deadline."""


class StreamInterrupted(AttemptFailed):
    """A stream that began and did not end (reset, no finish, stall, broken line, in-band error). `.partial` keeps what came."""


class AuthenticationFailed(AttemptFailed):
    """401, or no key. The key is off until settings change."""

    advice = Advice(retry=False, next_rung=True, breaker=Scope.NOBODY, switch_off=Scope.ENDPOINT)


class PermissionDenied(AttemptFailed):
    """403. The model is off until settings change."""

    advice = Advice(retry=False, next_rung=True, breaker=Scope.NOBODY, switch_off=Scope.MODEL)


class ModelNotFound(AttemptFailed):
    """404, or the endpoint says that it does not know the model."""

    advice = NOT_ITS_FAULT


class BadParameter(AttemptFailed):
    """400: the endpoint refuses a parameter. `.parameter` names it where the endpoint does, else None."""

    advice = GIVE_UP

    def __init__(self, message: str, *, parameter: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.parameter = None if parameter is None else redact(parameter)


class SchemaModeRefused(BadParameter):
    """The endpoint refuses response_format json_schema. It is remembered, and the request sent once more, schema in the prompt."""

    advice = NOT_ITS_FAULT


class ContextTooLong(AttemptFailed):
    """More tokens than the model's window. Only a rung with a larger window is tried."""

    advice = NOT_ITS_FAULT


class Refused(AttemptFailed):
    """A content filter refused. Not retried, not cached."""

    advice = GIVE_UP


class RedirectRefused(AttemptFailed):
    """The endpoint redirected. Redirects are never followed: they could carry a key to another host."""

    advice = NOT_ITS_FAULT


class BreakerOpen(AttemptFailed):
    """Not sent: this endpoint failed too often just now."""

    advice = NOT_ITS_FAULT


class ThrottleTimeout(AttemptFailed):
    """Not sent: the endpoint's limits (rpm, tpm, calls at once) leave no room before the deadline."""

    advice = NOT_ITS_FAULT


class Truncated(CallFailed):
    """The limit on tokens left no text at all (a reasoning model that only thought, say)."""


class ValidationFailed(CallFailed):
    """No answer passed the schema or check. `.text` is the last answer, `.problem` what was wrong with it."""

    def __init__(self, message: str, *, text: str, problem: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.problem = problem


class DeadlineExceeded(CallFailed):
    """The total deadline passed. `.partial` keeps what came."""


class AllRungsFailed(CallFailed, ExceptionGroup[Exception]):
    """Every rung failed. `.exceptions` holds each cause, in the order of the rungs."""

    # ExceptionGroup builds itself in __new__ from (message, exceptions); CallFailed needs the same message in __init__.
    def __new__(cls, message: str, exceptions: Sequence[Exception], *, hint: str = "") -> Self:  # noqa: ARG004, D102
        return super().__new__(cls, redact(message), exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception], *, hint: str = "") -> None:
        CallFailed.__init__(self, message, hint=hint)
        self.args = (self.summary, tuple(exceptions))

    def derive(self, excs: Sequence[Exception], /) -> AllRungsFailed:  # type: ignore[override]
        """Return a group of the same kind over other causes, as `except*` and `split` need it."""
        return AllRungsFailed(self.summary, excs, hint=self.hint)
