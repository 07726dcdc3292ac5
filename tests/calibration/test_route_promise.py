"""The promises of calibrate_route in seconds; tests/promises has them in full."""

from __future__ import annotations

import numpy as np

from tests.calibration.routing_data import gsm8k, simulated


def test_on_real_outcomes_the_route_beats_random_choice() -> None:
    """GSM8K: APGR lies above random choice with an interval that leaves 0.5 out, and length alone stands beside it."""
    plan = gsm8k().calibrated()
    assert plan.apgr.low > 0.5
    assert 0.5 < plan.length_only_apgr.value < plan.apgr.value


def test_predictions_hold_for_requests_that_come() -> None:
    """Simulated: quality, share and quality recovered of 100 new requests lie in their 95% intervals nearly always.

    14 draws of 80 rows, three numbers each: 42 predictions, of which 37 or more hold in 99% of such tests; the seeds are fixed.
    """
    held = 0
    for draw in range(14):
        rng = np.random.default_rng((8, draw))
        plan, ahead = simulated(80, rng, d=8, signal=2).calibrated(seed=draw), simulated(100, rng, d=8, signal=2)
        share, quality, recovered = ahead.recovered(plan, strong_share=0.4)
        batch = plan.at(strong_share=0.4, batch=100).batch
        held += (share in batch.strong_share) + (quality in batch.quality) + (recovered in batch.quality_recovered)
    assert held >= 37


def test_nothing_to_learn_is_not_sold_as_something() -> None:
    """Simulated without any signal: "surely better than random choice" is said by at most one of a dozen plans."""
    plans = [simulated(80, np.random.default_rng((9, draw)), d=8, signal=0, length=0).calibrated(seed=draw) for draw in range(12)]
    assert sum(plan.over_random is not None and plan.over_random.low > 0 for plan in plans) <= 1
