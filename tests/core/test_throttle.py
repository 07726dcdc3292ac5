"""An endpoint's limits: stated ones, and those learned from headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.ports import RateLimits
from nbllm.core.throttle import BucketState, Limits, fullness, learn, take

GAPS = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 60)), min_size=1, max_size=80)


@given(steps=GAPS, rpm=st.none() | st.integers(1, 12), tpm=st.none() | st.integers(20, 200))
def test_no_minute_holds_more_than_the_limits(steps, rpm, tpm):
    """However requests come, in no 60 seconds do more than rpm requests or tpm tokens go, one larger than tpm apart."""
    state, now, sent = None, 1_000.0, []
    for gap, tokens in steps:
        now += gap
        state, wait_s = take(state, Limits(rpm, tpm), 1, tokens, now)
        if wait_s == 0:
            sent.append((now, tokens))
            window = [t for at, t in sent if at > now - 60]
            if rpm is not None:
                assert len(window) <= rpm
            if tpm is not None:
                assert sum(window) <= tpm or [t for t in window if t] == [tokens]
        else:
            assert wait_s > 0
            assert state.slots == () or len(state.slots) <= 62


@given(steps=GAPS, rpm=st.integers(1, 5), tpm=st.integers(20, 100), tokens=st.integers(0, 500))
def test_waiting_as_told_is_enough(steps, rpm, tpm, tokens):
    """Who waits as long as it is told, and has nobody pass in between, gets through: the wait is never for ever."""
    state, now = None, 1_000.0
    for gap, some in steps:
        now += gap
        state, _ = take(state, Limits(rpm, tpm), 1, some, now)
    for _ in range(3):
        state, wait_s = take(state, Limits(rpm, tpm), 1, tokens, now)
        if wait_s == 0:
            break
        assert wait_s <= 61.0
        now += wait_s + 1e-9
    assert wait_s == 0


def test_a_whole_minute_may_go_at_once():
    """With rpm=3 three requests go at once, the fourth when the first leaves the window."""
    state = None
    for _ in range(3):
        state, wait_s = take(state, Limits(rpm=3), 1, 0, 100.0)
        assert wait_s == 0
    same, wait_s = take(state, Limits(rpm=3), 1, 0, 100.5)
    assert wait_s == pytest.approx(60.5)
    assert same == state


def test_the_window_is_a_full_minute_within_its_seconds():
    """A request at the end of a second still counts a little less than 60 s later, though the second began 60 s ago."""
    state, _ = take(None, Limits(rpm=1), 1, 0, 100.9)
    assert take(state, Limits(rpm=1), 1, 0, 160.5)[1] > 0
    assert take(state, Limits(rpm=1), 1, 0, 161.0)[1] == 0


def test_requests_that_count_no_tokens_do_not_hold_up_a_large_one():
    """A request larger than tpm goes at once where no tokens are in the window, whatever else is."""
    state, _ = take(None, Limits(tpm=100), 1, 0, 100.0)
    assert take(state, Limits(tpm=100), 1, 500, 100.0)[1] == 0


def test_a_request_larger_than_the_limit_goes_alone():
    """A request that counts more than a whole minute's tokens waits for an empty window and goes then; nothing goes with it."""
    state, wait_s = take(None, Limits(tpm=100), 1, 10, 100.0)
    state, wait_s = take(state, Limits(tpm=100), 1, 500, 100.0)
    assert wait_s == pytest.approx(61.0)
    state, wait_s = take(state, Limits(tpm=100), 1, 500, 161.0)
    assert wait_s == 0
    assert take(state, Limits(tpm=100), 1, 1, 161.0)[1] > 0


def test_without_limits_nothing_waits():
    """An endpoint without limits is never waited for, and is never full."""
    state = None
    for _ in range(1000):
        state, wait_s = take(state, Limits(), 1, 10_000, 100.0)
        assert wait_s == 0
    assert fullness(state, Limits(), 100.0) == 0


def test_fullness_is_that_of_the_tightest_limit():
    """Eight of ten requests are 80%; tokens count when they are tighter; an hour later nothing is used."""
    state = None
    for _ in range(8):
        state, _ = take(state, Limits(rpm=10, tpm=1000), 1, 20, 100.0)
    assert fullness(state, Limits(rpm=10, tpm=1000), 100.0) == pytest.approx(0.8)
    assert fullness(state, Limits(rpm=10, tpm=170), 100.0) == pytest.approx(160 / 170)
    assert fullness(state, Limits(rpm=10), 3700.0) == 0
    assert fullness(None, Limits(rpm=10), 0.0) == 0


def test_headers_that_say_nothing_is_left_are_waited_for():
    """Ten requests a minute with none left: the next goes when the provider's own rate has given one back."""
    state = learn(None, RateLimits(requests_limit=10, requests_left=0, requests_reset_s=60.0), 100.0)
    state, wait_s = take(state, Limits(), 1, 0, 100.0)
    assert wait_s == pytest.approx(6.0)
    state, wait_s = take(state, Limits(), 1, 0, 106.0)
    assert wait_s == 0
    assert take(state, Limits(), 1, 0, 106.0)[1] == pytest.approx(6.0)


def test_requests_under_way_are_not_forgotten_by_a_header():
    """A header that left the provider before our last requests does not give their room back."""
    state = learn(None, RateLimits(requests_limit=10, requests_left=9, requests_reset_s=6.0), 100.0)
    for _ in range(9):
        state, wait_s = take(state, Limits(), 1, 0, 100.0)
        assert wait_s == 0
    state = learn(state, RateLimits(requests_limit=10, requests_left=8, requests_reset_s=12.0), 100.0)
    assert take(state, Limits(), 1, 0, 100.0)[1] > 0
    assert fullness(state, Limits(), 100.0) == pytest.approx(1.0)


def test_learned_tokens_and_a_debt():
    """A request larger than the learned token limit goes once the bucket is full; who comes next waits for the debt."""
    state = learn(None, RateLimits(tokens_limit=600, tokens_left=300, tokens_reset_s=30.0), 0.0)
    assert take(state, Limits(), 1, 1200, 0.0)[1] == pytest.approx(30.0)
    state, wait_s = take(state, Limits(), 1, 1200, 30.0)
    assert wait_s == 0
    assert take(state, Limits(), 1, 100, 30.0)[1] == pytest.approx(70.0)


@pytest.mark.parametrize(
    "headers",
    [
        RateLimits(),
        RateLimits(requests_limit=100),
        RateLimits(requests_left=-1),
        RateLimits(tokens_reset_s=5.0),
    ],
)
def test_headers_without_a_count_left_change_nothing(headers):
    """Only a header that says what is left teaches anything."""
    assert learn(None, headers, 100.0) == BucketState()


MAYBE = st.none() | st.integers(0, 10**6)
SECONDS = st.none() | st.floats(0, 1e5)


@given(
    headers=st.lists(st.builds(RateLimits, requests_limit=MAYBE, requests_left=MAYBE, requests_reset_s=SECONDS,
                               tokens_limit=MAYBE, tokens_left=MAYBE, tokens_reset_s=SECONDS), max_size=8),
    tokens=st.integers(0, 10**6),
)  # fmt: skip
def test_no_header_can_stop_us_for_ever(headers, tokens):
    """Whatever headers claim, the wait is a finite number, fullness is a share, and waiting as told lets the request through."""
    state, now = None, 1_000.0
    for header in headers:
        state = learn(state, header, now)
        state, wait_s = take(state, Limits(), 1, tokens, now)
        assert 0 <= fullness(state, Limits(), now) <= 1
        now += 0.5
    state, wait_s = take(state, Limits(), 1, tokens, now)
    assert 0 <= wait_s < 1e12
    if wait_s:
        now += wait_s * (1 + 1e-9)
        assert take(state, Limits(), 1, tokens, now)[1] < 1e-3 * max(1.0, wait_s)


def test_a_clock_that_lags_behind_counts_in_the_newest_slot():
    """A thread whose clock reading is a moment old neither reorders the slots nor slips a request past the limit."""
    state, _ = take(None, Limits(rpm=2), 1, 0, 100.2)
    state, wait_s = take(state, Limits(rpm=2), 1, 0, 99.9)
    assert wait_s == 0
    assert state.slots == ((100, 2, 0),)
    assert take(state, Limits(rpm=2), 1, 0, 99.9)[1] > 0
