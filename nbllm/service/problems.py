"""From any exception to what a caller is told: problem+json (RFC 9457), and the shape of OpenAI's errors on /v1.

A message that is not ours to show (an exception of a flow, a bug) never reaches a caller: it is logged with the request's id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nbllm import errors
from nbllm.redaction import redact_json

TYPE_PREFIX = "urn:nbllm:problem:"
_UNKNOWN = "The service could not answer because of an error of its own."


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong, for the caller.

    type: a short name of the kind. retry_after_s: when to ask again, None: that does not help, or is not known. parameter: what
    of the request was wrong. more: further members of the body. headers: further headers of the response.
    """

    status: int
    type: str
    title: str
    detail: str = ""
    retry_after_s: float | None = None
    parameter: str | None = None
    more: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None


class ServiceProblem(errors.NbllmError):
    """Ends a request with a Problem."""

    def __init__(self, status: int, kind: str, title: str, detail: str = "", **rest: Any) -> None:
        super().__init__(f"{title} {detail}".strip())
        self.problem = Problem(status=status, type=kind, title=title, detail=detail, **rest)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one kind of error is told. own: whether its summary is for the caller's eyes."""

    error: type[BaseException]
    status: int
    type: str
    title: str
    retry_after_s: float | None = None
    own: bool = True


_TABLE = (
    _Rule(errors.BudgetUnavailable, 503, "budget-unavailable", "The budget cannot be checked just now.", 5.0, own=False),
    _Rule(errors.UnpricedModel, 500, "unpriced-model", "A model has no price, and the budget cannot hold without."),
    _Rule(errors.UnknownModel, 404, "model-not-found", "There is no such model here."),
    _Rule(errors.ConfigurationError, 500, "configuration", "The service is not configured well.", own=False),
    _Rule(errors.InvalidRequest, 400, "invalid-request", "The request makes no sense."),
    _Rule(errors.RateLimited, 503, "upstream-rate-limited", "The model's provider is asked too much just now.", 5.0),
    _Rule(errors.ThrottleTimeout, 503, "upstream-busy", "The model's own limits leave no room just now.", 5.0),
    _Rule(errors.BreakerOpen, 503, "upstream-resting", "The model failed too often just now and rests.", 15.0),
    _Rule(errors.ContextTooLong, 400, "context-length-exceeded", "The request is longer than the model's window."),
    _Rule(errors.Refused, 400, "content-filter", "A content filter refused."),
    _Rule(errors.BadParameter, 400, "bad-parameter", "The model refuses a parameter."),
    _Rule(errors.AuthenticationFailed, 502, "upstream-key", "The service's key for the model does not work.", own=False),
    _Rule(errors.FirstTokenTimeout, 504, "upstream-timeout", "The model did not answer in time."),
    _Rule(errors.AttemptTimeout, 504, "upstream-timeout", "The model did not answer in time."),
    _Rule(errors.DeadlineExceeded, 504, "deadline-exceeded", "The answer did not come in time."),
    _Rule(errors.ValidationFailed, 502, "invalid-answer", "No answer of the model was of the shape that is needed.", own=False),
    _Rule(errors.Truncated, 400, "output-limit", "The limit on tokens was used up before any text was written."),
    _Rule(errors.CallFailed, 502, "upstream-failed", "The model gave no answer.", own=False),
    _Rule(errors.StorageError, 503, "storage", "What lasts cannot be read or written just now.", 5.0, own=False),
)
"""The first that fits counts: most specific first. What tells of the app's own endpoints (addresses, names of keys) is not own."""


def problem_of(error: BaseException) -> Problem:
    """Return what a caller is told of an error. Anything that is not known is a 500 that says nothing of itself."""
    if isinstance(error, ServiceProblem):
        return error.problem
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, errors.BudgetExceeded):
        return _of_budget(error)
    if isinstance(error, errors.AllRungsFailed):
        return _of_all(error)
    rule = _rule_of(error)
    if rule is None:
        return Problem(status=500, type="internal", title=_UNKNOWN)
    given = getattr(error, "retry_after_s", None)
    return Problem(
        status=rule.status,
        type=rule.type,
        title=rule.title,
        detail=error.summary if rule.own and isinstance(error, errors.NbllmError) else "",
        retry_after_s=rule.retry_after_s if given is None else given,
        parameter=getattr(error, "parameter", None),
    )


def _rule_of(error: BaseException) -> _Rule | None:
    return next((rule for rule in _TABLE if isinstance(error, rule.error)), None)


def _of_http(error: HTTPException) -> Problem:
    """Return the problem of what the router refuses: no such path, no such method."""
    try:
        phrase = HTTPStatus(error.status_code).phrase
    except ValueError:
        phrase = "Refused"
    detail = error.detail if isinstance(error.detail, str) and error.detail != phrase else ""
    kind = phrase.casefold().replace(" ", "-")
    return Problem(status=error.status_code, type=kind, title=f"{phrase}.", detail=detail, headers=error.headers)


def _of_validation(error: RequestValidationError) -> Problem:
    """Return the problem of a request that is not of the shape that the route takes; values are not repeated."""
    found = [{"where": ".".join(map(str, one.get("loc", ()))), "problem": str(one.get("msg", ""))} for one in error.errors()]
    if any(one.get("type") == "json_invalid" for one in error.errors()):
        return Problem(status=400, type="malformed-json", title="The body is no JSON.", detail=found[0]["problem"])
    first = found[0] if found else {"where": "", "problem": ""}
    return Problem(
        status=422,
        type="invalid-fields",
        title="The request is not of the shape that is needed here.",
        detail=f"{first['where']}: {first['problem']}" if found else "",
        parameter=first["where"].removeprefix("body.") or None,
        more={"errors": redact_json(found[:_MOST_ERRORS])},
    )


_MOST_ERRORS = 20


def _of_budget(error: errors.BudgetExceeded) -> Problem:
    """Return the problem of money: 429 where the caller's own is used up, 503 where the app's is, 400 for one request's limit."""
    import time

    kind, _, rest = error.scope.partition(":")
    until_midnight_s = 86_400 - time.time() % 86_400
    if kind == "request":
        return Problem(status=400, type="over-budget", title="The request could cost more than one may.", detail=error.summary)
    held = error.spent_usd < error.limit_usd and error.reserved_usd > 0
    if kind == "day" and ":" in rest:  # the key's own
        retry_s = 5.0 if held else until_midnight_s
        return Problem(
            status=429, type="insufficient-quota", title="The budget is used up.", detail=str(error), retry_after_s=retry_s
        )
    retry_s = 5.0 if held else until_midnight_s if kind == "day" else 3600.0
    return Problem(status=503, type="app-over-budget", title="The app's budget is used up.", retry_after_s=retry_s)


def _of_all(error: errors.AllRungsFailed) -> Problem:
    """Return the problem that all causes share; of different ones, the one that says most about when it will be well again."""
    causes = [problem_of(cause) for cause in error.exceptions]
    by_status = {problem.status: problem for problem in reversed(causes)}
    rules = [_rule_of(cause) for cause in error.exceptions]
    detail = error.summary if all(rule is not None and rule.own for rule in rules) else ""
    if len(by_status) == 1:
        one = causes[0]
        waits = [problem.retry_after_s for problem in causes if problem.retry_after_s is not None]
        return Problem(
            status=one.status,
            type=one.type,
            title=one.title,
            detail=detail,
            retry_after_s=min(waits) if waits else None,
            parameter=one.parameter,
        )
    found = by_status.get(503)
    status, retry_s = (503, found.retry_after_s) if found else (504 if 504 in by_status else 502, None)
    return Problem(status=status, type="upstream-failed", title="No model gave an answer.", detail=detail, retry_after_s=retry_s)


# ---------------------------------------------------------------------------------------------------- on the wire


def problem_response(problem: Problem, request_id: str = "") -> Response:
    """Return the response, application/problem+json."""
    body: dict[str, Any] = {"type": TYPE_PREFIX + problem.type, "title": problem.title, "status": problem.status}
    body |= {"detail": problem.detail} if problem.detail else {}
    body |= {"parameter": problem.parameter} if problem.parameter else {}
    body |= {"request_id": request_id} if request_id else {}
    body |= problem.more or {}
    return Response(msgspec.json.encode(body), problem.status, headers=headers_of(problem), media_type="application/problem+json")


def problem_answer(path: str, problem: Problem, request_id: str) -> Response:
    """Return the response in the shape that a path has."""
    return openai_error(problem) if path.startswith("/v1/") else problem_response(problem, request_id)


def openai_error(problem: Problem) -> Response:
    """Return the response in the shape of OpenAI's errors, which its SDK maps to its classes by status."""
    headers = headers_of(problem)
    if not _helps_to_retry(problem):
        headers["X-Should-Retry"] = "false"  # OpenAI's SDKs heed it: the road has retried already, and n times m is a storm
    return Response(
        msgspec.json.encode({"error": openai_body(problem)}), problem.status, headers=headers, media_type="application/json"
    )


def openai_body(problem: Problem) -> dict[str, Any]:
    """Return a problem as the member "error" of an answer, or of an event of a stream."""
    return {
        "message": " ".join(part for part in (problem.title, problem.detail) if part),
        "type": _openai_type(problem),
        "param": problem.parameter,
        "code": _OPENAI_CODES.get(problem.type, problem.type.replace("-", "_")),
    }


def _helps_to_retry(problem: Problem) -> bool:
    if problem.status in {408, 409}:
        return True
    return problem.status in {429, 503} and problem.type != "insufficient-quota" and problem.retry_after_s is not None


_OPENAI_CODES = {"unauthenticated": "invalid_api_key", "rate-limited": "rate_limit_exceeded"}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def _openai_type(problem: Problem) -> str:
    if problem.type == "insufficient-quota":
        return "insufficient_quota"
    if problem.status >= 500:
        return "server_error"
    return _OPENAI_TYPES.get(problem.status, "invalid_request_error")


def headers_of(problem: Problem) -> dict[str, str]:
    """Return the headers that a problem brings: Retry-After in whole seconds, at least 1, and its own."""
    headers = dict(problem.headers or {})
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    return headers
