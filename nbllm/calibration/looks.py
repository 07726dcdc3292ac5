"""What one look at a label store may spend of the level, so that all looks together spend no more than was promised."""

from __future__ import annotations

import math

import numpy as np

from nbllm.errors import InvalidLabels

CURVE_SHARE = 0.1
"""The part of a look's level that pays for the curve; the rest pays for the threshold. Together they hold at once."""


def checked_look(look: object) -> int:
    """Return the number of a look. Raises InvalidLabels for what is none."""
    if isinstance(look, bool) or not isinstance(look, int | np.integer) or look < 1:
        raise InvalidLabels(f"look is {look!r}; what is asked for is 1, 2, 3 ...", hint="It counts calibrations on one store.")
    return int(look)


def level_of_look(confidence: float, look: int) -> float:
    """Return the level (0 to 1) of look number `look` = 1, 2, ...: (1 - confidence) * 6 / (pi^2 * look^2).

    The levels of all looks add up to 1 - confidence, because the sum of 1 / k^2 is pi^2 / 6. So by the union bound somebody who
    labels, calibrates, labels more and stops as soon as a plan is accepted is wrong with probability 1 - confidence at most,
    however many looks that takes (alpha spending: K. K. G. Lan and D. L. DeMets, Biometrika 70, 1983; with infinitely many looks
    as in A. Ramdas et al., Statistical Science 38, 2023, section 2). How many labels come between two looks must not be chosen
    by what those labels say: looking at the plan is what a look pays for.
    """
    return (1 - confidence) * 6 / (math.pi**2 * look**2)


def threshold_level(level: float) -> float:
    """Return what the threshold's tests may spend of a look's level."""
    return level * (1 - CURVE_SHARE)


def curve_level(level: float) -> float:
    """Return what the curve's bounds may spend of a look's level."""
    return level * CURVE_SHARE
