from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.storage.money import to_pico, to_pico_or_none, to_usd, to_usd_or_none


@given(st.integers(-(2**62), 2**62))
def test_picodollars_go_there_and_back(pico):
    """No digit is lost, for any amount that fits."""
    assert to_pico(to_usd(pico)) == pico


@given(st.decimals(allow_nan=False))
def test_any_amount_fits(usd):
    """The largest are cut to what a column holds."""
    assert abs(to_pico(usd)) <= 2**62


def test_unknown_stays_unknown():
    """None is not 0, and NaN is no amount."""
    assert to_pico_or_none(None) is None
    assert to_usd_or_none(None) is None
    with pytest.raises(ValueError, match="not a number"):
        to_pico(Decimal("NaN"))
