"""The semantic cache at a similarity: how much it would serve, what share of that may be wrong, what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbllm.core.messages import Attempt
from nbllm.core.ports import Filter
from nbllm.errors import InvalidLabels, InvalidRequest

if TYPE_CHECKING:
    from nbllm.calibration import ThresholdPlan
    from nbllm.core.ports.matches import Match
    from nbllm.semantic_plans import Calibration

Floats = NDArray[np.float64]
MOST_MATCHES = 10_000
"""So many of the newest matches are looked at, and so many calls since the first of them."""
_GRID = tuple(round(0.5 + step / 100, 2) for step in range(51))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SemanticData:
    """What the semantic cache has met.

    scores (n,): similarities of the matches that count (no guard spoke against them); saved_usd (n,): USD that serving each would
    save or has saved, NaN unknown. stopped: matches that a guard stopped. calls: since the first match, exact hits included; more:
    there are older ones, which are not looked at. calibration: what the labels say; why_not: why nothing can be said, "" otherwise.
    waiting: matches offered for a label. simulated: the dollars are a simulated model's. example: nothing of this was recorded.
    """

    scores: Floats
    saved_usd: Floats
    stopped: int = 0
    calls: int = 0
    more: bool = False
    calibration: Calibration | None = None
    why_not: str = ""
    waiting: int = 0
    simulated: bool = False
    example: bool = False

    @property
    def plan(self) -> ThresholdPlan | None:
        """The threshold and its curve, or the refusal with its curve; None without labels."""
        return None if self.calibration is None else self.calibration.plan

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where a slider may stand, loose to strict: points of the curve, which alone have bounds; a plain grid without labels."""
        plan = self.plan
        return _GRID if plan is None or not len(plan.curve) else tuple(sorted(point.threshold for point in plan.curve))

    @property
    def start(self) -> float:
        """Where the slider stands first: the plan's threshold, else the point with the least bound, else 0.9."""
        plan = self.plan
        if plan is None or not len(plan.curve):
            return 0.9
        return plan.threshold if plan.threshold is not None else min(plan.curve, key=lambda p: p.error_upper).threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticNumbers:
    """One similarity. Shares are 0 to 1; None: unknown.

    served: of the recorded matches, so many are at least that similar; served_share: of all calls since the first of them.
    saved_usd: what these save, of those whose cost is known; unknown_cost: of how many it is not. hit_rate, error_rate,
    error_upper, hits, errors: of the labels, as ThresholdPlan.curve has them; error_upper holds for all similarities at once.
    """

    threshold: float
    served: int
    served_share: float | None
    saved_usd: float
    unknown_cost: int
    hit_rate: float | None
    error_rate: float | None
    error_upper: float | None
    hits: int | None
    errors: int | None


def at(data: SemanticData, threshold: float) -> SemanticNumbers:
    """Return what a similarity means. With labels it is moved up to the next point of the curve: only those have bounds."""
    point = None if data.plan is None else data.plan.at(threshold)
    where = threshold if point is None else point.threshold
    served = data.scores >= where
    saved = data.saved_usd[served]
    count = int(np.count_nonzero(served))
    return SemanticNumbers(
        threshold=where,
        served=count,
        served_share=min(1.0, count / data.calls) if data.calls else None,
        saved_usd=float(np.nansum(saved)),
        unknown_cost=int(np.count_nonzero(np.isnan(saved))),
        hit_rate=None if point is None else point.hit_rate,
        error_rate=None if point is None else point.error_rate,
        error_upper=None if point is None else point.error_upper,
        hits=None if point is None else point.hits,
        errors=None if point is None else point.errors,
    )


def read(client: Any, *, max_error: float = 0.05, confidence: float = 0.95) -> SemanticData:
    """Return what a client's home knows. Labels are calibrated on, which is a look at them where they have changed.

    Raises InvalidLabels for rates out of range.
    """
    book = client.semantic
    matches = book.matches(MOST_MATCHES)
    calibration, why_not = None, ""
    try:
        calibration = book.calibrate(max_error=max_error, confidence=confidence)
    except InvalidLabels:  # what was asked for makes no sense; no labels at all is another thing
        raise
    except InvalidRequest as error:
        why_not = error.summary
    counting = [match for match in matches if not match.failed]
    calls, saved = _calls(client, matches, counting)
    return SemanticData(
        scores=np.array([match.score for match in counting], dtype=np.float64),
        saved_usd=saved,
        stopped=len(matches) - len(counting),
        calls=calls,
        more=len(matches) == MOST_MATCHES,
        calibration=calibration,
        why_not=why_not,
        waiting=book.waiting(),
        simulated=any(match.rung.startswith("sim/") for match in matches),
    )


def _calls(client: Any, matches: Sequence[Match], counting: Sequence[Match]) -> tuple[int, Floats]:
    """Return how many calls there were since the first match, and what each match that counts saves, in USD."""
    if not matches:
        return 0, np.zeros(0)
    first = client.ledger.call(matches[-1].call_id)
    where = Filter(since=matches[-1].at if first is None else first.started_at)
    (total,) = client.ledger.usage("total", where) or (None,)
    rows = {call.call_id: call for call in client.ledger.calls(where, limit=MOST_MATCHES)}
    costs = costs_of(client.ledger.attempts_of(where, limit=MOST_MATCHES))

    def saved(match: Match) -> float:
        row = rows.get(match.call_id)
        if match.kind == "hit":
            if row is not None and (row.source != "semantic" or row.rung != match.rung):
                return 0.0  # a cascade rejected it
            return np.nan if row is None or row.saved_usd is None else float(row.saved_usd)
        return costs.get((match.call_id, match.rung), np.nan)

    return (0 if total is None else total.calls), np.array([saved(match) for match in counting], dtype=np.float64)


def costs_of(attempts: Sequence[Attempt]) -> dict[tuple[str, str], float]:
    """Return what answering cost in USD, by call and rung; NaN where unknown. What helpers cost (embeddings) is not in it."""
    costs: dict[tuple[str, str], float] = {}
    for attempt in attempts:
        if attempt.sent is not False and attempt.purpose in {"answer", "repair"}:
            cost = np.nan if attempt.cost_usd is None else float(attempt.cost_usd)
            of = (attempt.call_id, attempt.rung)
            costs[of] = costs.get(of, 0.0) + cost
    return costs
