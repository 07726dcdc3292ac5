"""A calibrated threshold, or why there is none: what is kept, shown, drawn and switched on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.calibration.agreement import Agreement
from nbllm.calibration.alternatives import Alternative
from nbllm.calibration.curve import Curve, CurvePoint
from nbllm.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdPlan:
    """What calibrate_threshold found. Plans are equal when all they hold is.

    threshold: serve would-be hits with score >= threshold; None where none can be promised. reason: the promise and for whom it
    holds, or why there is none and what would help. hit_rate: the share of would-be hits that it serves (0 to 1); error_rate:
    wrong hits over hits, as observed; error_upper: what the true error rate does not exceed, with `confidence`; hits, errors:
    labels behind these. All None when refused. n: labels used. level: what this look spent of 1 - confidence. origin: "audit",
    "imported" or "judge"; left_out: (origin, rows) not used. weighted: labels counted unequally, none more than max_weight.
    more_labels: how many more would do at the observed error (0 for a plan, None: no number would). curve: every threshold's cost.
    embedder, date: as given. data_hash: SHA-256 of the sorted labels.
    """

    threshold: float | None
    reason: str
    hit_rate: float | None
    error_rate: float | None
    error_upper: float | None
    hits: int | None
    errors: int | None
    n: int
    max_error: float
    confidence: float
    look: int
    level: float
    origin: str
    left_out: tuple[tuple[str, int], ...]
    weighted: bool
    max_weight: float
    more_labels: int | None
    alternatives: tuple[Alternative, ...]
    agreement: Agreement | None
    embedder: str | None
    date: str | None
    data_hash: str
    seed: int
    curve: Curve

    @property
    def accepted(self) -> bool:
        """Whether there is a threshold."""
        return self.threshold is not None

    @property
    def foreign(self) -> bool:
        """Whether its labels are no sample of the traffic: switching it on takes accept_foreign=True."""
        return self.origin != "audit"

    @property
    def plan_id(self) -> str:
        """A name for ledgers and logs that changes with anything the plan holds: 12 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def at(self, threshold: float) -> CurvePoint | None:
        """Return what may be promised for another threshold: the curve's point at it, else the next stricter one."""
        return self.curve.at(threshold)

    def to_json(self) -> str:
        """Return the plan as text, one line a fact and one a threshold of the curve, so that it reads well in a diff."""
        from nbllm.calibration.plan_json import written

        return written(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> ThresholdPlan:
        """Read a plan back. Raises InvalidPlan where the text is none, or one whose numbers contradict each other."""
        from nbllm.calibration.plan_json import read

        return read(cls, text)

    def to_settings(self, path: str = "nbllm-plan.json") -> dict[str, Any]:
        """Return the settings under [tool.nbllm.semantic_cache] that switch the plan on, once it is saved as `path`.

        A foreign plan needs accept_foreign beside them, which only a person can add. Raises ConfigurationError without a threshold.
        """
        if self.threshold is None:
            raise ConfigurationError(f"This plan was refused, so there is nothing to switch on. {self.reason}")
        settings: dict[str, Any] = {"mode": "on", "plan": path}
        return settings | ({"embedder": self.embedder} if self.embedder else {})

    def plot(self) -> Figure:
        """Return a matplotlib Figure of the curve: share of hits against error, observed and bounded, and the threshold chosen."""
        from nbllm.calibration.plan_plot import drawn

        return drawn(self)

    def __str__(self) -> str:
        """Return the plan in words."""
        return self.reason

    def _repr_html_(self) -> str:
        """Return the plan as HTML of our own numbers and escaped text."""
        from nbllm.calibration.plan_html import html

        return html(self)
