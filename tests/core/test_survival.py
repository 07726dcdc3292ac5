"""The share of times over a limit, where some times were cut short."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.survival import survival

TIMES = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=60)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(0, 40))
def test_without_cuts_it_is_the_plain_share(times: list[int], limit: int) -> None:
    """Nothing cut: the share of times that are longer, inside of its interval."""
    found = survival(np.array(times, float), np.zeros(len(times), bool)).longer_than(limit)
    assert found.value is not None
    assert abs(found.value - np.mean(np.array(times) > limit)) < 1e-9
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(TIMES, st.integers(0, 40))
def test_it_is_the_product_limit_and_lies_between_the_extremes(rows: list[tuple[int, bool]], limit: int) -> None:
    """With cuts: the textbook product, never below "all cut ones ended at once", never above "all of them go on for ever"."""
    times, cut = np.array([t for t, _ in rows], float), np.array([c for _, c in rows])
    found = survival(times, cut).longer_than(limit)
    product = 1.0
    for at in sorted({t for t, c in rows if not c and t <= limit}):
        product *= 1 - sum(t == at and not c for t, c in rows) / sum(t >= at for t, _ in rows)
    goes_on, ended = np.mean((times > limit) | cut), np.mean(times > limit)
    if found.value is None:
        assert limit > times.max()
        assert found.low == 0
        assert product > 0
    else:
        assert abs(found.value - product) < 1e-9
        assert ended - 1e-9 <= found.value <= goes_on + 1e-9
        assert found.low <= found.value <= found.high


@given(TIMES)
def test_a_longer_limit_never_lets_more_through(rows: list[tuple[int, bool]]) -> None:
    """The share over a limit falls, and so does what it may be at most beyond the last time."""
    known = survival(np.array([t for t, _ in rows], float), np.array([c for _, c in rows]))
    shares = [known.longer_than(limit) for limit in range(35)]
    values = [one.value for one in shares if one.value is not None]
    assert values == sorted(values, reverse=True)


def test_beyond_a_common_cut_only_bounds_are_known() -> None:
    """Calls that were all cut at 30 s say nothing of 60 s but that no more are that slow."""
    times = np.minimum(np.linspace(1, 40, 400), 30.0)
    known = survival(times, times >= 30)
    at_limit, beyond = known.longer_than(29.9), known.longer_than(60)
    assert at_limit.value is not None
    assert abs(at_limit.value - 0.26) < 0.01
    assert beyond.value is None
    assert beyond.low == 0
    assert 0.2 < beyond.high < 0.35
    assert str(beyond).startswith("between 0% to")
    assert survival(np.zeros(0), np.zeros(0, bool)).longer_than(1).value is None


def test_the_interval_covers_what_is_true() -> None:
    """Times cut at random: the interval holds the true share in 92% of 300 draws or more; ignoring the cuts would be too low."""
    rng = np.random.default_rng(5)
    covered, naive = 0, []
    for _ in range(300):
        true, until = rng.exponential(10, 150), rng.exponential(25, 150)
        found = survival(np.minimum(true, until), true > until).longer_than(15)
        covered += found.low <= np.exp(-1.5) <= found.high
        naive.append(np.mean(np.minimum(true, until) > 15))
    assert covered >= 276
    assert np.mean(naive) < np.exp(-1.5) - 0.05
