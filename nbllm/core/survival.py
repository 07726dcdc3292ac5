"""How long things take when some were cut short: the share that would exceed a limit, by Kaplan and Meier. Loads numpy.

A call that a deadline cut after 30 s took at least 30 s. Leaving it out, or counting it as 30 s, would make calls look faster than
they are. The product-limit estimate (E. L. Kaplan and P. Meier, J. Am. Stat. Assoc. 53, 1958) uses it as what it is. It assumes
that what cut a call does not depend on how long it would have gone on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Z = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share, 0 to 1, with a 95% interval. value None: not known, only that it is between low and high."""

    value: float | None
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as percent."""
        between = f"{_percent(self.low)} to {_percent(self.high)}"
        return f"between {between}" if self.value is None else f"{_percent(self.value)} ({between})"


@dataclass(frozen=True, slots=True, eq=False)
class Survival:
    """The share of times that are longer than a limit. n: times; cut: how many of them were cut short.

    at_s (m,): times that were seen whole, ascending; left (m,): the share longer than each; effective (m,): how many uncut times
    would say as much. last_s: the longest time, whole or cut. beyond: whether some are longer than that, nobody knows how much.
    """

    n: int
    cut: int
    at_s: Floats
    left: Floats
    effective: Floats
    last_s: float
    beyond: bool

    def longer_than(self, limit_s: float) -> Share:
        """Return the share of times that exceed a limit in seconds.

        The interval is Wilson's (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927) on the effective number of times, n where nothing was
        cut. Beyond the longest time, where that one was cut, nothing is known but that the share does not rise.
        """
        if not self.n:
            return Share(None, 0.0, 1.0)
        index = int(np.searchsorted(self.at_s, limit_s, side="right")) - 1
        value, n = (1.0, float(self.n)) if index < 0 else (float(self.left[index]), float(self.effective[index]))
        low, high = _wilson(value, n)
        if limit_s > self.last_s and self.beyond:
            return Share(None, 0.0, high)
        return Share(value, low, high)


def survival(times_s: Floats, cut: NDArray[np.bool_]) -> Survival:
    """Return the estimate for times (n,) in seconds, of which those with cut (n,) went on for longer. NaN times are left out."""
    known = np.isfinite(times_s)
    times, cut = times_s[known], cut[known]
    n = times.size
    whole = np.unique(times[~cut])
    at_risk = n - np.searchsorted(np.sort(times), whole, side="left")
    ended = np.searchsorted(np.sort(times[~cut]), whole, side="right") - np.searchsorted(np.sort(times[~cut]), whole, side="left")
    left = np.cumprod(1 - ended / np.maximum(at_risk, 1)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Greenwood's variance; the binomial share of this many times would vary as much.
        variance = left**2 * np.cumsum(ended / (at_risk * (at_risk - ended)))
        effective = left * (1 - left) / variance
    effective = np.where(np.isfinite(effective) & (effective > 0), effective, np.cumsum(ended))
    last_s = float(times.max()) if n else 0.0
    return Survival(
        n=n,
        cut=int(np.count_nonzero(cut)),
        at_s=whole,
        left=left,
        effective=np.clip(effective, 1.0, float(max(n, 1))),
        last_s=last_s,
        beyond=bool(left.size == 0 or left[-1] > 0),
    )


def _wilson(share: float, n: float) -> tuple[float, float]:
    middle = share + _Z**2 / (2 * n)
    reach = _Z * math.sqrt(max(0.0, share * (1 - share)) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return min(share, max(0.0, (middle - reach) / scale)), max(share, min(1.0, (middle + reach) / scale))


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}"
