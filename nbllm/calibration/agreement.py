"""How far a judge's labels can be trusted: beside hand labels of the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nbllm.calibration.binomial import lower_bound, upper_bound
from nbllm.errors import InvalidLabels


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge beside hand labels of n rows.

    agree: the share of rows where both say the same, and its 95% interval low to high (Clopper-Pearson). kappa: Cohen's kappa,
    agreement beyond chance, None where both say one thing only. missed: of the rows that are wrong by hand, the share that the
    judge calls correct (None without such rows): this is how much a plan made from its labels is too hopeful.
    """

    n: int
    agree: float
    low: float
    high: float
    kappa: float | None
    missed: float | None

    def __str__(self) -> str:
        """Return it in one sentence."""
        missed = "" if self.missed is None else f"; it called {self.missed:.1%} of the wrong ones correct"
        return f"The judge agrees with {self.agree:.1%} of {self.n:,} hand labels ({self.low:.1%} to {self.high:.1%}){missed}."


def judge_agreement(judge: ArrayLike, hand: ArrayLike) -> Agreement:
    """Compare a judge's labels with hand labels of the same rows, True for correct; both (n,). Raises InvalidLabels.

    Kappa after J. Cohen, Educational and Psychological Measurement 20, 1960.
    """
    says, truth = np.asarray(judge), np.asarray(hand)
    if says.shape != truth.shape or says.ndim != 1 or not says.size:
        raise InvalidLabels(
            f"judge has the shape {says.shape}, hand has {truth.shape}.", hint="Both (n,), the same rows, one or more."
        )
    for name, column in (("judge", says), ("hand", truth)):
        if not np.isin(column, (False, True)).all():
            raise InvalidLabels(f"{name} holds something that is neither True nor False.", hint="Leave out rows without a label.")
    says, truth = says.astype(np.bool_), truth.astype(np.bool_)
    n, same = says.size, int(np.count_nonzero(says == truth))
    chance = float(says.mean() * truth.mean() + (1 - says.mean()) * (1 - truth.mean()))
    k, size, level = np.array([same]), np.array([n]), np.array([0.025])
    return Agreement(
        n=n,
        agree=same / n,
        low=float(lower_bound(k, size, level)[0]),
        high=float(upper_bound(k, size, level)[0]),
        kappa=None if chance >= 1 else (same / n - chance) / (1 - chance),
        missed=float(says[~truth].mean()) if not truth.all() else None,
    )
