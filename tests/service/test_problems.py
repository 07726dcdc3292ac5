"""What a caller is told of each error, in both shapes."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from nbllm import errors
from nbllm.service.problems import headers_of, openai_error, problem_of, problem_response


def budget(scope: str, spent: str = "1", reserved: str = "0") -> errors.BudgetExceeded:
    return errors.BudgetExceeded(
        scope=scope, limit_usd=Decimal(1), spent_usd=Decimal(spent), reserved_usd=Decimal(reserved), needed_usd=Decimal(1)
    )


CASES = [
    (errors.InvalidRequest("no"), 400, None),
    (errors.UnknownModel("no"), 404, None),
    (errors.ConfigurationError("no"), 500, None),
    (errors.BudgetUnavailable("no"), 503, 5),
    (errors.UnpricedModel("no"), 500, None),
    (errors.RateLimited("no", retry_after_s=7.2), 503, 8),
    (errors.RateLimited("no"), 503, 5),
    (errors.ThrottleTimeout("no"), 503, 5),
    (errors.BreakerOpen("no", retry_after_s=0.1), 503, 1),
    (errors.ContextTooLong("no"), 400, None),
    (errors.Refused("no"), 400, None),
    (errors.BadParameter("no", parameter="top_p"), 400, None),
    (errors.AuthenticationFailed("no"), 502, None),
    (errors.PermissionDenied("no"), 502, None),
    (errors.ConnectionFailed("no"), 502, None),
    (errors.ServerFailed("no"), 502, None),
    (errors.FirstTokenTimeout("no"), 504, None),
    (errors.AttemptTimeout("no"), 504, None),
    (errors.DeadlineExceeded("no"), 504, None),
    (errors.ValidationFailed("no", text="t", problem="p"), 502, None),
    (errors.StorageError("no"), 503, 5),
    (errors.AllRungsFailed("no", [errors.ServerFailed("a"), errors.FirstTokenTimeout("b")]), 504, None),
    (errors.AllRungsFailed("no", [errors.ServerFailed("a"), errors.BreakerOpen("b", retry_after_s=3)]), 503, 3),
    (errors.AllRungsFailed("no", [errors.ContextTooLong("a"), errors.ContextTooLong("b")]), 400, None),
    (errors.AllRungsFailed("no", [errors.RateLimited("a", retry_after_s=9), errors.RateLimited("b", retry_after_s=4)]), 503, 4),
    (budget("request:c1"), 400, None),
    (budget("session:s"), 503, 3600),
    (budget("day:2026-11-21:key:a", spent="0.5", reserved="0.5"), 429, 5),
    (ZeroDivisionError("the flow's own secret"), 500, None),
    (ExceptionGroup("several", [ValueError("secret")]), 500, None),
]


@pytest.mark.parametrize(("error", "status", "retry_s"), CASES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status(error: Exception, status: int, retry_s: int | None) -> None:
    """Status and Retry-After are those that tell a client whether, and when, to ask again."""
    problem = problem_of(error)
    assert problem.status == status
    assert headers_of(problem).get("Retry-After") == (None if retry_s is None else str(retry_s))


@pytest.mark.parametrize("scope", ["day:2026-11-21", "day:2026-11-21:key:ab"])
def test_a_day_that_is_used_up_says_when_it_ends(scope: str) -> None:
    """A budget of a day is whole again at midnight UTC: Retry-After says how long that is."""
    problem = problem_of(budget(scope))
    assert 0 < (problem.retry_after_s or 0) <= 86_400
    assert problem.status == (429 if "key" in scope else 503)


def test_every_error_of_ours_has_a_status() -> None:
    """None of nbllm's errors that a call can end with is an unknown 500."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.AttemptFailed):
            assert problem_of(kind("no")).type != "internal", name


def test_what_is_not_the_callers_business_is_not_said() -> None:
    """Addresses and keys of the app's own endpoints, and what an unknown error says, stay in the log."""
    for error in (
        errors.ConnectionFailed("http://10.0.0.7:8000 refused", rung="lab/x"),
        errors.AuthenticationFailed("the key in LAB_KEY was refused"),
        errors.AllRungsFailed("http://10.0.0.7:8000 refused", [errors.ConnectionFailed("http://10.0.0.7 refused")]),
        errors.ConfigurationError("/home/ann/app has no model"),
        ZeroDivisionError("10.0.0.7"),
    ):
        said = problem_response(problem_of(error)).body + openai_error(problem_of(error)).body
        assert b"10.0.0.7" not in said
        assert b"LAB_KEY" not in said
        assert b"ann" not in said


def test_both_shapes() -> None:
    """problem+json has type, title, status, detail and the request's id; OpenAI's has message, type, param and code."""
    problem = problem_of(errors.BadParameter("top_p is too large", parameter="top_p"))
    ours = problem_response(problem, "r1")
    assert ours.media_type == "application/problem+json"
    body = json.loads(ours.body)
    assert body["type"] == "urn:nbllm:problem:bad-parameter"
    assert (body["status"], body["parameter"], body["request_id"]) == (400, "top_p", "r1")
    theirs = json.loads(openai_error(problem).body)["error"]
    assert (theirs["type"], theirs["param"], theirs["code"]) == ("invalid_request_error", "top_p", "bad_parameter")
    assert "top_p is too large" in theirs["message"]
