"""Every error that nbllm raises on purpose.

NbllmError
 +-- ConfigurationError          settings, endpoints or models that cannot work; nothing was sent
 |    +-- SettingsFileError        a settings file that cannot be read or has a typo (names file and line)
 |    +-- UnknownModel             no endpoint or provider answers to that model id
 |    +-- KeyNotAllowed            a key would have gone to a host that it is not for
 |    +-- FlowsNotServable         flows that no service can have; `.faults` has each reason
 |    +-- HomeUnusable             NBLLM_HOME cannot be written, belongs to somebody else, or is a link
 |    +-- InvalidPlan              a calibrated plan that cannot be read, or contradicts itself
 +-- InvalidRequest (ValueError)  a request that makes no sense; nothing was sent
 |    +-- UnusableText             an empty prompt, or a text with NUL or half of a surrogate pair
 |    +-- TemplateError            undefined name or syntax error in a prompt template
 |    +-- SchemaError              `schema=` is no schema
 |    +-- InvalidLabels            scores, labels or rates that nothing can be calibrated on
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
 +-- EngineError                  local model servers
 |    +-- EngineNotPossible        no such engine, option or program, or the port is taken; nothing was started
 |    |    +-- EngineDoesNotFit      model and cache need more memory than there is; nothing was started
 |    +-- EngineFailed             did not become ready; `.reason`, `.log_tail`; what was started is ended
 |    |    +-- EngineWedged          says that it is healthy and completes nothing
 +-- AppError                     exported apps that run below a notebook
 |    +-- AppNotPossible           no such app, or the port is taken; nothing was started
 |    +-- AppFailed                did not become ready; `.log_tail`; what was started is ended
 +-- StorageError                 what lasts could not be read or written
 +-- UnusableVector (ValueError)  an embedding that cannot be compared: zeros, not finite, another dimension than before
 +-- SloViolated (AssertionError) measured percentiles or error rates are over what was promised
"""

from __future__ import annotations

from nbllm.errors.apps import AppError, AppFailed, AppNotPossible
from nbllm.errors.base import (
    NbllmError,
    NbllmWarning,
    SloViolated,
    StorageError,
    UnusableVector,
    drop_frames,
)
from nbllm.errors.calls import (
    GIVE_UP,
    NEXT_RUNG,
    NOT_ITS_FAULT,
    RETRY,
    Advice,
    AllRungsFailed,
    AnswerTooLarge,
    AttemptFailed,
    AttemptTimeout,
    AuthenticationFailed,
    BadAnswer,
    BadParameter,
    BreakerOpen,
    CallFailed,
    ConnectionFailed,
    ContextTooLong,
    DeadlineExceeded,
    FirstTokenTimeout,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RedirectRefused,
    Refused,
    SchemaModeRefused,
    Scope,
    ServerFailed,
    StreamInterrupted,
    ThrottleTimeout,
    Truncated,
    ValidationFailed,
)
from nbllm.errors.engines import EngineDoesNotFit, EngineError, EngineFailed, EngineNotPossible, EngineWedged
from nbllm.errors.unsent import (
    BudgetError,
    BudgetExceeded,
    BudgetUnavailable,
    ConfigurationError,
    FlowsNotServable,
    HomeUnusable,
    InvalidLabels,
    InvalidPlan,
    InvalidRequest,
    KeyNotAllowed,
    SchemaError,
    SettingsFileError,
    TemplateError,
    UnknownModel,
    UnpricedModel,
    UnusableText,
    scope_named,
)

__all__ = [
    "GIVE_UP",
    "NEXT_RUNG",
    "NOT_ITS_FAULT",
    "RETRY",
    "Advice",
    "AllRungsFailed",
    "AnswerTooLarge",
    "AppError",
    "AppFailed",
    "AppNotPossible",
    "AttemptFailed",
    "AttemptTimeout",
    "AuthenticationFailed",
    "BadAnswer",
    "BadParameter",
    "BreakerOpen",
    "BudgetError",
    "BudgetExceeded",
    "BudgetUnavailable",
    "CallFailed",
    "ConfigurationError",
    "ConnectionFailed",
    "ContextTooLong",
    "DeadlineExceeded",
    "EngineDoesNotFit",
    "EngineError",
    "EngineFailed",
    "EngineNotPossible",
    "EngineWedged",
    "FirstTokenTimeout",
    "FlowsNotServable",
    "HomeUnusable",
    "InvalidLabels",
    "InvalidPlan",
    "InvalidRequest",
    "KeyNotAllowed",
    "ModelNotFound",
    "NbllmError",
    "NbllmWarning",
    "PermissionDenied",
    "RateLimited",
    "RedirectRefused",
    "Refused",
    "SchemaError",
    "SchemaModeRefused",
    "Scope",
    "ServerFailed",
    "SettingsFileError",
    "SloViolated",
    "StorageError",
    "StreamInterrupted",
    "TemplateError",
    "ThrottleTimeout",
    "Truncated",
    "UnknownModel",
    "UnpricedModel",
    "UnusableText",
    "UnusableVector",
    "ValidationFailed",
    "drop_frames",
    "scope_named",
]

for _name in __all__:
    _value = globals()[_name]
    if isinstance(_value, type):
        _value.__module__ = __name__  # tracebacks and pickles name errors as people import them
