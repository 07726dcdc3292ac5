"""%llm_plot breakeven: what it draws, what it says, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from IPython.core.error import UsageError

from nbllm.core.pricing import Price
from nbllm.errors import UnknownModel
from nbllm.notebook import style
from nbllm.notebook.plot_view import PlotView, figure
from nbllm.notebook.plots import breakeven
from tests.notebook.fakes import FakeClient
from tests.notebook.test_plots import calls


def said(n: int = 500, **options: Any) -> str:
    """What the plot of n calls says in words."""
    return PlotView("breakeven", figure("breakeven", calls(n), **{"usd_per_hour": Decimal("0.6"), **options})).text


def test_the_crossing_is_marked_where_the_lines_cross() -> None:
    """The marked point lies on both lines, the title says it, and the function gives back the axes that it got."""
    _, (ax,) = style.new_figure()
    assert breakeven(ax, calls(500), usd_per_hour=0.6, tokens_per_s=410) is ax
    ((x, y),) = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "D"]
    api, own = ax.lines[0], ax.lines[1]
    assert np.interp(x, api.get_xdata(), api.get_ydata()) == pytest.approx(y)
    assert np.interp(x, own.get_xdata(), own.get_ydata()) == pytest.approx(y) == pytest.approx(14.4)
    assert ax.get_title(loc="left") == "Break-even: own is cheaper from 19.2M tokens a day"


def test_never_is_said_and_nothing_is_marked() -> None:
    """A machine that is too slow: the title says never, why it does, and what its limit is."""
    made = figure("breakeven", calls(500), usd_per_hour=0.6, tokens_per_s=30)
    assert [line for line in made.axes[0].lines if line.get_marker() == "D"] == []
    text = PlotView("breakeven", made).text
    assert "Break-even: never: own at its limit: $1.39 a million" in text
    assert "one machine's limit: 10.4M (30 tok/s)" in text
    assert "30 tok/s, 50% of the day" in said(tokens_per_s=30, use=0.5)


def test_an_unknown_pace_is_said() -> None:
    """Without a measured pace the crossing is conditional; with calls of the own endpoint it is measured."""
    assert "if a machine at $0.60 an hour keeps up" in said()
    series = calls(500)
    ours = replace(series, models=("sim/large", "vllm/qwen", "x/y"))
    _, (ax,) = style.new_figure()
    breakeven(ax, ours, usd_per_hour=0.6, own="vllm")
    assert "keeps up" not in " ".join(text.get_text() for text in ax.texts)


def test_unbilled_calls_need_a_list_price() -> None:
    """Calls that cost nothing give no price: the plot says which flag gives one, and takes it."""
    series = replace(calls(100), cost_usd=np.zeros(100))
    assert "--api" in PlotView("breakeven", figure("breakeven", series, usd_per_hour=1)).text
    priced = figure("breakeven", series, usd_per_hour=1, price=Price(Decimal(1), Decimal(2)), api="openai/gpt-4o-mini")
    assert "openai/gpt-4o-mini: $1.25 a million" in PlotView("breakeven", priced).text
    assert "Ask something with %%llm" in said(0)


@pytest.mark.parametrize("tokens_per_s", [None, 5, 30, 62, 90, 410])
def test_nothing_lies_over_data(tokens_per_s: float | None) -> None:
    """Title, numbers and legend stand above the axes and inside of the image."""
    made = figure("breakeven", calls(500), usd_per_hour=0.6, tokens_per_s=tokens_per_s)
    made.canvas.draw()
    (ax,) = made.axes
    parts = [*ax.texts, ax.get_legend()]
    for part in parts:
        box = part.get_window_extent()
        assert box.y0 >= ax.bbox.y1 - 1
        assert box.x1 <= made.bbox.x1 - 4


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The servers that run."""
    found: list[Any] = []
    monkeypatch.setattr("nbllm.engines.running", lambda: found)
    return found


def test_the_magic_takes_price_and_pace_from_the_server(shell: Any, client: FakeClient, engines: list[Any]) -> None:
    """What %serve start was told is not asked again; flags win over it."""
    client.ledger = SimpleNamespace(series=lambda _, **__: calls(500))  # type: ignore[attr-defined]
    engines.append(SimpleNamespace(name="vllm", usd_per_hour=Decimal("0.6"), status=lambda: SimpleNamespace(tokens_per_s=410.0)))
    assert "14% of what a machine at $0.60 an hour serves" in str(shell.run_line_magic("llm_plot", "breakeven"))
    assert "$1.20 an hour" in str(shell.run_line_magic("llm_plot", "breakeven --usd-per-hour 1.20 --engine vllm --tok-s 900"))
    assert "sim/large: " in str(shell.run_line_magic("llm_plot", "breakeven --api sim/large"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("breakeven", "What does your machine cost an hour"),
        ("breakeven --engine vlm", "No server 'vlm' runs here"),
        ("breakeven --usd-per-hour 1 --use 120%", "a share is above 0%"),
        ("breakeven --usd-per-hour 1 --tok-s 0", "a number above 0"),
        ("latency --usd-per-hour 1", "--usd-per-hour goes with %llm_plot breakeven only"),
    ],
)
def test_a_line_that_makes_no_sense_is_a_usage_error(
    shell: Any, client: FakeClient, engines: list[Any], line: str, message: str
) -> None:
    """In words, before anything is drawn."""
    with pytest.raises(UsageError, match=message):
        shell.find_line_magic("llm_plot")(line)


def test_an_unknown_model_is_named(shell: Any, client: FakeClient, engines: list[Any]) -> None:
    """As everywhere: what there is instead."""
    with pytest.raises(UnknownModel):
        shell.find_line_magic("llm_plot")("breakeven --usd-per-hour 1 --api opnai/gpt")
