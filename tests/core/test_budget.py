"""Which budgets a call pays into, what fits, and when a warning is due."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbllm.core.budget import MINIMUM_TOKENS, crossed, fit_max_tokens, room_usd, scopes_of, utc_day, worst_case_usd
from nbllm.core.ports import Balance, Scope
from nbllm.core.pricing import Price, Tier
from nbllm.settings import BudgetSettings

USD = st.decimals(0, 100, places=6, allow_nan=False, allow_infinity=False)
PRICES = st.builds(
    Price,
    USD,
    USD,
    st.none() | USD,
    st.just(()) | st.tuples(st.builds(Tier, st.integers(1, 5_000), USD, USD, st.none() | USD)),
)


@given(room=USD, size=st.integers(0, 100_000), price=PRICES, wanted=st.none() | st.integers(1, 200_000))
def test_what_fits_is_never_over(room, size, price, wanted):
    """The worst case of the max_tokens that is returned fits into the room, to the last picodollar, and is never over the wish."""
    fits = fit_max_tokens(room, size, price, wanted)
    if fits is not None:
        assert worst_case_usd(size, fits, price) <= room
        assert wanted is None or fits <= wanted
        assert fits >= min(MINIMUM_TOKENS, wanted or MINIMUM_TOKENS)


@given(room=USD, size=st.integers(0, 100_000), price=PRICES, wanted=st.integers(1, 200_000))
def test_nothing_that_fits_is_refused_or_lowered(room, size, price, wanted):
    """A wish that fits is left alone, and a lowered one is the most that fits."""
    fits = fit_max_tokens(room, size, price, wanted)
    if worst_case_usd(size, wanted, price) <= room:
        assert fits == wanted
    elif fits is not None:
        assert worst_case_usd(size, fits + 1, price) > room
    else:
        assert worst_case_usd(size, MINIMUM_TOKENS, price) > room or wanted < MINIMUM_TOKENS


@given(room=USD, size=st.integers(0, 10_000), price=PRICES)
def test_the_most_that_fits_is_exact(room, size, price):
    """A wish of exactly what fits goes as it is; a wish of one token more is lowered to it."""
    most = fit_max_tokens(room, size, price, None)
    assume(most is not None)
    assert fit_max_tokens(room, size, price, most) == most
    assert fit_max_tokens(room, size, price, most + 1) == most


def test_a_short_wish_is_not_refused_for_being_short():
    """max_tokens=10 goes where 10 fit, though an answer is never cut to less than 256 by us."""
    price = Price(Decimal(0), Decimal(10))
    assert fit_max_tokens(Decimal("0.0001"), 1000, price, 10) == 10
    assert fit_max_tokens(Decimal("0.0001"), 1000, price, 1000) is None
    assert fit_max_tokens(Decimal("0.00256"), 1000, price, 1000) == 256
    assert fit_max_tokens(Decimal("0.002559"), 1000, price, 1000) is None


def test_without_a_limit_the_wish_goes_as_it_is():
    """An unlimited scope leaves max_tokens as it was."""
    price = Price(Decimal(1), Decimal(1))
    assert fit_max_tokens(Decimal("Infinity"), 10, price, None) is None
    assert fit_max_tokens(Decimal("Infinity"), 10, price, 77) == 77


@given(hard=USD, spent=USD, reserved=USD)
def test_room_is_what_is_left(hard, spent, reserved):
    """Room is the limit less spent and reserved, never negative."""
    room = room_usd(Scope("session:a", hard), Balance(spent, reserved))
    assert room == max(Decimal(0), hard - spent - reserved)
    assert room_usd(Scope("session:a", hard), None) == hard
    assert room_usd(Scope("session:a"), Balance(spent, reserved)) == Decimal("Infinity")


def test_the_scopes_of_a_call():
    """A call pays into its request, feature, user, session and day, narrowest first, each with its own limits."""
    limits = BudgetSettings(
        request_usd=Decimal("0.10"), session_usd=Decimal(5), features={"summaries": Decimal(2)}, users={"ann": Decimal(1)}
    )
    scopes = scopes_of(limits, session="s1", call_id="c1", day_utc="2026-11-21", feature="summaries", user="bob")
    assert scopes == (
        Scope("request:c1", Decimal("0.10"), Decimal("0.08")),
        Scope("feature:summaries", Decimal(2), Decimal("1.6")),
        Scope("user:bob"),
        Scope("session:s1", Decimal(5), Decimal(4)),
        Scope("day:2026-11-21"),
    )


def test_the_call_s_own_budget_wins():
    """budget_usd= of the call replaces the settings' limit per request; without either there is no request scope."""
    own = scopes_of(BudgetSettings(request_usd=Decimal(1)), session="s", call_id="c", day_utc="d", budget_usd=Decimal(0))
    assert own[0] == Scope("request:c", Decimal(0), Decimal(0))
    assert [scope.name for scope in scopes_of(BudgetSettings(), session="s", call_id="c", day_utc="d")] == ["session:s", "day:d"]


def test_an_unlimited_session_is_still_counted():
    """Session and day are among the scopes without limits, so that a limit set later knows what was spent."""
    scopes = scopes_of(BudgetSettings(), session="s", call_id="c", day_utc="d", feature="f")
    assert [scope.name for scope in scopes] == ["feature:f", "session:s", "day:d"]
    assert all(scope.hard_usd is None and scope.soft_usd is None for scope in scopes)


@given(costs=st.lists(USD, max_size=30), limit=USD)
def test_one_warning_on_the_way_up(costs, limit):
    """However the spending grows, the soft limit is crossed at most once, and exactly once if it ends at or over it."""
    assume(limit > 0)
    scope, spent, warnings = Scope("session:s", None, limit), Decimal(0), 0
    for cost in costs:
        warnings += crossed(scope, spent, spent + cost)
        spent += cost
    assert warnings == (spent >= limit)


def test_a_scope_without_a_soft_limit_never_warns():
    """No soft limit, no warning."""
    assert not crossed(Scope("day:d", Decimal(1)), Decimal(0), Decimal(9))


@pytest.mark.parametrize(("epoch_s", "day"), [(0, "1970-01-01"), (1795305599.9, "2026-11-21"), (1795305600, "2026-11-22")])
def test_days_are_utc(epoch_s, day):
    """A budget's day ends at midnight UTC, wherever the machine is."""
    assert utc_day(epoch_s) == day
