"""Money: cost, worst case, picodollars, estimates and how amounts are shown."""

from __future__ import annotations

from decimal import Decimal, getcontext, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.messages import Usage
from nbllm.core.pricing import (
    Price,
    Tier,
    affordable_tokens,
    cost,
    estimate_tokens,
    from_pico,
    to_pico,
    worst_case,
)
from nbllm.errors import BudgetExceeded
from nbllm.money import format_usd
from nbllm.settings import Settings

MINI = Price(Decimal("0.15"), Decimal("0.60"), Decimal("0.075"))
TIERED = Price(
    Decimal("1.25"),
    Decimal(10),
    Decimal("0.31"),
    tiers=(Tier(200_000, Decimal("2.5"), Decimal(15), Decimal("0.625")),),
)
rates = st.decimals(min_value=0, max_value=1000, places=4)
counts = st.integers(min_value=0, max_value=10_000_000)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Prices whose cached input may be cheaper, dearer or unstated, with up to two long-context tiers."""
    tiers = tuple(
        Tier(above, draw(rates), draw(rates), draw(st.none() | rates))
        for above in sorted(draw(st.sets(st.integers(1, 1_000_000), max_size=2)))
    )
    return Price(draw(rates), draw(rates), draw(st.none() | rates), tiers)


def test_cost_is_exact() -> None:
    """Counts times prices, to the last digit, cached tokens at their own price."""
    usage = Usage(input_tokens=412, output_tokens=96, cached_input_tokens=100)
    assert cost(usage, MINI) == Decimal("0.0001119")


def test_cached_tokens_without_a_price_cost_what_others_do() -> None:
    """No price for cached input means no discount."""
    price = Price(Decimal(1), Decimal(2))
    assert cost(Usage(10, 5, None, 4), price) == cost(Usage(10, 5), price)


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
def test_unknown_counts_cost_unknown(usage: Usage) -> None:
    """A count that is not known never counts as 0."""
    assert cost(usage, MINI) is None


def test_unknown_price_costs_unknown() -> None:
    """An unpriced model does not cost $0."""
    assert cost(Usage(1, 1), None) is None


def test_a_free_count_need_not_be_known() -> None:
    """An embedding has no output tokens and its output price is 0: the cost is known."""
    assert cost(Usage(input_tokens=1_000_000), Price(Decimal("0.02"), Decimal(0))) == Decimal("0.02")


def test_reasoning_is_part_of_the_output() -> None:
    """Reasoning tokens are not charged twice."""
    assert cost(Usage(10, 50, reasoning_tokens=40), MINI) == cost(Usage(10, 50), MINI)


def test_long_contexts_cost_their_own_price() -> None:
    """One token over the line, and all tokens cost the higher price."""
    assert cost(Usage(200_000, 10), TIERED) == Decimal("0.2501")
    assert cost(Usage(200_001, 10), TIERED) == Decimal("0.5001525")


@given(counts, counts, counts, prices())
def test_no_cost_exceeds_its_worst_case(input_tokens: int, output_tokens: int, cached: int, price: Price) -> None:
    """Whatever the counts within the bounds, the cost is at most the worst case."""
    got = cost(Usage(input_tokens, output_tokens, None, cached), price)
    assert got is not None
    assert got <= worst_case(input_tokens, output_tokens, price)


@given(st.decimals(min_value=0, max_value=100, places=6), counts, prices())
def test_affordable_tokens_fit_and_one_more_does_not(room: Decimal, input_bytes: int, price: Price) -> None:
    """The lowered max_tokens is the largest that fits."""
    tokens = affordable_tokens(room, input_bytes, price)
    if tokens is None:
        assert worst_case(input_bytes, 10**9, price) <= room
        return
    if tokens:
        assert worst_case(input_bytes, tokens, price) <= room
    assert worst_case(input_bytes, tokens + 1, price) > room or tokens == 0


@given(st.integers(min_value=-(10**40), max_value=10**40))
def test_picodollars_round_trip(picodollars: int) -> None:
    """SQLite's integers and Decimal are two spellings of one amount."""
    assert to_pico(from_pico(picodollars)) == picodollars


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=20))
def test_picodollars_round_up(usd: Decimal) -> None:
    """An amount below a picodollar is never booked as nothing."""
    gap = from_pico(to_pico(usd)) - usd
    assert 0 <= gap < Decimal("1e-12")


@pytest.mark.parametrize("usd", [Decimal("NaN"), Decimal("Infinity")])
def test_no_amount_no_picodollars(usd: Decimal) -> None:
    """NaN and infinity are refused."""
    with pytest.raises(ValueError, match="no amount"):
        to_pico(usd)


def test_the_callers_precision_does_not_matter() -> None:
    """A notebook that set a low Decimal precision still gets exact costs."""
    exact = cost(Usage(123_456_789, 987_654_321), MINI)
    with localcontext() as context:
        context.prec = 3
        assert cost(Usage(123_456_789, 987_654_321), MINI) == exact
        assert from_pico(123_456_789_012_345) == Decimal("123.456789012345")
        assert to_pico(Decimal("123.456789012345")) == 123_456_789_012_345
    assert getcontext().prec > 3


@given(st.text(max_size=200))
def test_estimates_are_bounded_by_the_bytes(text: str) -> None:
    """An estimate is 0 only for no text and never exceeds the bytes."""
    tokens = estimate_tokens(text)
    assert (tokens == 0) == (not text)
    assert tokens <= len(text.encode("utf-8"))


def test_estimate_of_english_and_of_lone_surrogates() -> None:
    """About four characters a token in English; broken text is counted too."""
    assert estimate_tokens("The quick brown fox jumps over the lazy dog.") == 11
    assert estimate_tokens("\ud800") == 1


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (None, "unknown"),
        (Decimal(0), "$0.00"),
        (Decimal("0.00123"), "$0.0012"),
        (Decimal("1.234"), "$1.23"),
        (Decimal("0.43"), "$0.43"),
        (Decimal("0.01"), "$0.01"),
        (Decimal("0.0999"), "$0.10"),
        (Decimal("0.043"), "$0.043"),
        (Decimal("1234.5"), "$1,234.50"),
        (Decimal("0.000012"), "$0.000012"),
        (Decimal("0.0000001"), "<$0.000001"),
        (Decimal("-1.5"), "-$1.50"),
    ],
)
def test_money_for_people(usd: Decimal | None, shown: str) -> None:
    """Small amounts keep two digits, unknown says so."""
    assert format_usd(usd) == shown


@given(st.decimals(min_value=Decimal("1e-15"), max_value=Decimal("1e9"), places=15))
def test_something_is_never_shown_as_nothing(usd: Decimal) -> None:
    """A cost above zero is not shown as $0.00."""
    assert format_usd(usd) != "$0.00"


def test_an_amount_is_written_alike_everywhere() -> None:
    """A limit of $0.0002 is no $0.00020 elsewhere: in errors, in the settings, in tables."""
    limit = Decimal("0.0002")
    error = BudgetExceeded(
        scope="session", limit_usd=limit, spent_usd=Decimal("0.00010"), reserved_usd=Decimal(0), needed_usd=Decimal("0.020")
    )
    assert "budget of $0.0002 has $0.0001 spent; this attempt could cost up to $0.02." in str(error)
    shown = {row.name: row.value for row in Settings().replace_values("test", budget_session_usd="0.5").explain()}
    assert shown["budget.session_usd"] == "$0.50"
    exact = Settings().replace_values("test", budget_session_usd="1.2345").explain()
    assert "$1.2345" in {row.value for row in exact}, "what was set is shown with all its digits"
