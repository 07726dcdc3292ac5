"""The result of calibrate_route: a frozen plan that says what to expect, and routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbllm.calibration.ridge import Floats, Line
from nbllm.calibration.route_curve import RouteCurve, Summary
from nbllm.calibration.route_evidence import Evidence
from nbllm.calibration.route_intervals import Estimate
from nbllm.calibration.route_point import RoutePoint, point_at, predict, threshold_at
from nbllm.calibration.routing_rows import QualityFrom, length_features, matrix, prompts_of
from nbllm.errors import InvalidRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EQUAL = 1e-7
"""Predicted gains that differ by less than this share of the threshold are equal: a plan keeps eight digits."""


class Routed(NamedTuple):
    """Which prompts go to strong (n,), and the gain that was predicted for each (n,)."""

    strong: NDArray[np.bool_]
    scores: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutePlan:
    """A calibrated route between a weak and a strong model. All its numbers come from prompts that the scoring model had not seen.

    chosen_share: the point at which `route` works, changed by `choose`. rows, prompts: how many labelled rows, of how many
    different prompts. quality_from: where the qualities came from. weak, strong, embedder, date: names given by the caller, "" when
    not given. penalty: of the ridge regression, infinite where length alone was best. sha256: of all the data. notes: what a reader
    must know. knows_zero_vectors: whether some embeddings were zero. `curve` has all points; `at` one, with predictions; they hold
    for requests like those that were labelled.
    """

    curve: RouteCurve
    summary: Summary
    line: Line
    evidence: Evidence
    chosen_share: float
    rows: int
    prompts: int
    quality_from: QualityFrom
    confidence: float
    seed: int
    penalty: float
    sha256: str
    notes: tuple[str, ...] = ()
    weak: str = ""
    strong: str = ""
    embedder: str = ""
    date: str = ""
    knows_zero_vectors: bool = False

    # ------------------------------------------------------------------------------------------------ numbers

    @property
    def apgr(self) -> Estimate | None:
        """Average performance gap recovered over all shares of strong calls: 0.5 is random choice. None: there is no positive gap.

        The area under the curve of quality recovered, by trapezoids, as in RouteLLM (I. Ong et al., 2024, arXiv:2406.18665).
        """
        return self.summary.apgr

    @property
    def length_only_apgr(self) -> Estimate | None:
        """The same of a router that knows the prompt's length alone, fitted on the same folds."""
        return self.summary.length_apgr

    @property
    def over_random(self) -> Estimate | None:
        """APGR more than random choice, which has 0.5 on any data; paired."""
        return self.summary.over_random

    @property
    def over_length_only(self) -> Estimate | None:
        """APGR more than length alone, resampled together."""
        return self.summary.over_length

    @property
    def gap(self) -> Estimate:
        """Mean quality of strong minus that of weak."""
        return self.summary.gap

    # ------------------------------------------------------------------------------------------------- points

    def at(
        self,
        *,
        strong_share: float | None = None,
        cost_usd_per_call: float | None = None,
        quality_recovered: float | None = None,
        batch: int | None = None,
    ) -> RoutePoint:
        """Return one point, named by exactly one of its share of strong calls, its cost, or the quality that it recovers.

        cost_usd_per_call: as much strong as that mean cost pays for. quality_recovered: the fewest strong calls that recover so
        much of the gap (0 = all weak, 1 = all strong); that share is picked by what was measured, so the wider band is its
        interval. batch: also predict that many new requests. Without any, the chosen point. Raises InvalidRequest with the
        attainable range for what cannot be reached, and for what makes no sense.
        """
        from nbllm.calibration.route_choice import share_for

        share = share_for(self, strong_share, cost_usd_per_call, quality_recovered)
        point = point_at(self.curve, share, chosen_by_quality=quality_recovered is not None)
        if batch is None:
            return point
        if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
            raise InvalidRequest(f"batch={batch!r} is no number of requests.", hint="Give a whole number from 1 on.")
        return replace(point, batch=predict(self.evidence, self.curve, share, int(batch), self.confidence, self.seed))

    def choose(self, **point: float) -> RoutePlan:
        """Return the plan with another chosen point, named as in `at`: plan.choose(quality_recovered=0.9)."""
        return replace(self, chosen_share=self.at(**point).strong_share)  # type: ignore[arg-type]  # at() checks its arguments

    # ------------------------------------------------------------------------------------------------ routing

    def route(self, prompts: Sequence[str], embeddings: Any, **point: float) -> Routed:
        """Return which prompts go to strong at the chosen point, or at one named as in `at`, and the predicted gains.

        embeddings (n, d): of the embedder that the plan was calibrated with. Raises InvalidRequest for other shapes, numbers that
        are not finite, and zero vectors where none was calibrated on.
        """
        texts = prompts_of(prompts)
        vectors = matrix("embeddings", embeddings, len(texts)) if texts else np.zeros((0, self.dimension))
        self._check_vectors(vectors)
        scores = self.line(vectors, length_features(texts))
        threshold, ties = threshold_at(self.curve, self.at(**point).strong_share if point else self.chosen_share)  # type: ignore[arg-type]  # as above
        strong = scores > threshold
        for row in np.flatnonzero(np.abs(scores - threshold) <= _EQUAL * max(abs(threshold), _EQUAL)):
            strong[row] = _coin(texts[row]) < ties
        return Routed(strong, scores)

    def route_one(self, prompt: str, embedding: Any) -> tuple[bool, float]:
        """Return whether one prompt goes to strong at the chosen point, and its predicted gain: what a request in flight asks."""
        vector = np.asarray(embedding, dtype=np.float64)
        if vector.shape != self.line.penalised.shape or not vector.any() or not np.isfinite(vector).all():
            self._check_vectors(matrix("embeddings", np.atleast_2d(vector), 1))
        score = self.line.intercept + float(self.line.free[0] * np.log1p(len(prompt)) + vector @ self.line.penalised)
        threshold, ties = threshold_at(self.curve, self.chosen_share)
        if abs(score - threshold) <= _EQUAL * max(abs(threshold), _EQUAL):
            return _coin(prompt) < ties, score
        return bool(score > threshold), score

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return len(self.line.penalised)

    def _check_vectors(self, vectors: Floats) -> None:
        if vectors.shape[-1] != self.dimension or vectors.ndim != 2:
            raise InvalidRequest(
                f"The embeddings have {vectors.shape[-1]} dimensions, the plan was calibrated with {self.dimension}.",
                hint=f"Use the embedder of the plan{f', {self.embedder}' if self.embedder else ''}, or calibrate again.",
            )
        empty = np.flatnonzero(~vectors.any(axis=1))
        if empty.size and not self.knows_zero_vectors:
            raise InvalidRequest(
                f"embeddings[{empty[0]}] is a zero vector, which the plan has never seen ({empty.size} of {len(vectors)} are).",
                hint="The embedder did not embed this prompt: ask it again, or send the prompt down the fixed ladder.",
            )

    # -------------------------------------------------------------------------------------------------- faces

    def to_json(self) -> str:
        """Return the plan as JSON to keep beside nbllm.toml: short lines for a diff, numbers only, no prompt."""
        from nbllm.calibration.route_json import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> RoutePlan:
        """Return the plan that `to_json` wrote, equal in every number. Raises InvalidRequest for other text."""
        from nbllm.calibration.route_json import from_json

        return from_json(cls, text)

    def to_settings(self, path: str = "nbllm-route.json") -> dict[str, Any]:
        """Return the settings under [tool.nbllm.routes.NAME] that route by this plan, once it is saved as `path`.

        Models and embedder are in it as far as calibrate_route was told their names. A request that cannot be embedded goes to the
        model that answers more of the others.
        """
        found: dict[str, Any] = {"strategy": "learned", "plan": path, "strong_share": self.chosen_share}
        if self.embedder:
            found["embedder"] = self.embedder
        if self.weak and self.strong:
            found["labels"] = {"weak": [self.weak], "strong": [self.strong]}
            found["otherwise"] = [self.strong if self.chosen_share >= 0.5 else self.weak]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutePlan) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.sha256, self.seed, self.chosen_share))

    def __str__(self) -> str:
        """Return the plan in a few sentences."""
        from nbllm.calibration.route_words import sentences

        return "\n".join(sentences(self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from nbllm.calibration.route_view import html

        return html(self)

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw quality recovered over the share of strong calls, with its band, beside random and length alone."""
        from nbllm.calibration.route_view import plot

        return plot(self, figure)


def _coin(prompt: str) -> float:
    """Return a number from 0 to 1 that is the same for the same prompt everywhere, for scores that equal the threshold."""
    digest = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
