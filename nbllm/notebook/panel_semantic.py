"""%llm_panel semantic_cache: a slider of similarity; hit rate, the upper bound of false hits, dollars saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from nbllm.errors import ConfigurationError
from nbllm.notebook import style, wording
from nbllm.notebook.panel_content import Slider, Values, applied, nearest
from nbllm.notebook.panel_figure import LiveFigure, put
from nbllm.notebook.views import Table, View, columns
from nbllm.panels import semantic
from nbllm.panels.semantic import SemanticData

if TYPE_CHECKING:
    from nbllm.calibration import ThresholdPlan

_SHADOW = (
    "Nothing was recorded yet. Put the cache into shadow: %llm_config semantic_cache.mode=shadow, then work as ever. It serves "
    "nothing and records what it would have served; label some of that with %llm_label. Until then this is a SIMULATED example."
)
_UNLABELLED = (
    "There is no bound yet: without labels nobody knows which of these would be wrong. Label some below, or with %llm_label, then "
    "open the panel again."
)


class SemanticContent:
    """The panel of the semantic cache; see Content."""

    title = "Semantic cache"
    height_px = 460

    def __init__(self, client: Any, data: SemanticData) -> None:
        self._client = client
        self._data = data
        plan = data.plan
        options = tuple((f"{value:.3f}", value) for value in data.thresholds)
        self.sliders: tuple[Slider, ...] = (
            Slider("Similarity from which on an answer may be served", options, nearest(options, data.start)),
        )
        self.can_apply = not data.example and plan is not None and bool(len(plan.curve))
        self.consent = _consent(plan) if self.can_apply and plan is not None else ""
        self.notes: tuple[str, ...] = self._notes()

    def _notes(self) -> tuple[str, ...]:
        data = self._data
        if data.example:
            return (_SHADOW,)
        notes = [] if data.plan is None else [str(data.calibration)]
        if data.plan is None:
            notes.append(_UNLABELLED)
        if data.more:
            notes.append(f"Of the matches the newest {semantic.MOST_MATCHES:,} are counted.")
        return tuple(notes)

    def numbers(self, values: Values) -> View:
        """Return hit rate, bound and dollars."""
        data, found = self._data, semantic.at(self._data, values[0])
        of_calls = "" if found.served_share is None else f"{found.served_share:.1%} of {data.calls:,} calls"
        rows = [("similarity at least", f"{found.threshold:.4f}", ""), ("would be served", f"{found.served:,}", of_calls)]
        if data.plan is None or found.error_upper is None:
            rows.append(("wrong hits, upper bound", "unknown", "no labels"))
        else:
            share = f"{found.hit_rate:.1%}" if found.hit_rate is not None else "unknown"
            sure = f"with {data.plan.confidence:.0%} confidence"
            rows += [
                ("wrong hits, upper bound", f"{found.error_upper:.1%}", sure),
                ("wrong hits seen", f"{found.error_rate:.1%}", f"{found.errors:,} of {found.hits:,} labelled hits"),
                ("hit rate", share, f"of {data.plan.n:,} labelled matches"),
            ]  # fmt: skip
        unknown = f"cost of {found.unknown_cost:,} unknown" if found.unknown_cost else ""
        simulated = "simulated dollars" if data.simulated or data.example else ""
        rows.append(("saved", wording.usd(found.saved_usd), ", ".join(filter(None, (unknown, simulated)))))
        return View(f"At a similarity of {found.threshold:.3f}", (Table(columns=columns("", "#", ""), rows=rows),))

    def figure(self) -> LiveFigure:
        """Return hit rate above, error with its bound below."""
        data, live = self._data, LiveFigure(height_px=self.height_px, rows=(1.0, 1.25))
        served_ax, error_ax = live.axes
        x = np.array(data.thresholds)
        found = [semantic.at(data, value) for value in data.thresholds]
        style.dress(served_ax, "What it serves", _counts(data), "", "share of calls", rows=1)
        share = np.array([np.nan if one.served_share is None else one.served_share for one in found])
        served_ax.plot(x, share, drawstyle="steps-pre", color=style.ORANGE, linestyle="--", linewidth=2, label="would be served")
        style.dress(error_ax, "What of it may be wrong", _promise(data), "similarity", "share of hits", rows=1)
        if data.plan is not None and len(data.plan.curve):
            upper, seen = (np.array([getattr(one, name) for one in found], float) for name in ("error_upper", "error_rate"))
            error_ax.fill_between(x, seen, upper, step="pre", color=style.BLUE, alpha=0.16, linewidth=0, label="up to the bound")
            error_ax.plot(x, upper, color=style.BLUE, linewidth=0.9, drawstyle="steps-pre")
            error_ax.plot(x, seen, color=style.BLUE, linewidth=2, drawstyle="steps-pre", label="seen on labels")
            error_ax.axhline(data.plan.max_error, color=style.VERMILLION, linestyle=":", linewidth=1.6,
                             label=f"asked for: at most {data.plan.max_error:.0%}")  # fmt: skip
            error_ax.set_ylim(0, min(1.0, max(float(np.median(upper)) * 1.6, data.plan.max_error * 2.2)))
            style.legend(error_ax, 1)
        else:
            error_ax.set_ylim(0, 1)
            error_ax.text(
                0.5, 0.5, "No labels, no bound", transform=error_ax.transAxes, ha="center", color=style.FAINT, fontsize=10.5
            )
        style.legend(served_ax, 1)
        top = float(np.nanmax(share)) if np.isfinite(share).any() else 1.0
        served_ax.set_ylim(0, max(0.05, min(1.0, top * 1.15)))
        room = 0.02 * max(float(x[-1] - x[0]), 0.01)
        for ax in live.axes:
            ax.set_xlim(float(x[0]) - room, float(x[-1]) + room)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if ax.get_ylim()[1] < 0.04 else 0))
        served_ax.tick_params(labelbottom=False)
        self._marks = (live.line(served_ax), live.line(error_ax))
        self._points = (live.point(served_ax, style.ORANGE, "^"), live.bar(error_ax, style.BLUE), live.point(error_ax, style.BLUE))
        return live

    def move(self, figure: LiveFigure, values: Values) -> None:  # noqa: ARG002 - the marks are kept here
        """Put the marks at a similarity."""
        found = semantic.at(self._data, values[0])
        for line in self._marks:
            put(line, (found.threshold, found.threshold), (0, 1))
        served, interval, seen = self._points
        put(served, found.threshold, found.served_share)
        put(seen, found.threshold, found.error_rate)
        low, high = found.error_rate, found.error_upper
        put(interval, (found.threshold, found.threshold), None if low is None or high is None else (low, high))

    def settings(self, values: Values) -> Mapping[str, Any]:  # noqa: ARG002 - the similarity is in the plan
        """Return what nbllm.toml has to say; the plan itself is beside it."""
        from nbllm.semantic_plans import FILE

        plan = self._data.plan
        found: dict[str, Any] = {"semantic_cache.mode": "on", "semantic_cache.plan": FILE}
        return found | ({"semantic_cache.accept_foreign": True} if plan is not None and plan.foreign else {})

    def apply(self, values: Values, *, consented: bool = False) -> str:
        """Write the plan beside nbllm.toml, switch it on, and write that down."""
        plan, found = self._data.plan, semantic.at(self._data, values[0])
        if plan is None or found.error_upper is None:
            raise ConfigurationError("Nothing is promised at this similarity.", hint="Label some matches: %llm_label.")
        if plan.foreign and not consented:
            raise ConfigurationError("Tick the box above the buttons first, if that is what you want.")
        if found.error_upper > plan.max_error + 1e-9 and (plan.foreign or not consented):
            more = f"--max-error {found.error_upper:.0%}" if plan.foreign else "tick the box above the buttons"
            raise ConfigurationError(
                f"At {found.threshold:.3f} up to {found.error_upper:.1%} may be wrong; asked for was {plan.max_error:.0%}.",
                hint=f"Move the slider, or {more}.",
            )
        client, settings = self._client, self.settings(values)

        def switch_on() -> None:
            client.semantic.apply(self._data.calibration, threshold=found.threshold, accept_foreign=consented and plan.foreign)

        return applied(client, settings, before_writing=switch_on)


def semantic_content(client: Any, **asked: float) -> SemanticContent:
    """Return the panel's content: of what was recorded, else a simulated example. asked: max_error, confidence."""
    from nbllm.panels.examples import semantic_example

    data = semantic.read(client, **asked)
    return SemanticContent(client, data if data.scores.size or data.plan is not None else semantic_example())


def _consent(plan: ThresholdPlan) -> str:
    if plan.foreign:
        what = "imported pairs" if plan.origin == "imported" else "a judge's labels"
        return f"Accept a plan from {what}: it may not hold for my traffic"
    return f"Also where more than {plan.max_error:.0%} may be wrong"


def _counts(data: SemanticData) -> str:
    if data.example:
        return "SIMULATED example"
    stopped = f", {data.stopped:,} stopped by guards" if data.stopped else ""
    return f"{data.scores.size:,} matches in {data.calls:,} calls{stopped}" + (", simulated" if data.simulated else "")


def _promise(data: SemanticData) -> str:
    plan = data.plan
    if plan is None:
        return f"{data.waiting:,} matches wait for a label"
    example = "SIMULATED, " if data.example else ""
    return f"{example}n = {plan.n:,} labels; the bound holds everywhere at once, {plan.confidence:.0%}"
