"""Which threshold: Learn-then-Test with fixed sequences that begin at several ranks.

Learn-then-Test (A. N. Angelopoulos, S. Bates, E. J. Candes, M. I. Jordan, L. Lei, Learn then Test: calibrating predictive
algorithms to achieve risk control, 2021) turns the search for a threshold into tests of "the error rate at this threshold is
above max_error", one hypothesis a threshold, with the probability of any false rejection bounded. A fixed sequence tests from
strict to loose and stops at the first threshold that it cannot reject, each at the full level. One sequence from the strictest
threshold stops for lack of hits, so several begin at different numbers of hits and share the level (their section on multiple
starts; W. Wiens, Pharmaceutical Statistics 2, 2003). A sequence that is still going where another begins goes on together with it,
at both their levels (the fallback procedure: B. L. Wiens and A. Dmitrienko, J. Biopharm. Statistics 15, 2005).

Why that holds here, where thresholds are not fixed beforehand but are the scores of the labels. Cells are the gaps of a grid
that was fixed before (grid.py); the candidate of a cell T that holds a label serves the scores above that cell.

1. Starts are ranks that depend on the number of labels only. Given that the label of a rank lies in cell T, and how many labels
   lie above T, those are independent draws from the scores above T: their errors are binomial. (With weights: e-values hold.)
2. Call T bad when the error rate above it is greater than max_error, and let B(s) be the highest bad cell at or below start s.
   A false rejection from start s must first reject the first candidate at or below B(s), whose hits are those above B(s), the
   same as for the fixed cell B(s). So what counts is the test of B = B(s), given that start s lies between B and the next bad
   cell B' above it: given, that is, that fewer labels than the rank of s lie in or above B'.
3. The error rate from B' upwards, that cell included, is at most max_error (what follows below it is good), that of the hits
   between B and B' therefore above it. Fewer labels above B' thus mean more errors: the condition makes rejections rarer, never
   more frequent, than the plain test of B, whose p-value is valid. So one sequence of level a is wrong with probability a.
4. Sequences that reach B together test at the sum of their levels, a sum that falls as the number L of labels in B' and above
   grows. With e-values: P(E >= 1 / (a V(L))) <= a E[V(L) E], and the e-value grows with L while V falls, so that is at most
   a E[V(L)]. With binomial tests: P(L < rank | errors) grows with the errors, hence given a rejection it is at most
   P(L < rank) / (1 - a); all together a / (1 - a). Therefore a = level / (1 + level) is used, which costs 2% of 5%.
5. A sequence joins another only when the start's own candidate is rejected at its level alone: otherwise a level could be spent
   twice on one bad cell.

So the promise holds for every distribution, with ties and without, also where the error does not fall with the score.
tests/calibration and tests/promises try it on both.
"""

from __future__ import annotations

import math

import numpy as np

from nbllm.calibration.checks import Counts, Floats

SCALES = (12, 25, 50, *(base * 10**power for power in range(8) for base in (120, 300, 800)))
"""Sequences begin at the fewest hits that can pass, at 12, 25, 50, 120, ... hits over max_error, and at the last label."""
_AT_50, _BEYOND, _LAST = 2.0, 0.5, 0.25
"""Shares of the level beside the 1 of the others: where half the error is to be found 9 times in 10 it is twice as much."""
_APART = 1.25
_TO_SPARE = 1.25
"""The first sequence begins at some hits more than it needs: with ties a rank has fewer labels above it."""
_ABOUT = 6
"""Among about so many sequences the level is split."""


def share_of(level: float) -> float:
    """Return what one of the sequences may spend of a level, about."""
    return level / _ABOUT


def fewest_hits(max_error: float, level: float) -> int:
    """Return from how many hits on a test at this level can be passed, if none of them is wrong."""
    return math.ceil(math.log(level) / math.log1p(-max_error))


def starts_of(n: int, max_error: float, level: float) -> tuple[Counts, Floats]:
    """Return the ranks (1 = highest score) where sequences begin and what each may spend of the level: (s,), (s,), adding up to it.

    By simulations over sharp and blurred scores (docs/calibration.md) it matters that one begins at every scale, that few do,
    and that one begins at the last label: that one finds what holds for all hits when the score says nothing.
    """
    wide = [(math.ceil(scale / max_error) + 1, _share(scale)) for scale in SCALES]
    wide = [(rank, share) for rank, share in wide if rank * _APART < n]
    first = fewest_hits(max_error, level / (1 + _LAST + sum(share for _, share in wide)) / _TO_SPARE) + 1
    begun = [
        (rank, share) for rank, share in [(first, 1.0), *wide] if rank * _APART < n and (rank == first or rank > first * _APART)
    ]
    ranks, shares = zip(*begun, (n, _LAST), strict=True)
    return np.array(ranks, dtype=np.int64), level * np.array(shares) / sum(shares)


def _share(scale: int) -> float:
    return _AT_50 if scale == 50 else _BEYOND if scale > 50 else 1.0


def loosest_rejected(p_values: Floats, cells: Counts, levels: Floats) -> int | None:
    """Return the index of the loosest candidate that some sequence rejects, None where none does.

    p_values (c,): of the candidates, strict to loose. cells (s,): at which candidate each sequence begins, in rising order.
    levels (s,): what each may spend.
    """
    found: int | None = None
    carried = 0.0
    begins, where = np.unique(cells, return_inverse=True)
    own = np.bincount(where, weights=levels)
    for i, begin in enumerate(begins):
        level = own[i] + carried
        failed = np.flatnonzero(p_values[begin:] > level)
        end = int(begin + failed[0]) if failed.size else p_values.size
        if end > begin:
            found = end - 1
        joins = i + 1 < begins.size and end > begins[i + 1]
        carried = level if joins else 0.0
    return found
