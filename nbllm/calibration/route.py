"""calibrate_route: from labelled prompts to a plan that says what routing brings, before it is switched on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from nbllm.calibration.compress import compress
from nbllm.calibration.nested_cv import Final, Partition, Problem, Ranks, final_fit, partition, repeats_for
from nbllm.calibration.ridge import Floats, Line
from nbllm.calibration.route_curve import SHARES, curve_of, measure, summary_of
from nbllm.calibration.route_evidence import Evidence
from nbllm.calibration.route_intervals import MOST_UNITS
from nbllm.calibration.route_plan import RoutePlan
from nbllm.calibration.route_words import notes_on
from nbllm.calibration.routing_rows import QualityFrom, RoutingRows, routing_rows
from nbllm.errors import InvalidRequest

CONFIDENCE = 0.95


def calibrate_route(
    prompts: Sequence[str],
    embeddings: Any,
    weak_quality: Any,
    strong_quality: Any,
    weak_cost_usd: Any = None,
    strong_cost_usd: Any = None,
    seed: int = 0,
    *,
    quality_from: QualityFrom = "labels",
    strong_share: float = 0.5,
    weak: str = "",
    strong: str = "",
    embedder: str = "",
    date: str = "",
) -> RoutePlan:
    """Learn which prompts gain from the strong model, and measure on held-out prompts what that is worth.

    prompts: n strings; embeddings (n, d): of one embedder; weak_quality, strong_quality (n,): what each model's answer was worth,
    such as 0 or 1, or a judge's marks, larger is better; costs in USD a call, one number or (n,), None: unknown. quality_from:
    where the qualities came from; it is shown. strong_share: the point at which the plan routes until `choose` names another. weak,
    strong, embedder, date: kept in the plan.

    The gain strong - weak is modelled by a ridge regression on the embedding beside the prompt's length, which is not penalised;
    the penalty is chosen by nested cross-validation and all numbers come from out-of-fold ranks (see nested_cv, route_intervals).
    At least 20 different prompts are needed; equal ones are kept in one fold. Everything random follows the seed.

    Raises InvalidRequest for input that makes no sense, and where the two models are equal on every row: there is nothing to learn.
    """
    if quality_from not in get_args(QualityFrom):
        raise InvalidRequest(f"quality_from={quality_from!r} is unknown.", hint=f"One of {', '.join(get_args(QualityFrom))}.")
    rows = routing_rows(prompts, embeddings, weak_quality, strong_quality, weak_cost_usd, strong_cost_usd)
    plan = replace(_plan(rows, seed), quality_from=quality_from, weak=weak, strong=strong, embedder=embedder, date=date)
    # Through JSON, which rounds: a plan that was read in another process is the same in every number.
    return RoutePlan.from_json(plan.choose(strong_share=strong_share).to_json())


def _plan(rows: RoutingRows, seed: int) -> RoutePlan:
    """Return the plan of rows that make sense, not yet named."""
    folding, drawing = np.random.default_rng(seed).spawn(2)
    x, directions = compress(rows.embeddings, folding)
    problem = Problem(x, rows.features, rows.unit_gain, rows.counts)
    final = final_fit(problem, folding)
    parts = [partition(problem, folding) for _ in range(repeats_for(len(problem.y)))]
    own, thresholds, ties = _thresholds(final, rows.counts)
    evidence, length = _evidence(rows, parts, own)
    measured = measure(evidence, length, parts, drawing)
    curve = curve_of(measured, thresholds, ties, CONFIDENCE)
    summary = summary_of(measured, CONFIDENCE)
    return RoutePlan(
        curve=curve,
        summary=summary,
        line=_turned_back(final.line, directions),
        evidence=_kept(evidence, drawing),
        chosen_share=0.5,
        rows=len(rows.unit),
        prompts=len(problem.y),
        quality_from="labels",
        confidence=CONFIDENCE,
        seed=seed,
        penalty=final.penalty,
        sha256=rows.sha256,
        notes=rows.notes + notes_on(summary, len(problem.y), final.penalty),
        knows_zero_vectors=bool((~rows.embeddings.any(axis=1)).any()),
    )


def _evidence(rows: RoutingRows, parts: list[Partition], own: Ranks) -> tuple[Evidence, tuple[Floats, Floats]]:
    counts = rows.counts

    def mean(values: Floats | None) -> Floats | None:
        return None if values is None else np.bincount(rows.unit, weights=values, minlength=len(counts)) / counts

    weak, strong = mean(rows.weak), mean(rows.strong)
    assert weak is not None and strong is not None  # noqa: S101, PT018  qualities are never unknown
    evidence = Evidence(
        rows=counts,
        weak=weak,
        strong=strong,
        weak_cost_usd=mean(rows.weak_cost_usd),
        strong_cost_usd=mean(rows.strong_cost_usd),
        begins=np.column_stack([part.ranks.begins for part in parts]),
        ends=np.column_stack([part.ranks.ends for part in parts]),
        own_begins=own.begins[:, None],
        own_ends=own.ends[:, None],
        low=rows.low,
        high=rows.high,
        of=len(counts),
    )
    begins = np.column_stack([part.length_ranks.begins for part in parts])
    return evidence, (begins, np.column_stack([part.length_ranks.ends for part in parts]))


def _thresholds(final: Final, counts: Floats) -> tuple[Ranks, Floats, Floats]:
    """Return the ranks of the prompts by the final router, each left out in turn, and for each share of strong calls the score that
    so many of them exceed, with how many of those that equal it are sent too.
    """
    size = float(np.max(np.abs(final.left_out), initial=0.0)) or 1.0
    levels, level = np.unique(np.round(final.left_out / size, 9), return_inverse=True)
    mass = np.bincount(level, weights=counts)[::-1]
    until = np.cumsum(mass) / mass.sum()
    before = np.concatenate(([0.0], until[:-1]))
    place = len(levels) - 1 - level
    at = np.minimum(np.searchsorted(until, SHARES - 1e-12), len(levels) - 1)
    ties = np.clip((SHARES - before[at]) / (until[at] - before[at]), 0, 1)
    return Ranks(before[place], until[place]), (levels * size)[::-1][at], ties


def _turned_back(line: Line, directions: Floats | None) -> Line:
    """Return the line for the embeddings as they come."""
    return line if directions is None else Line(line.intercept, line.free, directions @ line.penalised)


def _kept(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Return the evidence of at most so many prompts that a plan stays readable; predictions know how many there were."""
    if len(evidence.rows) <= MOST_UNITS:
        return evidence
    some = np.sort(rng.choice(len(evidence.rows), MOST_UNITS, replace=False))
    weak_cost, strong_cost = evidence.weak_cost_usd, evidence.strong_cost_usd
    return Evidence(
        rows=evidence.rows[some],
        weak=evidence.weak[some],
        strong=evidence.strong[some],
        weak_cost_usd=None if weak_cost is None else weak_cost[some],
        strong_cost_usd=None if strong_cost is None else strong_cost[some],
        begins=evidence.begins[some],
        ends=evidence.ends[some],
        own_begins=evidence.own_begins[some],
        own_ends=evidence.own_ends[some],
        low=evidence.low,
        high=evidence.high,
        of=evidence.of,
    )
