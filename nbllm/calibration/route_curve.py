"""The curve of a route: what each share of strong calls brings and costs, with intervals, beside random and length alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbllm.calibration.nested_cv import Partition, pair_variance
from nbllm.calibration.ridge import Floats
from nbllm.calibration.route_evidence import Evidence, Means, columns, means_of, pseudo_columns, sent_at
from nbllm.calibration.route_intervals import DRAWS, Estimate, interval, merged, ratio_interval, resample

Cells = tuple[Floats, Floats]
SHARES = np.round(np.linspace(0, 1, 101), 2)


@dataclass(frozen=True, slots=True, eq=False)
class RouteCurve:
    """One value for each share of strong calls, 0 to 1 in steps of a hundredth; `recovered`: 0 = weak, 1 = strong.

    `*_low`, `*_high`: 95% for one share. `band_*`: 95% for all shares at once, of `recovered`: it holds wherever a slider is put
    after looking at the curve. over_random_*, over_length_*: recovered more than by random choice, and by length alone (paired).
    cost_*: USD a call. threshold: the predicted gain from which on a prompt is sent to strong; ties: with which probability at that
    very value. hidden, hidden_cost: the variance of mean(gain * sent) and of mean(extra cost * sent) that resampling does not see.
    NaN: unknown; infinite: no bound.
    """

    strong_share: Floats
    quality: Floats
    quality_low: Floats
    quality_high: Floats
    recovered: Floats
    recovered_low: Floats
    recovered_high: Floats
    band_low: Floats
    band_high: Floats
    length_recovered: Floats
    over_random_low: Floats
    over_random_high: Floats
    over_length: Floats
    over_length_low: Floats
    over_length_high: Floats
    cost_usd: Floats
    cost_usd_low: Floats
    cost_usd_high: Floats
    threshold: Floats
    ties: Floats
    hidden: Floats
    hidden_cost: Floats

    def at(self, name: str, share: float) -> float:
        """Return one column between two shares, by a straight line."""
        return float(np.interp(share, self.strong_share, getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over all prompts and areas under the curve, each with its interval; None where there is no positive gap to share."""

    weak_quality: Estimate
    strong_quality: Estimate
    gap: Estimate
    apgr: Estimate | None
    length_apgr: Estimate | None
    over_random: Estimate | None
    over_length: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was measured, and 2,000 resamples of it. t shares; areas: of the router and of length alone, times the mean gain."""

    evidence: Evidence
    true: Means
    seen: Means
    length_gained: Floats
    length_seen: Floats
    areas: Floats
    areas_seen: Floats
    hidden: Floats
    hidden_cost: Floats


def measure(evidence: Evidence, length: Cells, parts: list[Partition], rng: np.random.Generator) -> Measured:
    """Measure the whole curve and resample it. length: begins and ends (U, R) of the router that knows the length alone."""
    t = len(SHARES)
    total = evidence.rows.sum()
    plain = np.column_stack((columns(evidence, SHARES), sent_at(*length, SHARES) * evidence.gain[:, None]))
    means = plain.sum(axis=0) / total
    gained, length_gained = means[5 : 5 + t], means[-t:]
    areas = np.column_stack(
        [
            _area_columns(evidence, cells, curve)
            for cells, curve in (((evidence.begins, evidence.ends), gained), (length, length_gained))
        ]
    )
    made_up = pseudo_columns(evidence, SHARES)
    made_up = np.column_stack((made_up, made_up[:, 5 : 5 + t], np.outer(made_up[:, 2], (0.5, 0.5))))
    draws = resample(np.vstack((merged(np.column_stack((plain, areas)), rng), made_up)), DRAWS, rng)
    hidden, hidden_area = _hidden(parts, evidence)
    unseen = rng.standard_normal((DRAWS, 1))  # one number a draw: what out-of-fold scores hide moves the whole curve at once
    hidden_cost = _unstable_cost(evidence, means[5 + 2 * t : 5 + 3 * t])
    draws[:, 5 : 5 + t] += unseen * np.sqrt(hidden)
    draws[:, 5 + 2 * t : 5 + 3 * t] += rng.standard_normal((DRAWS, 1)) * np.sqrt(hidden_cost)
    draws[:, -2] += unseen[:, 0] * np.sqrt(hidden_area)
    return Measured(
        evidence=evidence,
        true=means_of(means, t),
        seen=means_of(draws, t),
        length_gained=length_gained,
        length_seen=draws[:, -2 - t : -2],
        areas=areas.sum(axis=0) / total,
        areas_seen=draws[:, -2:],
        hidden=hidden,
        hidden_cost=hidden_cost,
    )


def _area_columns(evidence: Evidence, cells: Cells, gained: Floats) -> Floats:
    """Return sums a prompt (U,) whose mean is the area under the curve of gains, by trapezoids.

    The area is mean(gain * rank), rank 1 for what is sent first. A prompt also shifts the ranks of the others; the second term is
    that influence, with mean 0, so that resampling these sums resamples the ranks too, to first order (Hoeffding's projection).
    """
    begins, ends = cells
    middle = (begins + ends) / 2
    above = np.mean([np.interp(column, SHARES, gained) for column in middle.T], axis=0)
    above -= float(evidence.rows @ above) / evidence.rows.sum()
    sums: Floats = evidence.gain * (1 - middle.mean(axis=1)) + evidence.rows * above
    return sums


def _hidden(parts: list[Partition], evidence: Evidence) -> tuple[Floats, float]:
    """Return the variance that out-of-fold scores hide, of the gain at each share (t,) and of the area."""
    found = []
    for part in parts:
        begins, ends = part.ranks.begins[:, None], part.ranks.ends[:, None]
        sent = np.column_stack((sent_at(begins, ends, SHARES), 1 - (begins + ends) / 2))
        found.append(pair_variance(part, sent, evidence.gain, evidence.rows))
    mean = np.mean(found, axis=0)
    return mean[:-1], float(mean[-1])


def _unstable_cost(evidence: Evidence, extra: Floats) -> Floats:
    """Return the mean squared difference (t,) between the final router's extra cost and that of routers of less data.

    Which prompts a router prefers, long or short ones, say, is a matter of chance where there is little to learn. Resampling takes
    the router as it is; routers fitted on other folds show how much of its cost that chance is.
    """
    apart = [
        sent_at(begin[:, None], end[:, None], SHARES).T @ evidence.extra_cost / evidence.rows.sum() - extra
        for begin, end in zip(evidence.begins.T, evidence.ends.T, strict=True)
    ]
    return np.asarray(np.mean(np.square(apart), axis=0), dtype=np.float64)


def curve_of(measured: Measured, threshold: Floats, ties: Floats, confidence: float) -> RouteCurve:
    """Return the curve with its intervals."""
    true, seen, evidence = measured.true, measured.seen, measured.evidence
    under = seen.gain[:, None]
    quality = np.clip(seen.weak[:, None] + seen.sent_gain, evidence.low, evidence.high)
    quality_low, quality_high = _around(true.weak + true.sent_gain, interval(quality, confidence))
    cost = true.weak_cost + true.sent_cost if evidence.priced else np.full(len(SHARES), np.nan)
    cost_low, cost_high = _around(cost, interval(np.maximum(seen.weak_cost[:, None] + seen.sent_cost, 0), confidence))
    recovered, recovered_low, recovered_high = _shares_of_gap(measured, true.sent_gain, seen.sent_gain, confidence)
    _, random_low, random_high = _shares_of_gap(
        measured, true.sent_gain - SHARES * true.gain, seen.sent_gain - SHARES * under, confidence
    )
    over_length, length_low, length_high = _shares_of_gap(
        measured, true.sent_gain - measured.length_gained, seen.sent_gain - measured.length_seen, confidence
    )
    band_low, band_high = _band(measured, recovered, confidence)
    return RouteCurve(
        strong_share=SHARES,
        quality=true.weak + true.sent_gain,
        quality_low=quality_low,
        quality_high=quality_high,
        recovered=recovered,
        recovered_low=recovered_low,
        recovered_high=recovered_high,
        band_low=band_low,
        band_high=band_high,
        length_recovered=recovered - over_length,
        over_random_low=random_low,
        over_random_high=random_high,
        over_length=over_length,
        over_length_low=length_low,
        over_length_high=length_high,
        cost_usd=cost,
        cost_usd_low=cost_low,
        cost_usd_high=cost_high,
        threshold=threshold,
        ties=ties,
        hidden=measured.hidden,
        hidden_cost=measured.hidden_cost,
    )


def summary_of(measured: Measured, confidence: float) -> Summary:
    """Return what is said about the whole: qualities, the gap, areas under the curve."""
    true, seen, evidence = measured.true, measured.seen, measured.evidence

    def plain(value: float, draws: Floats, low: float, high: float) -> Estimate:
        lowest, highest = interval(np.clip(draws, low, high), confidence)
        return Estimate(value, min(value, float(lowest)), max(value, float(highest)))

    def area(value: float, draws: Floats) -> Estimate | None:
        if true.gain <= 0:
            return None
        found = _shares_of_gap(measured, np.array([value]), draws[:, None], confidence)
        return Estimate(*(float(one[0]) for one in found))

    weak, gap, span = float(true.weak), float(true.gain), evidence.high - evidence.low
    (router, length), (router_seen, length_seen) = measured.areas, measured.areas_seen.T
    return Summary(
        weak_quality=plain(weak, seen.weak, evidence.low, evidence.high),
        strong_quality=plain(weak + gap, seen.weak + seen.gain, evidence.low, evidence.high),
        gap=plain(gap, seen.gain, -span, span),
        apgr=area(router, router_seen),
        length_apgr=area(length, length_seen),
        over_random=area(router - gap / 2, router_seen - seen.gain / 2),
        over_length=area(router - length, router_seen - length_seen),
    )


def _shares_of_gap(measured: Measured, value: Floats, draws: Floats, confidence: float) -> tuple[Floats, Floats, Floats]:
    """Return a gain as a share of the gap with its interval, NaN where there is no positive gap."""
    gap = float(measured.true.gain)
    if gap <= 0:
        unknown = np.full(len(value), np.nan)
        return unknown, unknown, unknown
    return value / gap, *_around(value / gap, ratio_interval(draws, measured.seen.gain[:, None], confidence))


def _around(value: Floats, bounds: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the bounds, widened to what was measured, which the made-up prompts may push out of a narrow interval."""
    return np.minimum(bounds[0], value), np.maximum(bounds[1], value)


def _band(measured: Measured, recovered: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return a band that covers the whole curve at once: the largest of all standardised deviations is resampled ("sup-t").

    J. L. Montiel Olea and M. Plagborg-Moller, Journal of Applied Econometrics 34 (2019). Unbounded where the gap is not sure.
    """
    gap = measured.seen.gain
    if np.isnan(recovered).any():
        return recovered, recovered
    if np.quantile(gap, (1 - confidence) / 2) <= 0:
        return np.full(len(recovered), -np.inf), np.full(len(recovered), np.inf)
    ratios = measured.seen.sent_gain[gap > 0] / gap[gap > 0, None]
    left = ratios - np.median(ratios, axis=0)
    # The middle 95% of each share, not the standard deviation: a ratio's tails are long.
    spread = np.diff(np.quantile(ratios, [0.025, 0.975], axis=0), axis=0)[0] / 3.92
    varied = spread > 1e-9
    furthest = np.max(np.abs(left[:, varied]) / spread[varied], axis=1, initial=0.0)
    reach = float(np.quantile(furthest, confidence)) * spread
    return recovered - reach, recovered + reach
