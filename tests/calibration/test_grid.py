"""The grid of thresholds: fixed before scores are seen, readable, and exact with >=."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration.grid import next_above

numbers = st.one_of(
    st.floats(-1e9, 1e9),
    st.floats(-1, 1),
    st.integers(-1000, 1000).map(lambda n: n / 100),
    st.sampled_from([10.0**e for e in range(-14, 9)]).map(float),
    st.sampled_from([-(10.0**e) for e in range(-14, 9)]).map(float),
)


@given(numbers, numbers)
def test_cells_are_the_same_seen_from_either_side(a: float, b: float) -> None:
    """B reaches the threshold above a exactly when b lies in a higher cell: what is tested is what >= will do."""
    above_a, above_b = next_above(np.array([a, b]))
    assert above_a > a
    assert above_b > b
    assert (b >= above_a) == (above_b > above_a)
    assert (above_b >= above_a) or b < a, "a higher score never has a lower threshold"


@given(st.floats(1e-3, 0.999999))
def test_thresholds_read_well(score: float) -> None:
    """A threshold above a similarity has six digits, and is no further away than these show."""
    above = float(next_above(np.array([score]))[0])
    assert len(repr(above).removeprefix("0.").lstrip("0")) <= 6
    assert above - score <= 1.0001e-6 * 10 ** np.ceil(np.log10(score) + 1)
