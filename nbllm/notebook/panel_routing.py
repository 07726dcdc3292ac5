"""%llm_panel routing: a slider of the share of strong calls; cost, P95 and quality with their intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.core.error import UsageError
from matplotlib.ticker import PercentFormatter

from nbllm.errors import ConfigurationError, NbllmError
from nbllm.notebook import style, wording
from nbllm.notebook.panel_content import Slider, Values, applied, nearest
from nbllm.notebook.panel_figure import LiveFigure, put
from nbllm.notebook.views import Table, View, columns
from nbllm.panels import routing
from nbllm.panels.routing import RoutingData

if TYPE_CHECKING:
    from nbllm.calibration import Estimate, RoutePlan

_NOTHING = (
    "There is no learned route yet. Calibrate one, plan = calibrate_route(prompts, embeddings, weak_quality, strong_quality, ...), "
    'and open %llm_panel routing plan; or write [routes.NAME] with strategy = "learned" into nbllm.toml (docs/routes.md). Until '
    "then this is a SIMULATED example."
)
_UNNAMED = "Apply needs to know the models: calibrate_route(..., weak=MODEL, strong=MODEL, embedder=MODEL) names them."


@dataclass(frozen=True, slots=True)
class Target:
    """The route that Apply writes. table: its whole table. path: where its plan belongs when that is not in a file yet."""

    name: str
    table: Mapping[str, Any]
    path: Path | None = None


class RoutingContent:
    """The panel of a learned route; see Content."""

    title = "Routing"
    height_px = 460
    consent = ""

    def __init__(self, client: Any, data: RoutingData, target: Target | None) -> None:
        self._client = client
        self._data = data
        self._target = target
        options = tuple((f"{share:.0%}", float(share)) for share in data.plan.curve.strong_share)
        self.sliders: tuple[Slider, ...] = (
            Slider(f"Share of calls that go to {data.strong} (percent)", options, nearest(options, data.start)),
        )
        self.can_apply = target is not None
        self.notes: tuple[str, ...] = self._notes()

    def _notes(self) -> tuple[str, ...]:
        if self._data.example:
            return (_NOTHING,)
        plan = self._data.plan
        return (*plan.notes, *(() if self._target is not None else (_UNNAMED,)))

    def numbers(self, values: Values) -> View:
        """Return cost, P95 and quality."""
        data, found = self._data, routing.at(self._data, values[0])
        cost = found.point.cost_usd_per_call
        few = f"needs 20 calls of each model; there are {data.weak_s.size} and {data.strong_s.size}"
        gap = (
            "there is no gap"
            if found.recovered is None
            else _between(found.recovered, percent=True) + ", wherever the slider is put"
        )
        rows = [
            ("quality a call", f"{found.point.quality.value:.3f}", _between(found.point.quality)),
            ("of the gap to strong", "unknown" if found.recovered is None else f"{found.recovered.value:.0%}",
             gap),
            ("cost a call", wording.usd(None if cost is None else cost.value), "" if cost is None else _between(cost, usd=True)),
            ("P95 of a call", "unknown" if found.p95_s is None else wording.seconds(found.p95_s),
             few if found.p95_s is None else "of the times in the ledger"),
        ]  # fmt: skip
        return View(
            f"With {values[0]:.0%} of calls to {data.strong}", (Table(columns=columns("", "#", "95% interval"), rows=rows),)
        )

    def figure(self) -> LiveFigure:
        """Return quality above, cost below, over the share of strong calls."""
        data, live = self._data, LiveFigure(height_px=self.height_px, rows=(1.25, 1.0))
        better, dearer = live.axes
        curve = data.plan.curve
        x = curve.strong_share
        example = "SIMULATED, " if data.example else ""
        counts = f"{example}{data.plan.rows:,} labelled prompts, quality from {data.plan.quality_from}"
        style.dress(better, "What it brings", counts, "", "quality a call", rows=1)
        better.fill_between(x, curve.quality_low, curve.quality_high, color=style.BLUE, alpha=0.16, linewidth=0, label="95%")
        better.plot(x, curve.quality, color=style.BLUE, linewidth=2, label="routed")
        better.plot([0, 1], curve.quality[[0, -1]], color=style.FAINT, linewidth=1.2, linestyle="-.", label="by chance")
        style.dress(dearer, "What it costs", "per call, USD", "share of strong calls", "USD a call", rows=1)
        if np.isfinite(curve.cost_usd).all():
            dearer.fill_between(x, curve.cost_usd_low, curve.cost_usd_high, color=style.ORANGE, alpha=0.2, linewidth=0, label="95%")
            dearer.plot(x, curve.cost_usd, color=style.ORANGE, linestyle="--", linewidth=2, label="cost")
            dearer.set_ylim(0, float(np.nanmax(curve.cost_usd_high)) * 1.08)
            style.legend(dearer, 1)
        else:
            dearer.text(0.5, 0.5, "No costs in the plan", transform=dearer.transAxes, ha="center", color=style.FAINT, fontsize=10.5)
        style.legend(better, 1)
        for ax in live.axes:
            ax.set_xlim(-0.01, 1.01)
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        better.tick_params(labelbottom=False)
        self._marks = tuple(
            (live.line(ax), live.bar(ax, colour), live.point(ax, colour, marker))
            for ax, colour, marker in ((better, style.BLUE, "o"), (dearer, style.ORANGE, "^"))
        )
        return live

    def move(self, figure: LiveFigure, values: Values) -> None:  # noqa: ARG002 - the marks are kept here
        """Put the marks at a share."""
        point = routing.at(self._data, values[0]).point
        for (line, interval, mark), found in zip(self._marks, (point.quality, point.cost_usd_per_call), strict=True):
            put(line, (values[0], values[0]), (0, 1))
            put(interval, (values[0], values[0]), None if found is None else (found.low, found.high))
            put(mark, values[0], None if found is None else found.value)

    def settings(self, values: Values) -> Mapping[str, Any]:
        """Return the route with this share."""
        name, table = ("NAME", {"strategy": "learned"}) if self._target is None else (self._target.name, self._target.table)
        return {f"routes.{name}": {**table, "strong_share": values[0]}}

    def apply(self, values: Values, *, consented: bool = False) -> str:  # noqa: ARG002 - there is nothing to consent to
        """Write the share, and the plan beside the settings file where it is in none yet."""
        target = self._target
        if target is None:
            raise ConfigurationError(_UNNAMED)
        settings = self.settings(values)

        def switch_on() -> None:
            from nbllm.semantic_plans import write_whole

            plan = settings[f"routes.{target.name}"]["plan"]
            if target.path is not None:
                write_whole(target.path, self._data.plan.choose(strong_share=values[0]).to_json())
                plan = str(target.path)
            elif self._of_settings() is not None:
                plan = self._of_settings().plan
            whole = {**settings[f"routes.{target.name}"], "plan": plan}
            self._client.configure("%llm_panel", routes={target.name: whole})

        return applied(self._client, settings, before_writing=switch_on)

    def _of_settings(self) -> Any:
        return None if self._target is None else self._client.settings.routes.get(self._target.name)


def _between(found: Estimate, *, percent: bool = False, usd: bool = False) -> str:
    def shown(value: float) -> str:
        if not np.isfinite(value):
            return "no bound"
        return wording.usd(value) if usd else f"{value:.0%}" if percent else f"{value:.3f}"

    return f"{shown(found.low)} to {shown(found.high)}"


def routing_content(client: Any, name: str, namespace: Mapping[str, Any]) -> RoutingContent:
    """Return the panel of a route of the settings, of a plan in a variable, or of an example. Raises UsageError."""
    from nbllm.calibration import RoutePlan
    from nbllm.panels.examples import routing_example
    from nbllm.settings.strategies import Learned

    found = namespace.get(name) if name else None
    if isinstance(found, RoutePlan):
        return _of_plan(client, found, name)
    routes = {key: spec for key, spec in client.settings.routes.items() if isinstance(spec, Learned)}
    if not name and not routes:
        return RoutingContent(client, routing_example(), None)
    if not name and len(routes) > 1:
        raise UsageError(f"Which route? %llm_panel routing NAME, one of {', '.join(routes)}.")
    key = name or next(iter(routes))
    if key not in routes:
        known = f"Learned routes of the settings: {', '.join(routes)}." if routes else "The settings have no learned route."
        raise UsageError(f"{key} is neither a learned route nor a variable with a plan of calibrate_route. {known}")
    spec = routes[key]
    try:
        plan = RoutePlan.from_json(Path(spec.plan).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The plan of the route {key} cannot be read: {spec.plan}: {error}") from None
    except NbllmError as error:
        raise UsageError(f"The plan of the route {key}, {spec.plan}, is none of calibrate_route: {error}") from None
    weak, strong = (_one(spec.labels.get(label)) for label in ("weak", "strong"))
    data = routing.read(client, plan, weak=weak, strong=strong, start=spec.strong_share)
    return RoutingContent(client, data, Target(key, _table(spec)))


def _of_plan(client: Any, plan: RoutePlan, name: str) -> RoutingContent:
    from nbllm.semantic_plans import plan_path

    data = routing.read(client, plan, weak=plan.weak, strong=plan.strong)
    if not (plan.weak and plan.strong and plan.embedder):
        return RoutingContent(client, data, None)
    path = plan_path(None).with_name(f"nbllm-route-{name}.json")
    table = {
        "strategy": "learned",
        "plan": path.name,
        "embedder": plan.embedder,
        "labels": {"weak": plan.weak, "strong": plan.strong},
        "otherwise": plan.strong,
    }
    return RoutingContent(client, data, Target(name, table, path))


def _table(spec: Any) -> dict[str, Any]:
    """Return the table of a learned route as a settings file holds it: the plan relative to that file where it lies below."""
    from nbllm.semantic_plans import plan_path
    from nbllm.settings.route_tables import table_of

    table = table_of(spec)
    folder = plan_path(None).parent
    plan = Path(table["plan"])
    return {**table, "plan": Path(os.path.relpath(plan, folder)).as_posix() if plan.is_relative_to(folder) else str(plan)}


def _one(names: Any) -> str:
    return str(names[0]) if names else ""
