"""From labels to a plan in force: calibration of a client's own labels, and what it takes to switch it on."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nbllm.core.ports.matches import Label
from nbllm.core.semantic.plan import PlanOrigin, SemanticPlan
from nbllm.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from nbllm.calibration import ThresholdPlan

FEW_SHARE = 0.05
"""A plan speaks for a model and system prompt only where at least this share of its labels comes from them."""
STORE = "labels"
"""What all looks are counted under, whatever the embedder, the guards or the judge were: somebody who tries one after the other and
takes the first plan that is found has looked as often, and all of these plans together are promised to be right."""
FILE = "nbllm-semantic.json"
"""The plan's name beside nbllm.toml, unless another is given."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the labels of a client say. plan: the threshold, or why there is none. Shows itself as the plan does.

    embedder, guards: what the labels were made with. scopes: the traffic that they came from. index_rows: stored questions now.
    left_out: labels that were made with another embedder or other guards.
    """

    plan: ThresholdPlan
    embedder: str
    guards: str
    scopes: tuple[str, ...]
    index_rows: int
    left_out: int

    def semantic_plan(self, threshold: float | None = None) -> SemanticPlan:
        """Return the plan as it goes into its file, at its own threshold or at another point of its curve (the next stricter one).

        Raises ConfigurationError: there is no threshold, or nothing is promised at that one.
        """
        plan = self.plan
        if threshold is None or threshold == plan.threshold:
            at, upper, most = plan.threshold, plan.error_upper, plan.max_error
        else:
            point = plan.at(threshold)
            if point is None or point.error_upper is None:
                raise ConfigurationError(
                    f"Nothing is promised at a similarity of {threshold:g}: there are too few labels above it."
                )
            at, upper = point.threshold, point.error_upper  # only points of the curve have bounds: the next stricter one
            most = max(plan.max_error, upper)
        if at is None or upper is None:
            raise ConfigurationError(f"There is no plan to switch on. {plan.reason}")
        return SemanticPlan(
            plan_id=f"{plan.plan_id}-{at:g}" if at != plan.threshold else plan.plan_id,
            made_on=plan.date or "",
            threshold=at,
            error_upper=upper,
            max_error=most,
            confidence=plan.confidence,
            origin=_origin_of(plan),
            embedder=self.embedder,
            guards=self.guards,
            scopes=() if plan.origin == "imported" else self.scopes,
            index_rows=self.index_rows,
            calibration=json.loads(plan.to_json()),
        )

    def __repr__(self) -> str:
        """Return the plan in words."""
        more = (
            f"\n{self.left_out} labels were made with another embedder or other guards and were left out." if self.left_out else ""
        )
        return f"{self.plan}{more}"

    def _repr_html_(self) -> str:
        html: str = self.plan._repr_html_()
        return html


def calibration_of(labels: Sequence[Label], *, embedder: str, guards: str, index_rows: int, look: Any, **asked: Any) -> Calibration:
    """Calibrate on the labels that were made with this embedder and these guards.

    look: counts a look at them, look(what, data) -> number. asked: max_error, confidence, seed of calibrate_threshold. Raises
    InvalidLabels; InvalidRequest where there is no label at all.
    """
    from nbllm.calibration import calibrate_threshold, judge_agreement

    fitting = [label for label in labels if (label.embedder, label.guards) == (embedder, guards)]
    if not fitting:
        raise InvalidRequest(
            f"There are no labels made with {embedder} and the guards in use"
            + (f" ({len(labels)} were made with others)." if labels else "."),
            hint="Run in shadow and label what it meets (%llm_label), or import pairs: client.semantic.import_pairs(...).",
        )
    by_hand = {label.match_id: label for label in fitting if label.origin in ("audit", "marked") and label.match_id is not None}
    judged = [label for label in fitting if label.origin == "judge"]
    both = [(label.correct, by_hand[label.match_id].correct) for label in judged if label.match_id in by_hand]
    used = _used(fitting)
    weights = [1.0 / label.probability if label.probability else 1.0 for label in used]
    plan = calibrate_threshold(
        [label.score for label in used],
        [label.correct for label in used],
        None if len(set(weights)) == 1 else weights,
        origin=[label.origin for label in used],
        look=look(STORE, _data_of([one for one in used if one.origin != "marked"], {**asked, "with": [embedder, guards]})),
        agreement=judge_agreement(*zip(*both, strict=True)) if both else None,
        embedder=embedder,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        **asked,
    )
    scopes = Counter(label.scope for label in used if label.origin == plan.origin)
    few = FEW_SHARE * scopes.total()
    covered = tuple(sorted(scope for scope, count in scopes.items() if count >= few))
    return Calibration(plan, embedder, guards, covered, index_rows, len(labels) - len(fitting))


def _origin_of(plan: ThresholdPlan) -> PlanOrigin:
    return next(origin for origin in get_args(PlanOrigin) if origin == plan.origin)


def _used(labels: Sequence[Label]) -> list[Label]:
    """Return the labels without the judge's where a person has labelled the same match."""
    people = {label.match_id for label in labels if label.origin != "judge" and label.match_id is not None}
    return [label for label in labels if label.origin != "judge" or label.match_id not in people]


def _data_of(labels: Sequence[Label], asked: dict[str, Any]) -> str:
    from hashlib import sha256

    rows = sorted((label.label_id, label.correct) for label in labels)
    return sha256(json.dumps([rows, sorted(asked.items())], default=str).encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever reads half of it. Raises ConfigurationError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as exc:
        with suppress(OSError):
            draft.unlink()
        raise ConfigurationError(f"The plan could not be written to {path}: {exc.strerror or exc}.") from None


def plan_path(path: str | Path | None) -> Path:
    """Return where a plan belongs: beside the settings file in force, else in the working directory."""
    from nbllm.settings.load import find_file

    if path is not None:
        return Path(path).expanduser().absolute()
    found = find_file(Path.cwd())
    return (found[0].parent if found else Path.cwd()) / FILE
