"""The thresholds that can be chosen: numbers of six significant digits, fixed before any score is seen."""

from __future__ import annotations

import numpy as np

from nbllm.calibration.checks import Floats

DIGITS = 6
FINEST = 12
"""Decimal places of the finest step, so that the grid has a next number above 0 too."""


def next_above(scores: Floats) -> Floats:
    """Return for finite scores (n,) the smallest number of the grid that is greater than each, (n,).

    The grid is all numbers of DIGITS significant decimal digits, in steps of 10^-FINEST at least. A threshold from it reads well
    in a file, and `score >= threshold` means exactly what was tested: two scores lie between the same two numbers of the grid,
    or the greater one is at or above the next_above of the other. It does not depend on the scores, so choosing from it by rank
    costs nothing (see sequences.py).
    """
    values = np.asarray(scores, dtype=np.float64)
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        exponent = np.where(size > 0, np.floor(np.log10(size)), -FINEST)
    # Below a power of ten the steps are finer: -1 is followed by -0.999999, while 1 is followed by 1.00001.
    exponent -= (values < 0) & (size <= 10.0**exponent)
    places = np.minimum(DIGITS - 1 - exponent, FINEST)
    up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
    steps = np.floor(values * up / down) + 1
    # A quotient that was rounded may be one step off.
    steps -= (steps - 1) * down / up > values
    steps += steps * down / up <= values
    result: Floats = steps * down / up + 0.0  # no -0.0
    return result
