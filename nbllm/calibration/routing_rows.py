"""What a route is calibrated on, checked: every question about bad input is answered here, in words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nbllm.calibration.ridge import TINY, Floats, Ints
from nbllm.calibration.route_intervals import unit_sums
from nbllm.errors import InvalidRequest

QualityFrom = Literal["labels", "check", "judge", "agreement"]
"""Where qualities came from: hand labels, a check function, a judge model, or agreement with the strong model's answer."""

MIN_PROMPTS = 20
"""Fewer different prompts cannot be cut into folds of five, and no interval from them would be worth reading."""


@dataclass(frozen=True, slots=True)
class RoutingRows:
    """n labelled rows of U different prompts.

    unit (n,): which prompt a row belongs to, 0 to U-1: equal prompts, whatever their white space and case, are one, so that they
    never stand on both sides of a fold. embeddings (U, d), features (U, 1): of the prompts. weak, strong (n,): qualities. Costs
    (n,) in USD a call, None where unknown. low, high: the scale of the qualities.
    """

    unit: Ints
    embeddings: Floats
    features: Floats
    weak: Floats
    strong: Floats
    weak_cost_usd: Floats | None
    strong_cost_usd: Floats | None
    low: float
    high: float
    sha256: str
    notes: tuple[str, ...]

    @property
    def gain(self) -> Floats:
        """Quality of strong minus that of weak, a row (n,)."""
        return self.strong - self.weak

    @property
    def counts(self) -> Floats:
        """Rows a prompt (U,)."""
        return np.bincount(self.unit, minlength=len(self.embeddings)).astype(np.float64)

    @property
    def unit_gain(self) -> Floats:
        """Mean gain a prompt (U,)."""
        gains: Floats = np.bincount(self.unit, weights=self.gain, minlength=len(self.embeddings)) / self.counts
        return gains


def length_features(prompts: Sequence[str]) -> Floats:
    """Return what is used of a prompt's length (n, 1): the logarithm of its characters."""
    return np.log1p(np.array([len(prompt) for prompt in prompts], dtype=np.float64))[:, None]


def routing_rows(
    prompts: Sequence[str],
    embeddings: Any,
    weak_quality: Any,
    strong_quality: Any,
    weak_cost_usd: Any,
    strong_cost_usd: Any,
) -> RoutingRows:
    """Check the input of calibrate_route. Raises InvalidRequest that names the argument, the row and what to do."""
    texts = prompts_of(prompts)
    n = len(texts)
    vectors = matrix("embeddings", embeddings, n)
    weak, strong = column("weak_quality", weak_quality, n), column("strong_quality", strong_quality, n)
    costs = [_cost(name, value, n) for name, value in (("weak_cost_usd", weak_cost_usd), ("strong_cost_usd", strong_cost_usd))]
    names: dict[str, int] = {}
    unit = np.array([names.setdefault(" ".join(text.split()).casefold(), len(names)) for text in texts], dtype=np.int64)
    if len(names) < MIN_PROMPTS:
        given = f"{n} {'prompt' if n == 1 else 'prompts'}{'' if len(names) == n else f' ({len(names)} different)'}"
        raise InvalidRequest(
            f"A route cannot be calibrated on {given}: too few to hold any out and test.",
            hint=f"Give at least {MIN_PROMPTS} different labelled prompts; from about 200 on the intervals become useful.",
        )
    _refuse_without_gap(weak, strong)
    counts = np.bincount(unit).astype(np.float64)
    mean_vectors = vectors if len(names) == n else unit_sums(unit, vectors, len(names)) / counts[:, None]
    first = np.unique(unit, return_index=True)[1]
    low, high = _scale(weak, strong)
    return RoutingRows(
        unit=unit,
        embeddings=mean_vectors,
        features=length_features(texts)[first],
        weak=weak,
        strong=strong,
        weak_cost_usd=costs[0],
        strong_cost_usd=costs[1],
        low=low,
        high=high,
        sha256=_digest(texts, vectors, weak, strong, *costs),
        notes=_notes(n, len(names), vectors, (low, high), costs),
    )


def prompts_of(prompts: Any) -> list[str]:
    """Return the prompts as a list of strings. Raises InvalidRequest."""
    if isinstance(prompts, str | bytes) or not hasattr(prompts, "__len__"):
        raise InvalidRequest("prompts is not a list of strings.", hint="Give one string a row: prompts=[...].")
    texts = list(prompts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidRequest(f"prompts[{row}] is {type(text).__name__}, not a string.", hint="Give the text that is sent.")
    return texts


def _numbers(name: str, values: Any, shape: str, hint: str) -> Floats:
    """Return an array of floats of any shape. Raises InvalidRequest."""
    try:
        found: Floats = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name} is no {shape} of numbers: {error}.", hint=hint) from error
    return found


def matrix(name: str, values: Any, n: int) -> Floats:
    """Return embeddings as (n, d) floats. Raises InvalidRequest for another shape, NaN or infinity."""
    found = _numbers(name, values, "array", "Give one vector a prompt, all of one length.")
    if found.ndim != 2 or found.shape[0] != n or not found.shape[1]:
        raise InvalidRequest(
            f"{name} has the shape {found.shape}, and there are {n} prompts.", hint=f"Give one vector a prompt: ({n}, d)."
        )
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if bad.size:
        raise InvalidRequest(
            f"{name}[{bad[0]}] holds a number that is not finite ({bad.size} of {n} rows do).",
            hint="Embed these prompts again, or leave their rows out.",
        )
    return found


def column(name: str, values: Any, n: int) -> Floats:
    """Return one number a prompt (n,). Raises InvalidRequest for another length, NaN or infinity."""
    found = _numbers(name, values, "list", "Give one number a prompt; True and False count.")
    if found.shape != (n,):
        raise InvalidRequest(f"{name} has the shape {found.shape}, and there are {n} prompts.", hint=f"Give {n} numbers.")
    bad = np.flatnonzero(~np.isfinite(found))
    if bad.size:
        raise InvalidRequest(
            f"{name}[{bad[0]}] is {found[bad[0]]} ({bad.size} of {n} rows are not finite).",
            hint="Leave the rows without a label out of all arguments; a missing label is not a wrong answer.",
        )
    return found


def _cost(name: str, value: Any, n: int) -> Floats | None:
    if value is None:
        return None
    try:  # by float(), because money may come as Decimal, and numpy makes objects of those
        plain = [float(value)] * n if np.ndim(value) == 0 else [float(one) for one in value]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{name} is no number and no list of numbers: {error}.", hint="Give USD a call; None: unknown."
        ) from error
    found = column(name, plain, n)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise InvalidRequest(
            f"{name}[{row}] is {found[row]:g}: a cost cannot be negative.", hint="Give USD a call, or None: unknown."
        )
    return found


def _refuse_without_gap(weak: Floats, strong: Floats) -> None:
    if np.array_equal(weak, strong):
        raise InvalidRequest(
            f"The weak and the strong model have the same quality on each of the {len(weak)} rows: there is no gap to recover, "
            "and nothing that a route could learn.",
            hint="Send everything to the cheaper model, or label prompts on which the two differ.",
        )


def _scale(weak: Floats, strong: Floats) -> tuple[float, float]:
    low, high = float(min(weak.min(), strong.min())), float(max(weak.max(), strong.max()))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _notes(n: int, units: int, vectors: Floats, scale: tuple[float, float], costs: list[Floats | None]) -> tuple[str, ...]:
    notes = []
    if units < n:
        notes.append(f"{n} rows are of {units} different prompts; equal ones were kept together in every fold and every resample.")
    zeros = int(np.count_nonzero(~vectors.any(axis=1)))
    if zeros:
        notes.append(f"{zeros} of {n} embeddings are zero vectors: ask the embedder why.")
    spread = float(np.sum((vectors - vectors.mean(axis=0)) ** 2))
    if spread <= TINY * max(TINY, float(np.sum(vectors**2))):
        notes.append("All embeddings are equal, so they tell nothing: the route goes by length alone.")
    if scale != (0.0, 1.0):
        notes.append(f"Qualities are on a scale from {scale[0]:g} to {scale[1]:g}, as seen in these rows.")
    if any(cost is None for cost in costs):
        notes.append("A cost is unknown, so nothing is said about money.")
    return tuple(notes)


def _digest(texts: list[str], *arrays: Floats | None) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
