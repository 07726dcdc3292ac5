"""Break-even: where a machine of one's own is cheaper than an API, and where it is not."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.breakeven import BreakEven, Machine, Mix, break_even, busy_pace
from nbllm.core.pricing import Price, Tier

MIX = Mix(input_tokens=300_000, output_tokens=100_000, cost_usd=Decimal("1.00"), calls=100, days=2)


def test_the_crossing_is_where_a_day_of_the_machine_costs_what_its_tokens_would() -> None:
    """$2 an hour is $48 a day; at $2.50 a million tokens that is 19.2 million tokens."""
    found = break_even(MIX, Machine(usd_per_hour=Decimal(2), tokens_per_s=500))
    assert found is not None
    assert found.tokens_per_day == 19_200_000
    assert found.api_usd(19_200_000) == found.own_usd(19_200_000) == 48
    assert found.capacity == 500 * 86_400 * 4  # one token of four is written
    assert MIX.tokens_per_day == 200_000


def test_a_machine_that_cannot_serve_enough_never_pays() -> None:
    """At 50 written tokens/s it serves 17.28M a day, and it would need 19.2M: no crossing, and no range in which it is cheaper."""
    found = break_even(MIX, Machine(usd_per_hour=Decimal(2), tokens_per_s=50))
    assert found is not None
    assert found.tokens_per_day is None
    assert found.cheaper(1e12) == []


def test_requests_that_come_by_day_only_halve_what_a_machine_serves() -> None:
    """A machine costs the same while people sleep."""
    whole = Machine(usd_per_hour=Decimal(1), tokens_per_s=100)
    half = Machine(usd_per_hour=Decimal(1), tokens_per_s=100, use=0.5)
    assert whole.tokens_per_day(0.25) == 2 * (half.tokens_per_day(0.25) or 0)
    assert whole.usd_per_day == half.usd_per_day == 24


def test_what_is_unknown_stays_unknown() -> None:
    """No bill and no list price: no answer. No pace: a crossing, whose capacity is None. A free API: never."""
    unbilled = Mix(input_tokens=1, output_tokens=1, cost_usd=None, calls=1)
    machine = Machine(usd_per_hour=Decimal(1))
    assert break_even(unbilled, machine) is None
    assert break_even(Mix(input_tokens=0, output_tokens=0, cost_usd=Decimal(0), calls=0), machine) is None
    found = break_even(MIX, machine)
    assert found is not None
    assert found.capacity is None
    assert found.tokens_per_day == pytest.approx(9.6e6)
    assert found.cheaper(2e7) == [(found.tokens_per_day, 2e7)]
    free = break_even(MIX, machine, Price(Decimal(0), Decimal(0)))
    assert free is not None
    assert free.tokens_per_day is None


def test_a_list_price_stands_for_the_bill() -> None:
    """In and out at their own prices, for this mix; dear long contexts are not assumed for a sum of many calls."""
    price = Price(Decimal(1), Decimal(5))
    assert MIX.usd_per_mtok(price) == Decimal(2)
    long = Price(Decimal(1), Decimal(5), tiers=(Tier(200_000, Decimal(2), Decimal(10)),))
    assert MIX.usd_per_mtok(long) == Decimal(2)


@given(
    price=st.integers(1, 10_000),
    day=st.integers(1, 10_000),
    capacity=st.floats(1e4, 1e9),
    at=st.floats(1, 4e9),
)
def test_the_cheaper_ranges_are_those_in_which_the_staircase_is_lower(price: int, day: int, capacity: float, at: float) -> None:
    """For any prices and any number of tokens: inside of a range own costs at most what the API does, outside at least that."""
    found = BreakEven(api_usd_per_mtok=Decimal(price) / 100, machine_usd_per_day=Decimal(day), capacity=capacity)
    at = min(at, 500 * capacity)
    inside = any(low <= at <= high for low, high in found.cheaper(at * 1.5 + 1))
    own, api = found.own_usd(at), found.api_usd(at)
    near = abs(own - api) <= 1e-6 * api or abs(at / capacity - round(at / capacity)) < 1e-6
    assert near or inside == (own < api), (own, api)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.01, 100), st.integers(1, 900)), min_size=1, max_size=30))
def test_busy_pace_counts_time_once(rows: list[tuple[float, float, int]]) -> None:
    """Calls at the same time share it: the pace is between that of all in a row and that of all at once."""
    started, latency, tokens = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    pace = busy_pace(started, latency, tokens)
    assert pace is not None
    assert tokens.sum() / latency.sum() * (1 - 1e-6) <= pace <= tokens.sum() / latency.max() * (1 + 1e-6)


def test_without_a_call_there_is_no_pace() -> None:
    """NaN latencies and counts are left out."""
    nan = np.array([np.nan])
    assert busy_pace(np.array([1.0]), nan, np.array([3.0])) is None
    assert busy_pace(np.array([1.0]), np.array([1.0]), nan) is None
