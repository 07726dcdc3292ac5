"""Plots of calls: each function takes matplotlib Axes and the calls as columns, draws, and returns the Axes.

    from nbllm.notebook.plots import latency
    latency(ax, client.ledger.series(Filter()))

Percentiles and ECDFs are those of nbllm.core.statistics: nearest rank, and no percentile from a sample that is too small for it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from nbllm.core.ports import Series
from nbllm.core.statistics import ecdf, minimum_sample, quantiles
from nbllm.notebook import style, wording
from nbllm.notebook.breakeven_plot import breakeven

__all__ = ["breakeven", "cache", "cost", "latency", "timeline", "tokens", "ttft"]

Floats = NDArray[np.float64]
Of = Literal["model", "hits"]

_NOTHING = "Nothing to plot yet.\nAsk something with %%llm, or take in more calls: --all, --since all."
_PERCENTILES = ((0.50, "P50", "o"), (0.95, "P95", "s"), (0.99, "P99", "D"))
_DRAWN = 4_000
"""Points that a plot of this width can show apart; of more, an even sample is drawn and the title says so."""
_MODELS_SHOWN = 8
_TIME_UNITS = ((86_400.0 * 2, 86_400.0, "days"), (3_600.0 * 2, 3_600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def latency(ax: Axes, series: Series, *, of: Of = "model") -> Axes:
    """Draw the ECDF of whole-call latency in seconds, of model calls or of cache hits; failed calls are left out and counted."""
    return _distribution(ax, series, series.latency_s, of, "Latency", "seconds until the whole answer")


def ttft(ax: Axes, series: Series, *, of: Of = "model") -> Axes:
    """Draw the ECDF of the time to the first token in seconds; whole answers have none and are left out."""
    return _distribution(ax, series, series.ttft_s, of, "Time to first token", "seconds until the first token")


def _distribution(ax: Axes, series: Series, seconds: Floats, of: Of, what: str, x_label: str) -> Axes:
    chosen = series.hit if of == "hits" else ~series.hit
    values = seconds[chosen & ~series.failed]
    values = values[~np.isnan(values)]
    look = style.HIT if of == "hits" else style.MODEL
    unit_s, unit = (1e-3, "ms") if values.size and float(values.max()) < 0.1 else (1.0, "seconds")
    x, share = ecdf(values)
    failed = int(np.count_nonzero(series.failed & chosen))
    counts = f"n = {values.size:,}" + (f", {failed:,} failed left out" if failed else "") + _simulated(series)
    style.dress(ax, f"{what}, {look.label}", counts, x_label.replace("seconds", unit), "share of calls")
    if not values.size:
        return style.say(ax, _NOTHING if of == "model" else "No cache hits yet.\nRun a cell again.")
    ax.step(
        np.concatenate(([x[0]], x)) / unit_s,
        np.concatenate(([0.0], share)),
        where="post",
        color=look.colour,
        linestyle=look.dash,
        linewidth=2,
    )
    _mark_percentiles(ax, values, unit_s, look)
    ax.set_ylim(0, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    longest = float(values.max())
    if longest > 30 * max(float(np.median(values)), 1e-9):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        ax.set_xlim(0, longest / unit_s * 1.05 or 1)
    style.legend(ax)
    return ax


def _mark_percentiles(ax: Axes, values: Floats, unit_s: float, look: style.Look) -> None:
    unit = "ms" if unit_s < 1 else "s"
    measured = quantiles(values, *(q for q, _, _ in _PERCENTILES))
    for (q, name, marker), value in zip(_PERCENTILES, measured, strict=True):
        if value is None:
            ax.plot([], [], " ", label=f"no {name}: n < {minimum_sample(q)}")
            continue
        shown = value / unit_s
        ax.plot([shown, shown], [0, q], color=style.FAINT, linewidth=0.8, linestyle=":", zorder=1)
        ax.plot(
            shown,
            q,
            marker,
            markersize=7,
            color=look.colour,
            markeredgecolor=style.GROUND,
            zorder=4,
            label=f"{name} {shown:.3g} {unit}",
            linestyle=" ",
        )


def cost(ax: Axes, series: Series) -> Axes:
    """Draw the cost of the calls in USD, added up over time, and what hits saved. Unknown costs are counted, not drawn."""
    unknown = int(np.count_nonzero(np.isnan(series.cost_usd)))
    spent, saved = np.cumsum(np.nan_to_num(series.cost_usd)), np.cumsum(np.nan_to_num(series.saved_usd))
    n = series.started_at.size
    total = f"{wording.usd(float(spent[-1]))} spent, {wording.usd(float(saved[-1]))} saved, " if n else ""
    times, x_label = _since_first(series.started_at)
    note = f", {unknown:,} of unknown cost not in it" if unknown else ""
    style.dress(ax, "Cost so far", f"{total}n = {n:,}{note}{_simulated(series)}", x_label, "US dollars, added up")
    if not n:
        return style.say(ax, _NOTHING)
    at = _even(n)
    for values, look, label in ((spent, style.MODEL, "spent"), (saved, style.SAVED, style.SAVED.label)):
        if float(values[-1]) > 0 or look is style.MODEL:
            ax.step(times[at], values[at], where="post", color=look.colour, linestyle=look.dash, linewidth=2, label=label)
            ax.plot(times[at[-1]], values[at[-1]], look.marker, color=look.colour, markersize=6)
    ax.set_ylim(0, max(float(spent[-1]), float(saved[-1]), 1e-6) * 1.08)
    _from_first(ax, times)
    style.legend(ax)
    return ax


def cache(ax: Axes, series: Series, *, bins: int = 24) -> Axes:
    """Draw how many calls were hits and how many asked a model, over time."""
    n, hits = series.started_at.size, int(np.count_nonzero(series.hit))
    times, x_label = _since_first(series.started_at)
    saved = f"{wording.usd(float(np.nansum(series.saved_usd)))} and {wording.seconds(float(np.nansum(series.saved_s)))} saved"
    rate = f"{hits / n:.0%} hits, {saved}, " if n else ""
    style.dress(ax, "Cache", f"{rate}n = {n:,}{_simulated(series)}", x_label, "calls", grid="y")
    if not n:
        return style.say(ax, _NOTHING)
    edges = np.linspace(0, max(float(times[-1]), 1.0), min(bins, max(6, n // 2)) + 1)
    asked, _ = np.histogram(times[~series.hit], edges)
    hit, _ = np.histogram(times[series.hit], edges)
    width = np.diff(edges) * 0.86
    for counts, below, look in ((asked, np.zeros_like(asked), style.MODEL), (hit, asked, style.HIT)):
        ax.bar(
            edges[:-1],
            counts,
            width,
            bottom=below,
            align="edge",
            color=look.colour,
            hatch=look.hatch,
            edgecolor=style.GROUND,
            linewidth=0,
            label=look.label,
        )
    ax.set_ylim(0, float((asked + hit).max()) * 1.06)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend(ax)
    return ax


def tokens(ax: Axes, series: Series) -> Axes:
    """Draw tokens in and out by model; those of hits, which cost nothing, are left out."""
    asked = ~series.hit
    sums, counted = [], 0
    for index, name in enumerate(series.models):
        mine = asked & (series.model == index)
        found = (name, float(np.nansum(series.input_tokens[mine])), float(np.nansum(series.output_tokens[mine])))
        if found[1] or found[2]:
            sums.append(found)
            counted += int(np.count_nonzero(mine))
    sums.sort(key=lambda row: row[1] + row[2], reverse=True)
    if len(sums) > _MODELS_SHOWN:
        rest = sums[_MODELS_SHOWN - 1 :]
        sums = [*sums[: _MODELS_SHOWN - 1], (f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest))]
    style.dress(ax, "Tokens by model", f"n = {counted:,} model calls{_simulated(series)}", "tokens", "", grid="x")
    if not sums:
        return style.say(ax, _NOTHING)
    y = np.arange(len(sums))
    sent, got = np.array([s[1] for s in sums]), np.array([s[2] for s in sums])
    ax.barh(y, sent, 0.6, color=style.MODEL.colour, label="in")
    ax.barh(y, got, 0.6, left=sent, color=style.HIT.colour, hatch=style.HIT.hatch, edgecolor=style.GROUND, linewidth=0, label="out")
    for row, (a, b) in enumerate(zip(sent, got, strict=True)):
        ax.annotate(
            f"{a:,.0f} in, {b:,.0f} out",
            (a + b, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=style.FAINT,
        )
    ax.set_yticks(y, [s[0] if len(s[0]) <= 24 else s[0][:23] + "…" for s in sums], parse_math=False)
    ax.set_ylim(len(sums) - 0.4, -0.6)
    ax.set_xlim(0, max(1.0, float((sent + got).max())) * 1.6)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    style.legend(ax)
    return ax


def timeline(ax: Axes, series: Series) -> Axes:
    """Draw each call at its time and with how long it took: model calls, hits and failures by shape."""
    times, x_label = _since_first(series.started_at)
    known = np.flatnonzero(~np.isnan(series.latency_s))
    n = known.size
    drawn = known[_even(n)]
    failures = known[series.failed[known]]
    if failures.size <= _DRAWN // 10:
        drawn = np.union1d(drawn, failures)
    some = f", {drawn.size:,} of them drawn" if drawn.size < n else ""
    style.dress(ax, "Timeline", f"n = {n:,}{some}{_simulated(series)}", x_label, "time a call took")
    if not n:
        return style.say(ax, _NOTHING)
    crowded = drawn.size > 400
    groups = ((~series.hit & ~series.failed, style.MODEL), (series.hit & ~series.failed, style.HIT), (series.failed, style.FAILED))
    for mask, look in groups:
        at = drawn[mask[drawn]]
        if at.size:
            _points(
                ax, times[at], np.maximum(series.latency_s[at], 1e-6), look, int(np.count_nonzero(mask[known])), crowded=crowded
            )
    seconds = np.maximum(series.latency_s[known], 1e-6)
    ax.set_yscale("log")
    ax.set_ylim(float(seconds.min()) / 3, float(seconds.max()) * 3)
    ax.yaxis.set_major_formatter(lambda value, _: wording.short_time(value))
    ax.yaxis.set_minor_formatter(_TimesBetween())
    _from_first(ax, times)
    style.legend(ax)
    return ax


def _points(ax: Axes, x: Floats, y: Floats, look: style.Look, count: int, *, crowded: bool) -> None:
    failed = look is style.FAILED
    ax.plot(x, y, look.marker, linestyle=" ", color=look.colour, label=f"{look.label} ({count:,})",
            markersize=4 if crowded else 6.5, alpha=0.5 if crowded and not failed else 0.9, markeredgewidth=1.6 if failed else 0.4,
            markeredgecolor=look.colour if failed else style.GROUND)  # fmt: skip


def _simulated(series: Series) -> str:
    """Return what the numbers under a title say of simulated models: their seconds and dollars are nobody's."""
    which = [name.startswith("sim/") for name in series.models if "/" in name]
    return "" if not any(which) else ", simulated" if all(which) else ", some simulated"


class _TimesBetween(LogFormatter):
    """Labels some ticks between powers of ten where the axis spans fewer than two of those, since there may be one power alone."""

    def __init__(self) -> None:
        super().__init__(labelOnlyBase=False, minor_thresholds=(2, 0.4))  # the second: matplotlib's own, below it each tick

    def __call__(self, value: float, pos: int | None = None) -> str:
        return wording.short_time(value) if super().__call__(value, pos) else ""


def _since_first(started_at: Floats) -> tuple[Floats, str]:
    """Return times since the first call in the unit that fits, and the axis label that says which and since when."""
    if not started_at.size:
        return started_at, "time"
    elapsed_s = started_at - started_at[0]
    unit_s, unit = next((u, name) for least, u, name in _TIME_UNITS if float(elapsed_s[-1]) >= least)
    return elapsed_s / unit_s, f"{unit} since the first call ({wording.clock(float(started_at[0]))}, local time)"


def _from_first(ax: Axes, times: Floats) -> None:
    """Let the time axis run from the first call to the last, and over one unit at least."""
    last = max(float(times[-1]), 1.0)
    ax.set_xlim(-0.03 * last, 1.03 * last)


def _even(n: int, most: int = _DRAWN) -> NDArray[np.int64]:
    """Return up to `most` indices spread evenly over n, the first and the last among them."""
    return np.arange(n) if n <= most else np.unique(np.linspace(0, n - 1, most).astype(np.int64))
