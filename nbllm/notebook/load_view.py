"""A load test in a notebook: a line while it runs, then numbers, promises and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.core.arrivals import LoadResult
from nbllm.core.statistics import Criterion, SloReport, check_slo
from nbllm.notebook import style, wording
from nbllm.notebook.load_plot import load
from nbllm.notebook.plot_view import PlotView, saved
from nbllm.notebook.views import Table, View, columns

_PROMISES = ("p50_s", "p95_s", "error_rate")


def running_view(name: str, result: LoadResult, expected: int, in_flight: int) -> View:
    """Return how a test goes."""
    sent = len(result.samples) + in_flight
    failed = len(result.samples) - len(result.answered)
    lost = f", {failed:,} failed" if failed else ""
    return View(f"{name}: {sent:,} of {expected:,} requests sent, {in_flight:,} under way{lost}")


def promises(result: LoadResult, values: Mapping[str, Any]) -> SloReport | None:
    """Return the promises that were asked for beside what was measured, None without any."""
    limits = {name: values[name] for name in _PROMISES if name in values}
    return check_slo(result.series(), include_hits=True, **limits) if limits else None


def result_view(name: str, result: LoadResult, report: SloReport | None) -> View:
    """Return what a test measured."""
    p50_s, p95_s, p99_s = result.percentiles()
    n = len(result.samples)
    errors = result.errors()
    failed = sum(errors.values())
    cost_usd, unknown = result.cost_usd()
    rows = [
        ("answered", f"{n - failed:,} of {n:,}, {(n - failed) / max(1e-9, result.plan.seconds):,.1f} a second"),
        ("latency", ", ".join(f"{q} {_time(value)}" for q, value in (("P50", p50_s), ("P95", p95_s), ("P99", p99_s)))),
        *((f"failed, {kind}", f"{count:,}") for kind, count in errors.items()),
        ("answers from", ", ".join(f"{source} {count:,}" for source, count in result.sources().items()) or wording.UNKNOWN),
        ("cost", wording.usd(cost_usd) + (f", and {unknown:,} of unknown cost" if unknown else "")),
    ]
    if report is not None:
        rows += [("promise", _promise(criterion)) for criterion in report.criteria]
    title = f"Load on {name}: {wording.plural(result.plan.users, 'user')} for {result.plan.seconds:g} s"
    verdict = "" if report is None else f". {report.verdict()}"
    stopped = " (stopped before its time)" if result.stopped else ""
    notes = (*result.notes, "Latency counts from when a request was due, so that waiting in line is in it.")
    return View(f"{title}{stopped}{verdict}", (Table(columns=columns("", ""), rows=rows),), notes)


def _promise(criterion: Criterion) -> str:
    """Return one promise beside what was measured."""
    if criterion.name == "error_rate":
        name, allowed = "errors", f"{criterion.allowed:.2%}"
        measured = "" if criterion.measured is None else f"{criterion.measured:.2%}"
    else:
        name, allowed, measured = criterion.name.removesuffix("_s").upper(), _time(criterion.allowed), _time(criterion.measured)
    if criterion.measured is None:
        return f"{name} at most {allowed}: cannot be told, {criterion.why}"
    return f"{name} at most {allowed}: {'holds' if criterion.ok else 'does not hold'}, {measured}"


def plot(result: LoadResult, *, p95_s: float | None = None, save: str | None = None) -> PlotView:
    """Return the plot of a test, written to a file where asked to."""
    made, (ax,) = style.new_figure()
    load(ax, result, p95_s=p95_s)
    return saved("load", made, save)


def _time(seconds: float | None) -> str:
    return "(too few)" if seconds is None else wording.short_time(float(f"{seconds:.3g}"))
