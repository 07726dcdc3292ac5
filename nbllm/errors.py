"""Every error that nbllm raises on purpose.

NbllmError
 +-- ConfigurationError          settings, endpoints or models that cannot work; nothing was sent
 |    +-- SettingsFileError        a settings file that cannot be read or has a typo (names file and line)
 |    +-- UnknownModel             no endpoint or provider answers to that model id
 |    +-- KeyNotAllowed            a provider's key would have gone to a host that is not the provider's
 |    +-- HomeUnusable             NBLLM_HOME cannot be written, belongs to somebody else, or is a link
 +-- InvalidRequest (ValueError)  a request that makes no sense; nothing was sent
 |    +-- TemplateError            undefined name or syntax error in a prompt template
 |    +-- SchemaError              `schema=` is no schema
 +-- BudgetError                  money
 |    +-- BudgetExceeded           the attempt's worst case does not fit; nothing was sent
 |    +-- BudgetUnavailable        a hard budget that is shared could not be checked; nothing was sent
 |    +-- UnpricedModel            a hard budget is set and the model's price is unknown; nothing was sent
 +-- CallFailed                   a call that ended without an answer
 |    +-- AttemptFailed            one request to one endpoint went wrong (`AttemptFailed.advice` says what then)
 |    |    +-- ConnectionFailed      refused, reset, DNS, TLS
 |    |    +-- ServerFailed          5xx
 |    |    +-- BadAnswer             no JSON, no choices, nothing in it, no finish
 |    |    +-- AnswerTooLarge        more bytes than an answer may have
 |    |    +-- RateLimited           429
 |    |    +-- FirstTokenTimeout     a stream that did not begin in time
 |    |    +-- AttemptTimeout        a whole answer that did not come within the rung's share of the deadline
 |    |    +-- StreamInterrupted     a stream that began and did not end; `.partial` keeps what came
 |    |    +-- AuthenticationFailed  401, or no key
 |    |    +-- PermissionDenied      403
 |    |    +-- ModelNotFound         404, or the endpoint does not know the model
 |    |    +-- BadParameter          400; `.parameter` names it where the provider does
 |    |    |    +-- SchemaModeRefused   response_format json_schema is refused; it goes into the prompt from now on
 |    |    +-- ContextTooLong        more tokens than the model's window
 |    |    +-- Refused               a content filter
 |    |    +-- RedirectRefused       3xx; never followed
 |    |    +-- BreakerOpen           not sent: the endpoint failed too often just now
 |    |    +-- ThrottleTimeout       not sent: the endpoint's own limits leave no room before the deadline
 |    +-- Truncated                the limit on tokens left no text at all
 |    +-- ValidationFailed         no answer passed the schema or check, repairs included
 |    +-- DeadlineExceeded         the total deadline passed; `.partial` keeps what came
 |    +-- AllRungsFailed           every rung failed; an ExceptionGroup with each cause
 +-- StorageError                 what lasts could not be read or written
 +-- SloViolated (AssertionError) measured percentiles or error rates are over what was promised
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

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


class NbllmWarning(UserWarning):
    """Something a person should know about a call that went on: a soft budget passed, a disk that fails, a model that was found."""


class ConfigurationError(NbllmError):
    """Settings, endpoints or models that cannot work. Nothing was sent."""


class SettingsFileError(ConfigurationError):
    """A settings file that cannot be read; `path` and `line` (1-based, None when unknown) say where."""

    def __init__(self, message: str, *, path: str, line: int | None = None, hint: str = "") -> None:
        self.path = path
        self.line = line
        where = f"{path}, line {line}" if line else path
        super().__init__(f"{where}: {message}", hint=hint)


class UnknownModel(ConfigurationError):
    """No endpoint or provider answers to that model id."""


class KeyNotAllowed(ConfigurationError):
    """A provider's key would have gone to a host that is not the provider's. It was not sent."""


class HomeUnusable(ConfigurationError):
    """NBLLM_HOME cannot be written, belongs to somebody else, or is a symbolic link."""


class InvalidRequest(NbllmError, ValueError):
    """A request that makes no sense. Nothing was sent."""


class TemplateError(InvalidRequest):
    """An undefined name or a syntax error in a prompt template. Nothing was sent."""


class SchemaError(InvalidRequest):
    """`schema=` is no schema that nbllm can turn into JSON Schema."""


class BudgetError(NbllmError):
    """Money: nothing was sent."""


class BudgetExceeded(BudgetError):
    """The worst case of an attempt does not fit into a hard budget.

    scope: the budget that refused, such as "session" or "feature:summaries".
    limit_usd, spent_usd, reserved_usd: its state; needed_usd: the attempt's worst case.
    """

    def __init__(
        self,
        *,
        scope: str,
        limit_usd: Decimal,
        spent_usd: Decimal,
        reserved_usd: Decimal,
        needed_usd: Decimal,
        hint: str = "",
    ) -> None:
        self.scope = scope
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.reserved_usd = reserved_usd
        self.needed_usd = needed_usd
        named = scope_named(scope)
        held = f" and {_usd(reserved_usd)} is reserved by calls in flight" if reserved_usd else ""
        super().__init__(
            f"The {named} budget of {_usd(limit_usd)} has {_usd(spent_usd)} spent{held}; this attempt could cost "
            f"up to {_usd(needed_usd)}. Nothing was sent.",
            hint=hint or _to_do(named, spent_usd + reserved_usd >= limit_usd),
        )


def _to_do(named: str, spent: bool) -> str:
    if spent:
        return f"It is used up: raise it (%llm_budget {named} AMOUNT)."
    return (
        f"Raise it (%llm_budget {named} AMOUNT), lower --max-tokens, or use a cheaper model. "
        "What it could cost is the worst case: without --max-tokens the longest answer that the model can give."
    )


def scope_named(scope: str) -> str:
    """Return a budget's scope as people call it.

    The ids of requests, sessions and days are ours; the names of features and users are the user's and tell them something.
    """
    kind, _, name = scope.partition(":")
    return f"{kind} {name}" if kind in {"feature", "user"} else kind


def _usd(amount: Decimal) -> str:
    """Return an amount with cents, and with as many digits more as a small one needs to be told from nothing."""
    if amount == 0 or amount >= 1:
        return f"${amount:.2f}"
    return f"${amount:.{max(2, 1 - amount.adjusted())}f}"


class BudgetUnavailable(BudgetError):
    """A hard budget that is shared could not be checked. Nothing was sent."""


class UnpricedModel(BudgetError):
    """A hard budget is set and the model's price is unknown. Nothing was sent."""


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
        self.parameter = parameter


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


class StorageError(NbllmError):
    """What lasts could not be read or written."""


class SloViolated(NbllmError, AssertionError):
    """Measured percentiles or error rates are over what was promised; the message holds the numbers."""
