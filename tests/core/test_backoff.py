"""Backoff and the retry budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.backoff import CAP_S, RetryBudget, delay_s, may_retry, on_attempt, on_retry, wait_s

JITTER = st.floats(0, 1, exclude_max=True)


@given(attempt=st.integers(0, 10_000), jitter=JITTER)
def test_delay_is_full_jitter_below_a_doubling_cap(attempt, jitter):
    """A delay lies in [0, min(8, 0.25 * 2**attempt)) and is the jitter's share of it, however many tries there were."""
    bound = min(8.0, 0.25 * 2.0 ** min(attempt, 100))
    delay = delay_s(attempt, jitter)
    assert 0 <= delay <= bound
    assert delay == pytest.approx(jitter * bound)


def test_delay_doubles_from_a_quarter_second():
    """With the same jitter the delays double: 0.125, 0.25, 0.5 ... up to the cap."""
    assert [delay_s(n, 0.5) for n in range(7)] == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    assert delay_s(3, 0.5, base_s=1.0, cap_s=2.0) == 1.0


@pytest.mark.parametrize(("attempt", "jitter"), [(-1, 0.5), (0, 1.0), (0, -0.1), (0, math.nan)])
def test_delay_refuses_what_is_no_attempt_or_jitter(attempt, jitter):
    """A jitter outside [0, 1) or a negative attempt is a mistake of the caller's and is said."""
    with pytest.raises(ValueError, match=r"attempt|jitter"):
        delay_s(attempt, jitter)


@given(attempt=st.integers(0, 20), jitter=JITTER, retry_after=st.none() | st.floats(0, 1e6), left=st.floats(-10, 1e4))
def test_a_wait_always_ends_before_the_deadline(attempt, jitter, retry_after, left):
    """Whatever the provider asks for, a wait that is returned is shorter than the time left and not shorter than asked."""
    wait = wait_s(attempt, jitter, retry_after, left)
    if wait is None:
        assert (retry_after * 1.05 if retry_after else delay_s(attempt, jitter)) >= left
    else:
        assert 0 <= wait < left
        assert wait >= (retry_after or 0)


def test_retry_after_is_waited_for_with_five_percent():
    """Retry-After 2 waits 2.1 s, also beyond the cap of the backoff; beyond the deadline there is no wait."""
    assert wait_s(0, 0.9, 2.0, 10.0) == pytest.approx(2.1)
    assert wait_s(0, 0.9, 60.0, 100.0) == pytest.approx(63.0)
    assert wait_s(0, 0.0, 3600.0, 300.0) is None
    assert wait_s(0, 0.0, 10.0, 10.2) is None


def test_retry_after_zero_is_ordinary_backoff():
    """A provider that always says 0 is not hammered."""
    assert wait_s(4, 0.5, 0.0, 100.0) == delay_s(4, 0.5)


@given(
    steps=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=120),
    share=st.sampled_from([0.0, 0.2, 0.5]),
    floor=st.integers(0, 3),
)
def test_retries_stay_within_their_share(steps, share, floor):
    """In no 10 seconds are more retries let through than the share of its first attempts, or the floor."""
    budget, now, log = RetryBudget(share=share, floor=floor), 1_000.0, []
    for gap, retry in steps:
        now += gap
        if not retry:
            budget = on_attempt(budget, now)
            log.append((math.floor(now), "first"))
        elif may_retry(budget, now):
            budget = on_attempt(on_retry(budget, now), now)
            log.append((math.floor(now), "retry"))
            recent = [kind for second, kind in log if second > math.floor(now) - 10]
            assert recent.count("retry") <= max(floor, share * recent.count("first") + 1e-6)
        assert len(budget.slots) <= 10


def test_a_dead_primary_sees_at_most_a_fifth_more():
    """200 calls that all fail and all want two retries send at most 1.2 * 200 + 3 requests."""
    budget, sent = RetryBudget(), 0
    for call in range(200):
        now = call / 100
        budget, sent = on_attempt(budget, now), sent + 1
        for _ in range(2):
            if may_retry(budget, now):
                budget, sent = on_attempt(on_retry(budget, now), now), sent + 1
    assert 200 < sent <= 243


def test_a_quiet_endpoint_can_be_retried_three_times():
    """One call may be retried three times in ten seconds, then no more; later again."""
    budget = on_attempt(RetryBudget(), 0.0)
    for _ in range(3):
        assert may_retry(budget, 1.0)
        budget = on_retry(budget, 1.0)
    assert not may_retry(budget, 2.0)
    assert may_retry(budget, 11.5)


def test_the_cap_is_what_the_docs_say():
    """Backoff never waits longer than 8 seconds of its own accord."""
    assert CAP_S == 8.0
