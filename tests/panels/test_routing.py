"""What the routing panel says is what the plan says, and P95 is that of the mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.statistics import quantiles
from nbllm.panels import routing
from nbllm.panels.examples import routing_example


def test_each_share_is_the_plans_own_point() -> None:
    """At every place of the slider quality and cost are those of plan.at, and the gap's band is the one for all shares at once."""
    data = routing_example()
    for share in data.plan.curve.strong_share:
        found = routing.at(data, float(share))
        assert found.point == data.plan.at(strong_share=float(share))
        assert found.recovered is not None
        wide = data.plan.curve.at("band_low", float(share)), data.plan.curve.at("band_high", float(share))
        assert (found.recovered.low, found.recovered.high) == wide
    assert data.start == data.plan.chosen_share


TIMES = st.lists(st.floats(0.01, 100), min_size=20, max_size=80)


@given(TIMES, TIMES)
def test_p95_of_a_mix(weak: list[float], strong: list[float]) -> None:
    """All weak or all strong is that model's own P95; half of each, as many times each, is that of both together."""
    a, b = np.array(weak), np.array(strong)
    assert routing.mixed_quantile(a, b, 0.0) == quantiles(a, 0.95)[0]
    assert routing.mixed_quantile(a, b, 1.0) == quantiles(b, 0.95)[0]
    n = min(a.size, b.size)
    assert routing.mixed_quantile(a[:n], b[:n], 0.5) == quantiles(np.concatenate((a[:n], b[:n])), 0.95)[0]


@pytest.mark.parametrize(("weak", "strong", "share", "known"), [(19, 50, 0.5, False), (0, 50, 1.0, True), (50, 19, 0.2, False)])
def test_no_p95_from_too_few_calls(weak: int, strong: int, share: float, known: bool) -> None:
    """A model that gets calls needs twenty of its own; one that gets none needs none."""
    assert (routing.mixed_quantile(np.ones(weak), np.ones(strong), share) is not None) == known
