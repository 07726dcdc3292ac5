"""Labels of requests from their embeddings: fitted on labelled requests, kept as JSON, used by routes of strategy "learned".

    plan = fit_labels(embeddings, labels)              # (n, d) and n labels such as "easy", "hard"
    Path("routes/kind.json").write_text(plan.to_json())

How often it is right is measured on requests that the fit had not seen (5 folds), beside what always naming the commonest label
would get. Routing chooses among models, it promises no quality; for that there is calibrate_route.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from nbllm.calibration.logistic import Floats, Ints, fit, shares
from nbllm.calibration.routing_rows import matrix
from nbllm.errors import InvalidRequest

KIND = "nbllm label plan 1"
Method = Literal["logistic", "nearest"]
FOLDS = 5
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_NEIGHBOURS = (1, 3, 5, 9, 15)
_HINT = "Write plans with plan.to_json(), and do not edit them: fit again instead."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelPlan:
    """What fit_labels found. accuracy: share of labels that were right on requests not fitted on; commonest: of the commonest one.

    n: requests. setting: the penalty of the regression, or how many neighbours are asked. weights: (labels, d + 1). vectors (n, d)
    and codes (n,): the labelled neighbours. embedder, date: as given. sha256: of the data.
    """

    method: Method
    labels: tuple[str, ...]
    accuracy: float
    commonest: float
    n: int
    setting: float
    seed: int
    embedder: str
    date: str
    sha256: str
    weights: Floats = field(repr=False)
    vectors: Floats = field(repr=False)
    codes: Ints = field(repr=False)

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return int(self.vectors.shape[1] if self.method == "nearest" else self.weights.shape[1] - 1)

    def label(self, embeddings: Any) -> tuple[list[str], list[float]]:
        """Return the label of each row of embeddings (n, d), and its share: of the probability, or of the neighbours' votes.

        Raises InvalidRequest for other shapes and for numbers that are not finite.
        """
        x = matrix("embeddings", embeddings, len(embeddings))
        if x.shape[1] != self.dimension:
            raise InvalidRequest(
                f"The embeddings have {x.shape[1]} dimensions, the plan was fitted with {self.dimension}.",
                hint=f"Use the embedder of the plan{f', {self.embedder}' if self.embedder else ''}, or fit again.",
            )
        found = self._shares(x)
        best = found.argmax(axis=1)
        return [self.labels[code] for code in best], [float(row[code]) for row, code in zip(found, best, strict=True)]

    def _shares(self, x: Floats) -> Floats:
        if self.method == "logistic":
            return shares(self.weights, x)
        return _votes(self.vectors, self.codes, x, len(self.labels), int(self.setting))

    def to_json(self) -> str:
        """Return the plan as JSON to keep beside nbllm.toml: a line a fact, a line a label or neighbour; no text of a request."""
        facts = {"kind": KIND, **{name: getattr(self, name) for name in _FACTS}}
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
        if self.method == "logistic":
            rows = [json.dumps([float(f"{value:.7g}") for value in row]) for row in self.weights]
            lines.append('  "weights": [\n    ' + ",\n    ".join(rows) + "\n  ]")
        else:
            # Each neighbour's numbers as little-endian float32 in base64: as decimals they would be three times as long.
            texts = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in self.vectors]
            pairs = [
                json.dumps([self.labels[code], text], ensure_ascii=False) for code, text in zip(self.codes, texts, strict=True)
            ]
            lines.append('  "neighbours": [\n    ' + ",\n    ".join(pairs) + "\n  ]")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> LabelPlan:
        """Return the plan that to_json wrote. Raises InvalidRequest for other text."""
        try:
            facts = json.loads(text)
            labels = tuple(map(str, facts["labels"]))
            weights, vectors, codes = np.zeros((0, 1)), np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
            if facts["method"] == "logistic":
                weights = np.array(facts["weights"], dtype=np.float64)
            else:
                rows = facts["neighbours"]
                vectors = np.stack([np.frombuffer(base64.b64decode(row), dtype="<f4") for _, row in rows]).astype(np.float64)
                codes = np.array([labels.index(label) for label, _ in rows], dtype=np.int64)
            plain = {name: facts[name] for name in _FACTS if name != "labels"}
            plan = cls(**plain, labels=labels, weights=weights, vectors=vectors, codes=codes)
            _check(plan, str(facts["kind"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"A text is no label plan: {error!r}.", hint=_HINT) from error
        return plan


_FACTS = ("method", "labels", "accuracy", "commonest", "n", "setting", "seed", "embedder", "date", "sha256")


def fit_labels(
    embeddings: Any, labels: Sequence[str], *, method: Method = "logistic", seed: int = 0, embedder: str = "", date: str = ""
) -> LabelPlan:
    """Fit labels on embeddings (n, d): by logistic regression, or by the nearest labelled neighbours (cosine).

    seed: of the folds. embedder, date: kept with the plan. Raises InvalidRequest for fewer than 2 labels, a label of fewer than
    FOLDS requests, lengths that differ and numbers that are not finite.
    """
    names = [str(label).strip() for label in labels]
    if len(names) != len(embeddings):
        raise InvalidRequest(
            f"There are {len(embeddings)} embeddings and {len(names)} labels.", hint="Give one label for each row."
        )
    x = matrix("embeddings", embeddings, len(names))
    if method not in ("logistic", "nearest"):
        raise InvalidRequest(f"There is no method {method!r}.", hint='Use "logistic" or "nearest".')
    known, codes = _coded(names)
    settings = _PENALTIES if method == "logistic" else tuple(k for k in _NEIGHBOURS if k < len(x))
    folds = _folds(codes, seed)
    right = {setting: _held_out(x, codes, len(known), folds, method, setting) for setting in settings}
    setting = max(settings, key=lambda one: right[one])
    digest = sha256(x.astype("<f4").tobytes() + "\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()
    near = method == "nearest"
    return LabelPlan(
        method=method,
        labels=tuple(known),
        accuracy=right[setting],
        commonest=float(np.bincount(codes).max() / len(x)),
        n=len(x),
        setting=float(setting),
        seed=seed,
        embedder=embedder,
        date=date,
        sha256=digest,
        weights=np.zeros((0, 1)) if near else fit(x, codes, len(known), setting),
        vectors=_unit(x).astype("<f4").astype(np.float64) if near else np.zeros((0, 0)),
        codes=codes if near else np.zeros(0, dtype=np.int64),
    )


def _coded(names: Sequence[str]) -> tuple[list[str], Ints]:
    """Return the different labels, sorted, and each row's place among them. Raises InvalidRequest where there are too few."""
    known, codes = np.unique(names, return_inverse=True)
    counts = np.bincount(codes)
    if len(known) < 2 or counts.min() < FOLDS:
        rare = ", ".join(f"{str(name)!r} ({count})" for name, count in zip(known, counts, strict=True))
        raise InvalidRequest(
            f"At least two labels with {FOLDS} requests each are needed, and there are: {rare}.", hint="Label some more requests."
        )
    return [str(name) for name in known], codes.astype(np.int64)


def _folds(codes: Ints, seed: int) -> Ints:
    """Return each row's fold: every label is spread over all of them."""
    draw = np.random.default_rng(seed)
    folds = np.zeros(len(codes), dtype=np.int64)
    for code in range(codes.max() + 1):
        rows = draw.permutation(np.flatnonzero(codes == code))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def _held_out(x: Floats, codes: Ints, labels: int, folds: Ints, method: Method, setting: float) -> float:
    """Return the share of rows whose label is right when it is fitted on the other folds."""
    right = 0
    for fold in range(FOLDS):
        out = folds == fold
        if method == "logistic":
            found = shares(fit(x[~out], codes[~out], labels, setting), x[out])
        else:
            found = _votes(_unit(x[~out]), codes[~out], x[out], labels, int(setting))
        right += int((found.argmax(axis=1) == codes[out]).sum())
    return right / len(x)


def _votes(vectors: Floats, codes: Ints, x: Floats, labels: int, k: int) -> Floats:
    """Return the share of each label among the k nearest of unit vectors, (n, labels); a nearer one's vote decides a draw."""
    near = _unit(x) @ vectors.T
    k = min(k, near.shape[1])
    best = np.argsort(-near, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(x), labels))
    for place in range(k):
        votes[np.arange(len(x)), codes[best[:, place]]] += 1.0 + 1e-6 * (k - place)
    found: Floats = votes / votes.sum(axis=1, keepdims=True)
    return found


def _unit(x: Floats) -> Floats:
    found: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found


def _check(plan: LabelPlan, kind: str) -> None:
    """Raise ValueError for a plan of another kind, and for one whose parts do not fit together."""
    if kind != KIND:
        raise ValueError(f"it is of kind {kind!r}")
    held = plan.weights if plan.method == "logistic" else plan.vectors
    if plan.method not in ("logistic", "nearest") or held.ndim != 2 or not np.isfinite(held).all() or len(plan.labels) < 2:
        raise ValueError("its numbers do not fit together")
    if plan.method == "logistic" and len(plan.weights) != len(plan.labels):
        raise ValueError("it has not one line of weights for each label")
