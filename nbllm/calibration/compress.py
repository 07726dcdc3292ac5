"""Wide embeddings in fewer columns, so that a fit costs seconds. Labels play no part in it, and the weights are turned back."""

from __future__ import annotations

import numpy as np

from nbllm.calibration.ridge import TINY, Floats

EXACT = 768
"""Up to so many rows or columns nothing is lost: n rows span n directions at most."""
KEPT = 512
"""Beyond that, the directions with the most variance that are kept."""
_MORE = 16


def compress(x: Floats, rng: np.random.Generator) -> tuple[Floats, Floats | None]:
    """Return x (n, d) in k <= d columns and the orthonormal directions (d, k) that they stand for; None: they are the columns.

    With at most 768 rows the rows' own span is taken, which keeps every distance. Beyond 768 of both, the leading 512 principal
    directions, by a randomised range finder with one power iteration (N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53
    (2011), algorithm 4.4): ridge regression would hardly use the others.
    """
    n, d = x.shape
    if d <= min(n, EXACT) or d <= KEPT:
        return x, None
    centre = x.mean(axis=0)
    left = x - centre
    if n <= EXACT:
        s2, u = np.linalg.eigh(left @ left.T)
        kept = s2 > TINY * max(float(s2[-1]), TINY)
        directions = left.T @ (u[:, kept] / np.sqrt(s2[kept]))
    else:
        probe, _ = np.linalg.qr(left @ rng.standard_normal((d, KEPT + _MORE)))
        probe, _ = np.linalg.qr(left @ (left.T @ probe))
        directions = np.linalg.svd(probe.T @ left, full_matrices=False)[2][:KEPT].T
    if not directions.shape[1]:
        return np.zeros((n, 1)), np.zeros((d, 1))
    return left @ directions, directions
