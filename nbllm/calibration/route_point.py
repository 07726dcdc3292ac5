"""One setting of a route: what it brings and costs on average, and what to expect of the next m requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbllm.calibration.ridge import Floats
from nbllm.calibration.route_curve import RouteCurve
from nbllm.calibration.route_evidence import Evidence, columns, means_of, pseudo_columns
from nbllm.calibration.route_intervals import Estimate, interval, ratio_interval, resample_twice

BATCH_DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class BatchPrediction:
    """What the next `requests` requests will show, with 95% probability each; the values are what is expected on average.

    It covers the chance of which requests come and what the calibration set does not tell, as long as they are like those that were
    labelled. quality_recovered: (quality - all weak) / (all strong - all weak) of those very requests, unbounded where the strong
    model may be no better on them. strong_share: of those requests that the threshold sends to strong. None: unknown.
    """

    requests: int
    quality: Estimate
    quality_recovered: Estimate | None
    cost_usd_per_call: Estimate | None
    strong_share: Estimate


@dataclass(frozen=True, slots=True)
class RoutePoint:
    """A share of strong calls, and what it brings: measured on prompts that the scoring model had not seen.

    strong_share: 0 to 1. threshold: the predicted gain from which on a prompt is sent to strong (infinite at 0 and 1). quality:
    mean quality a call; quality_recovered: of the gap, 0 = all weak, 1 = all strong; cost_usd_per_call: USD, a measured mean and
    therefore a float; each with a 95% interval, of what holds on average for requests like these. over_random, over_length_only:
    quality recovered more than with as many calls sent by chance, or by length alone. batch: the prediction that was asked for.
    None: unknown, or no positive gap.
    """

    strong_share: float
    threshold: float
    quality: Estimate
    quality_recovered: Estimate | None
    cost_usd_per_call: Estimate | None
    over_random: Estimate | None
    over_length_only: Estimate | None
    batch: BatchPrediction | None = None


def point_at(curve: RouteCurve, share: float, *, chosen_by_quality: bool = False) -> RoutePoint:
    """Return the curve at one share; chosen_by_quality: the share was picked by what was measured, so the wider band counts."""

    def estimate(value: str, low: str, high: str, minus: float = 0.0) -> Estimate | None:
        found = [curve.at(name, share) for name in (value, low, high)]
        return None if np.isnan(found).any() else Estimate(found[0] - minus, found[1], found[2])

    quality = estimate("quality", "quality_low", "quality_high")
    assert quality is not None  # noqa: S101  the quality of known qualities is known
    band = ("band_low", "band_high") if chosen_by_quality else ("recovered_low", "recovered_high")
    return RoutePoint(
        strong_share=share,
        threshold=threshold_at(curve, share)[0],
        quality=quality,
        quality_recovered=estimate("recovered", *band),
        cost_usd_per_call=estimate("cost_usd", "cost_usd_low", "cost_usd_high"),
        over_random=estimate("recovered", "over_random_low", "over_random_high", minus=share),
        over_length_only=estimate("over_length", "over_length_low", "over_length_high"),
    )


def threshold_at(curve: RouteCurve, share: float) -> tuple[float, float]:
    """Return the threshold of a share and the probability with which a score that equals it is sent; all or nothing at the ends."""
    if share <= 0:
        return np.inf, 0.0
    if share >= 1:
        return -np.inf, 1.0
    return curve.at("threshold", share), curve.at("ties", share)


def predict(evidence: Evidence, curve: RouteCurve, share: float, requests: int, confidence: float, seed: int) -> BatchPrediction:
    """Predict what `requests` new requests will show at a share, by resampling twice (see route_intervals)."""
    rng = np.random.default_rng((seed, requests, round(share * 1e6)))
    shares = np.array([share])
    sums, made_up = columns(evidence, shares), pseudo_columns(evidence, shares)
    single = [np.vstack((columns(alone, shares), made_up)) for alone in evidence.partitions(rng)]
    units = max(1, round(requests * len(evidence.rows) / evidence.rows.sum()))
    settled = float(np.sqrt(len(evidence.rows) / evidence.of))
    drawn = resample_twice(np.vstack((sums, made_up)), single, units, BATCH_DRAWS, rng, settled=settled)
    for at, name in ((5, "hidden"), (7, "hidden_cost")):  # what is gained and what it costs, see route_evidence.columns
        drawn[:, at] += rng.standard_normal(BATCH_DRAWS) * np.sqrt(curve.at(name, share))
    seen = means_of(drawn, 1)
    sent_gain = seen.sent_gain[:, 0]

    def around(value: float, bounds: tuple[Floats, Floats]) -> Estimate:
        return Estimate(value, min(value, float(bounds[0])), max(value, float(bounds[1])))

    quality = np.clip(seen.weak + sent_gain, evidence.low, evidence.high)
    recovered = cost = None
    if not np.isnan(curve.at("recovered", share)):
        recovered = around(curve.at("recovered", share), ratio_interval(sent_gain, seen.gain, confidence))
    if evidence.priced:
        cost = around(curve.at("cost_usd", share), interval(np.maximum(seen.weak_cost + seen.sent_cost[:, 0], 0), confidence))
    return BatchPrediction(
        requests=requests,
        quality=around(curve.at("quality", share), interval(quality, confidence)),
        quality_recovered=recovered,
        cost_usd_per_call=cost,
        strong_share=around(share, interval(seen.sent_share[:, 0], confidence)),
    )
