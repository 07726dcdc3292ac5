"""%llm_panel latency: sliders of deadline and first-token limit, against the calls of this session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter

from nbllm.core.survival import Survival
from nbllm.notebook import style, wording
from nbllm.notebook.panel_content import Slider, Values, applied, nearest
from nbllm.notebook.panel_figure import LiveFigure, put
from nbllm.notebook.views import Table, View, columns
from nbllm.panels import latency
from nbllm.panels.latency import LatencyData

_NOTHING = (
    "No model was asked in this session yet. Ask something with %%llm and open the panel again. Until then this is a SIMULATED "
    "example."
)
_CUT = (
    "{count} were cut by a time limit or stopped by hand. How long they would have gone on is not known; they count as at least so "
    "long (Kaplan-Meier), not as fast."
)


class LatencyContent:
    """The panel of deadline and first-token limit; see Content."""

    title = "Deadline and first-token limit"
    height_px = 380
    consent = ""

    def __init__(self, client: Any, data: LatencyData) -> None:
        self._client = client
        self._data = data
        self.can_apply = not data.example
        limits = (
            ("Deadline of a call, retries and fallbacks included, in seconds", data.whole, data.deadline_s),
            ("First-token limit, then the next rung, in seconds", data.first, data.ttft_s),
        )
        self.sliders = tuple(_slider(label, times, now_s) for label, times, now_s in limits)
        self.notes = self._notes()

    def _notes(self) -> tuple[str, ...]:
        data = self._data
        if data.example:
            return (_NOTHING,)
        cut = data.whole.cut
        left_out = [f"{wording.plural(data.failed, 'call')} failed for other reasons" if data.failed else "",
                    f"{wording.plural(data.hits, 'cache hit')} took no model's time" if data.hits else ""]  # fmt: skip
        said = " and ".join(filter(None, left_out))
        return tuple(
            filter(
                None,
                (
                    f"Of {wording.plural(data.whole.n, 'call')} " + _CUT.format(count=cut) if cut else "",
                    f"Left out: {said}." if said else "",
                    f"Only the newest {latency.MOST_CALLS:,} calls are counted." if data.more else "",
                ),
            )
        )

    def numbers(self, values: Values) -> View:
        """Return what share would have run into the limits."""
        data, found = self._data, latency.at(self._data, *values)
        simulated = " (simulated)" if data.simulated or data.example else ""
        rows = [
            ("over the deadline", str(found.late), f"of {wording.plural(data.whole.n, 'call')}{simulated}, ended by it"),
            ("over the first-token limit", str(found.slow) if data.first.n else "unknown",
             f"of {wording.plural(data.first.n, 'streamed call')}, sent on to the next rung"),
            ("P95 until the answer", _or_few(data.whole_p95_s), _uncut(data.whole)),
            ("P95 until the first token", _or_few(data.first_p95_s), _uncut(data.first)),
        ]  # fmt: skip
        title = f"With a deadline of {_short(values[0])} and a first-token limit of {_short(values[1])}"
        return View(title, (Table(columns=columns("", "#", ""), rows=rows),))

    def figure(self) -> LiveFigure:
        """Return the share of calls that take longer, over time, with bands."""
        data, live = self._data, LiveFigure(height_px=self.height_px)
        (ax,) = live.axes
        example = "SIMULATED, " if data.example else ""
        simulated = ", simulated" if data.simulated and not data.example else ""
        counts = f"{example}n = {data.whole.n:,} calls, {data.whole.cut:,} of them cut{simulated}"
        style.dress(ax, "Share of calls that take longer", counts, "time", "share still waiting", rows=1)
        low = min(slider.options[0][1] for slider in self.sliders)
        high = max(low * 10, *(slider.options[-1][1] for slider in self.sliders))
        at_s = np.geomspace(low, high, 240)
        for times, colour, dash, label in (
            (data.whole, style.BLUE, "-", "whole answer"),
            (data.first, style.ORANGE, "--", "first token"),
        ):
            if times.n:
                _curve(ax, times, at_s, colour, dash, label)
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.set_ylim(0, 1.02)
        ax.xaxis.set_major_formatter(lambda value, _: _short(value))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        style.legend(ax, 1)
        self._marks = tuple(
            (live.line(ax, colour, dash), live.bar(ax, colour), live.point(ax, colour, marker))
            for colour, dash, marker in ((style.BLUE, "-", "o"), (style.ORANGE, "--", "^"))
        )
        return live

    def move(self, figure: LiveFigure, values: Values) -> None:  # noqa: ARG002 - the marks are kept here
        """Put a line at each limit, and its share on it."""
        found = latency.at(self._data, *values)
        for (line, interval, point), limit_s, share, times in zip(
            self._marks, values, (found.late, found.slow), (self._data.whole, self._data.first), strict=True
        ):
            put(line, (limit_s, limit_s), (0, 1))
            put(interval, (limit_s, limit_s), (share.low, share.high) if times.n else None)
            put(point, limit_s, share.value)

    def settings(self, values: Values) -> Mapping[str, Any]:
        """Return both limits."""
        return {"deadline_s": values[0], "ttft_s": values[1]}

    def apply(self, values: Values, *, consented: bool = False) -> str:  # noqa: ARG002 - there is nothing to consent to
        """Write both limits."""
        return applied(self._client, self.settings(values))


def latency_content(client: Any) -> LatencyContent:
    """Return the panel's content: of this session, else a simulated example."""
    from nbllm.panels.examples import latency_example

    data = latency.read(client)
    return LatencyContent(client, data if data.whole.n else latency_example(data.deadline_s, data.ttft_s))


def _slider(label: str, times: Survival, now_s: float) -> Slider:
    options = tuple((_short(value), value) for value in latency.grid(times, now_s))
    return Slider(label, options, nearest(options, now_s))


def _curve(ax: Axes, times: Survival, at_s: Any, colour: str, dash: str, label: str) -> None:
    shares = [times.longer_than(float(limit)) for limit in at_s]
    value = np.array([np.nan if one.value is None else one.value for one in shares])
    low, high = (np.array([getattr(one, end) for one in shares]) for end in ("low", "high"))
    ax.fill_between(at_s, low, high, color=colour, alpha=0.14, linewidth=0)
    ax.plot(at_s, value, color=colour, linestyle=dash, linewidth=2, label=f"{label}, with 95% band")


def _short(value_s: float) -> str:
    return f"{value_s * 1000:g} ms" if value_s < 0.9995 else f"{value_s:g} s"


def _or_few(value_s: float | None) -> str:
    return "unknown" if value_s is None else wording.seconds(value_s)


def _uncut(times: Survival) -> str:
    whole = times.n - times.cut
    few = ", needs 20" if whole < 20 else ""
    return f"of the {whole:,} that were not cut{few}" if times.cut else f"n = {whole:,}{few}"
