"""What follows a failed rung, how long one may take, and what is said at the end."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import errors
from nbllm.core.ladder import Next, attempt_share_s, explain, next_step
from nbllm.core.messages import Attempt, Rung
from nbllm.settings import Endpoint


def rung(name: str, context_tokens: int | None = None) -> Rung:
    """Return a rung of that name."""
    return Rung(
        id=name,
        model=name,
        endpoint_name=name,
        endpoint=Endpoint(),
        provider="simulated",
        identity=name,
        price=None,
        context_tokens=context_tokens,
    )


A, B, C = rung("a"), rung("b"), rung("c")

ELSEWHERE = [
    errors.ConnectionFailed("x"),
    errors.ServerFailed("x"),
    errors.BadAnswer("x"),
    errors.AnswerTooLarge("x"),
    errors.RateLimited("x"),
    errors.FirstTokenTimeout("x"),
    errors.AttemptTimeout("x"),
    errors.StreamInterrupted("x"),
    errors.AuthenticationFailed("x"),
    errors.PermissionDenied("x"),
    errors.ModelNotFound("x"),
    errors.RedirectRefused("x"),
    errors.BreakerOpen("x"),
    errors.ThrottleTimeout("x"),
    errors.Truncated("x"),
    errors.ValidationFailed("x", text="", problem="p"),
]
NOWHERE = [
    errors.BadParameter("x"),
    errors.Refused("x"),
    errors.DeadlineExceeded("x"),
    errors.InvalidRequest("x"),
    errors.UnknownModel("x"),
    errors.BudgetUnavailable("x"),
    errors.UnpricedModel("x"),
    KeyError("a bug"),
]


@pytest.mark.parametrize("error", ELSEWHERE, ids=lambda e: type(e).__name__)
def test_another_rung_may_do_better(error):
    """After these the next rung is tried, and with none left the ladder stops, where a stale or static answer may help."""
    step = next_step(error, A, [B, C])
    assert (step.next, step.rungs) == (Next.RUNG, (B, C))
    assert next_step(error, A, []).next is Next.STOP


@pytest.mark.parametrize("error", NOWHERE, ids=lambda e: type(e).__name__)
def test_the_same_on_every_rung_is_raised(error):
    """After these no other model is asked, though there is one."""
    assert next_step(error, A, [B]).next is Next.RAISE
    assert next_step(error, A, []).next is Next.RAISE


def test_an_interrupted_stream_is_raised_where_asked():
    """on_interrupt="raise" ends at the first interruption, so that text already shown is not followed by another model's."""
    error = errors.StreamInterrupted("cut")
    assert next_step(error, A, [B], on_interrupt="raise").next is Next.RAISE
    assert next_step(errors.ServerFailed("x"), A, [B], on_interrupt="raise").next is Next.RUNG


WINDOWS = st.none() | st.integers(1, 200_000)


@given(own=WINDOWS, others=st.lists(WINDOWS, max_size=5))
def test_a_context_too_long_goes_to_larger_windows_only(own, others):
    """Only rungs whose window is known and larger are tried after ContextTooLong, in the ladder's order."""
    left = [rung(f"r{number}", window) for number, window in enumerate(others)]
    step = next_step(errors.ContextTooLong("x"), rung("a", own), left)
    assert list(step.rungs) == [r for r in left if r.context_tokens and (own is None or r.context_tokens > own)]
    assert step.next is (Next.RUNG if step.rungs else Next.STOP)


@given(left=st.floats(-5, 1e4), rungs=st.integers(1, 6), attempt=st.none() | st.floats(0.01, 1e4), streamed=st.booleans())
def test_a_share_never_outlasts_the_deadline(left, rungs, attempt, streamed):
    """No attempt may take longer than what is left, and n silent whole answers, one after the other, all get their turn."""
    share = attempt_share_s(left, rungs_left=rungs, attempt_s=attempt, streamed=streamed)
    assert share is None or 0 <= share <= max(0.0, left)
    if attempt is None and not streamed and left > 0:
        now = 0.0
        for n in range(rungs, 1, -1):
            now += attempt_share_s(left - now, rungs_left=n, attempt_s=None, streamed=False)
        assert left - now == pytest.approx(left / rungs)


def test_shares_by_example():
    """Half of the time with two rungs; the deadline alone for the last and for streams; attempt_s where given."""
    assert attempt_share_s(60.0, rungs_left=2, attempt_s=None, streamed=False) == 30.0
    assert attempt_share_s(60.0, rungs_left=1, attempt_s=None, streamed=False) is None
    assert attempt_share_s(60.0, rungs_left=3, attempt_s=None, streamed=True) is None
    assert attempt_share_s(60.0, rungs_left=3, attempt_s=5.0, streamed=True) == 5.0


def attempt(name: str, number: int, *, sent: bool = True) -> Attempt:
    """Return a closed attempt on a rung."""
    return Attempt(
        attempt_id=f"{name}.{number}", call_id="c", number=number, rung=name, endpoint=name, model=name, started_at=0.0, sent=sent
    )


def test_the_last_word_says_what_was_tried_waited_and_spent():
    """The text of AllRungsFailed names each rung, its requests and its last error, the waiting and the money."""
    text = explain(
        [
            ("lab/qwen", errors.ServerFailed("lab/qwen answered 503.", hint="Look at its log.")),
            ("sim/large (simulated)", errors.BreakerOpen("Nothing was sent to sim/large.")),
        ],
        [attempt("lab/qwen", 1), attempt("lab/qwen", 2), attempt("lab/qwen", 3)],
        waited_s=1.25,
        spent_usd=Decimal("0.0031"),
    )
    assert text.splitlines() == [
        "No model answered: 2 models, 3 requests, 1.2 s waited, $0.0031 spent.",
        "  lab/qwen (3 requests): ServerFailed: lab/qwen answered 503.",
        "  sim/large (simulated) (not sent): BreakerOpen: Nothing was sent to sim/large.",
    ]


def test_the_last_word_does_not_invent_a_cost_and_stays_short():
    """Unknown money is said to be unknown, and a page of HTML in an error does not fill the screen."""
    text = explain([("a", errors.BadAnswer("<html>" * 500))], [attempt("a", 1)], waited_s=0.0, spent_usd=None)
    assert "1 model, 1 request, 0.0 s waited, cost unknown." in text
    assert all(len(line) <= 260 for line in text.splitlines())


def test_the_counts_of_requests_agree():
    """The total is the sum of what the rungs say; tries that put nothing on a socket are called tries."""
    text = explain(
        [("a", errors.ConnectionFailed("refused")), ("b", errors.ServerFailed("503"))],
        [attempt("a", 1, sent=False), attempt("a", 2, sent=False), attempt("b", 3)],
        waited_s=0.0,
        spent_usd=Decimal(0),
    )
    total, first, second = text.splitlines()
    assert "2 models, 1 request," in total
    assert "a (2 tries, nothing sent):" in first
    assert "b (1 request):" in second
    alone = explain([("a", errors.ConnectionFailed("x"))], [attempt("a", 1, sent=False)], waited_s=0.0, spent_usd=None)
    assert "1 model, 0 requests," in alone
    assert "(1 try, nothing sent)" in alone
