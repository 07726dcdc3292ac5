"""The plot of a load test: each answer at its time, percentiles by time, failures, and the promise."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from nbllm.core.arrivals import LoadResult, Sample, Window
from nbllm.notebook import style, wording

_ROWS = 2
_DRAWN = 3_000
_ANSWERS = style.Look("answers", style.BLUE, "-", "o", "")


def load(ax: Axes, result: LoadResult, *, p95_s: float | None = None) -> Axes:
    """Draw the latency of each request at the time at which it was due, P50 and P95 by time, and failures. p95_s: what is promised.

    Latency counts from when a request was due. Percentiles of a stretch of time that has too few answers for them are left out.
    """
    plan = result.plan
    failed = len(result.samples) - len(result.answered)
    users = f"{plan.users} users, {plan.per_s:,.3g} requests/s{f', ramp {plan.ramp_s:g} s' if plan.ramp_s else ''}"
    lost = f"{failed:,} failed ({failed / len(result.samples):.1%})" if failed else "none failed"
    numbers = f"{users} · n = {len(result.samples):,}, {lost}{', stopped early' if result.stopped else ''}"
    style.dress(ax, "Load", numbers, "seconds since the start", "time until the whole answer", rows=_ROWS)
    if not result.samples:
        return style.say(ax, "Nothing was sent.")
    _points(ax, result)
    _percentiles(ax, result)
    if p95_s is not None:
        ax.axhline(p95_s, color=style.INK, linewidth=1.1, linestyle=":", label=f"P95 promised: {_time(p95_s)}", zorder=2)
    _scales(ax, result, p95_s)
    style.legend(ax, _ROWS)
    return ax


def _points(ax: Axes, result: LoadResult) -> None:
    answered = result.answered
    some = answered[:: -(-len(answered) // _DRAWN) or 1]
    if some:
        x, y = _at(some)
        size = 3 if len(some) > 400 else 5
        ax.plot(x, y, "o", color=_ANSWERS.colour, markersize=size, alpha=0.28, linestyle=" ", markeredgewidth=0, label="answers")
    failures = [sample for sample in result.samples if sample.error]
    if failures:
        x, y = _at(failures[:: -(-len(failures) // _DRAWN) or 1])
        kinds = list(result.errors().items())
        label = f"{kinds[0][0]}: {kinds[0][1]:,}" if len(kinds) == 1 else f"failed: {len(failures):,}, {len(kinds)} kinds"
        ax.plot(x, y, style.FAILED.marker, color=style.FAILED.colour, markersize=5, linestyle=" ", label=label, zorder=4)


def _percentiles(ax: Axes, result: LoadResult) -> None:
    p50_s, p95_s, _ = result.percentiles()
    windows = result.windows()
    for name, total, dash, colour in (("p50_s", p50_s, "-", style.GREEN), ("p95_s", p95_s, "--", style.ORANGE)):
        x, y = _steps(windows, name)
        if np.isfinite(y).any():
            said = f"{name[:-2].upper()}: {_time(total)} in all"
            ax.plot(x, y, dash, color=colour, linewidth=2.2, label=said, zorder=5, solid_capstyle="butt")


def _steps(windows: list[Window], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a line that stands level over each stretch, with gaps where there is no percentile."""
    x = np.array([side for window in windows for side in (window.begin_s, window.end_s)])
    values = [getattr(window, name) for window in windows]
    return x, np.array([np.nan if value is None else value for value in values for _ in (0, 1)])


def _at(samples: list[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([s.due_s for s in samples]), np.maximum(np.array([s.latency_s for s in samples]), 1e-5)


def _scales(ax: Axes, result: LoadResult, p95_s: float | None) -> None:
    """Let time run over the whole test; let latency be linear from 0, or logarithmic where it spans more than a factor of 50."""
    seconds = np.array([sample.latency_s for sample in result.samples if sample.latency_s > 0] or [1e-3])
    highest = max(float(seconds.max()), p95_s or 0.0)
    ax.set_xlim(0, result.plan.seconds)
    if highest > 50 * float(np.median(seconds)):
        ax.set_yscale("log")
        ax.set_ylim(float(seconds.min()) / 2, highest * 2)
    else:
        ax.set_ylim(0, highest * 1.1)
    ax.yaxis.set_major_formatter(lambda value, _: wording.short_time(value) if value else "0")
    ax.yaxis.set_minor_formatter(lambda *_: "")


def _time(seconds: float | None) -> str:
    """Return a time with three digits and its unit."""
    return wording.UNKNOWN if seconds is None else wording.short_time(float(f"{seconds:.3g}"))
