"""Plots: what they claim, what they leave out, how fast they are."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.error import UsageError

from nbllm.core.ports import Series
from nbllm.core.statistics import quantiles
from nbllm.notebook import plots, style
from nbllm.notebook.manuals import PLOTS as ALL_PLOTS
from nbllm.notebook.plot_view import PlotView, figure, plot_view

PLOTS = tuple(kind for kind in ALL_PLOTS if kind != "breakeven")  # which needs to know what a machine costs


def calls(n: int, *, hits: float = 0.3, failures: float = 0.03) -> Series:
    """Calls, n of them, of three models with log-normal latencies, as seeded numbers."""
    random = np.random.default_rng(7)
    hit = random.random(n) < hits
    failed = (random.random(n) < failures) & ~hit
    latency = np.where(hit, random.lognormal(-9.5, 0.3, n), random.lognormal(0.1, 0.45, n))
    tokens = random.integers(10, 900, n).astype(np.float64)
    cost = np.where(hit, 0.0, tokens * 1e-6)
    return Series(
        started_at=1.795e9 + np.sort(random.random(n)) * max(1.0, n),
        latency_s=latency, ttft_s=np.where(hit, np.nan, latency * 0.3), cost_usd=cost,
        saved_usd=np.where(hit, tokens * 1e-6, np.nan), saved_s=np.where(hit, 1.1, np.nan), input_tokens=tokens,
        output_tokens=tokens / 3, hit=hit, failed=failed,
        model=random.integers(0, 3, n).astype(np.int32), models=("sim/large", "sim/$mall_x$", "m" * 60),
    )  # fmt: skip


@pytest.mark.parametrize("kind", PLOTS)
@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_every_plot_draws_any_number_of_calls(kind: str, n: int) -> None:
    """Titles and sizes are stated, axes have units, an empty plot says what to do."""
    made = figure(kind, calls(n))
    view = PlotView(kind, made)
    assert view.png().startswith(b"\x89PNG")
    assert "n = " in view.text
    if n == 0:
        assert "Ask something with %%llm" in view.text
    else:
        ax = made.axes[0]
        assert ax.get_xlabel()
        assert any(
            unit in f"{ax.get_xlabel()} {ax.get_ylabel()}" for unit in ("second", "minute", "dollars", "tokens", "calls", "time")
        )


def test_percentiles_are_those_of_the_statistics_and_lie_on_the_curve() -> None:
    """P50, P95 and P99 of answered model calls; hits and failures are not among them."""
    series = calls(1000)
    _, (ax,) = style.new_figure()
    assert plots.latency(ax, series) is ax
    answered = series.latency_s[~series.hit & ~series.failed]
    wanted = quantiles(answered, 0.5, 0.95, 0.99)
    marked = [
        (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() in "osD" and len(line.get_xdata()) == 1
    ]
    assert [x for x, _ in marked] == list(wanted)
    assert [y for _, y in marked] == [0.5, 0.95, 0.99]


def test_no_p99_is_claimed_from_fewer_than_100_calls() -> None:
    """The legend says what is missing instead of a number."""
    text = PlotView("latency", figure("latency", calls(60, hits=0))).text
    assert "no P99: n < 100" in text
    assert "P95 " in text
    assert "no P95" not in text


@pytest.mark.parametrize("kind", PLOTS)
@pytest.mark.parametrize("n", [3, 500])
def test_nothing_lies_over_data(kind: str, n: int) -> None:
    """Title, numbers and legend stand above the axes, inside of the image, and two panels' do not run into each other."""
    made = figure(kind, calls(n))
    made.canvas.draw()
    boxes = []
    for ax in made.axes:
        legend = ax.get_legend()
        above = [text for text in ax.texts if text.get_gid() == style.SUBTITLE] + ([legend] if legend else [])
        for part in above:
            box = part.get_window_extent()
            assert box.y0 >= ax.bbox.y1 - 1, (kind, part)
            assert box.x1 <= made.bbox.x1 - 4, (kind, part)
            boxes.append(box)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_the_figure_is_a_card_with_its_own_ground() -> None:
    """Outside of the round corners the page shows through; text stands on a light ground in every theme."""
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(PlotView("cost", figure("cost", calls(20))).png()))
    assert pixels[0, 0, 3] == 0
    assert pixels[60, 20, 3] == 1
    assert pixels[60, 20, :3].min() > 0.95


def test_hits_have_axes_of_their_own() -> None:
    """Microseconds and seconds do not share an axis."""
    made = figure("latency", calls(300))
    assert [ax.get_title(loc="left") for ax in made.axes] == ["Latency, model calls", "Latency, cache hits"]
    assert made.axes[1].get_xlabel().startswith("ms until")


@pytest.fixture(scope="module")
def million() -> Series:
    """A million calls."""
    return calls(1_000_000)


@pytest.mark.parametrize("kind", PLOTS)
def test_a_million_calls_take_a_second(kind: str, million: Series) -> None:
    """Curves and points are thinned; no plot draws a million of them (three times that on a slow machine)."""
    began = time.process_time()
    made = figure(kind, million)
    PlotView(kind, made).png()
    assert time.process_time() - began < 3.0
    assert max((len(line.get_xdata()) for ax in made.axes for line in ax.lines), default=0) < 10_000


def test_no_pyplot_state_is_touched() -> None:
    """Plots neither load pyplot nor leave a figure behind in it."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from tests.notebook.test_plots import calls\n"
        "from nbllm.notebook.plot_view import PlotView, figure\n"
        "PlotView('cost', figure('cost', calls(10))).png()\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False"


class _Client:
    session = "s"

    class ledger:  # noqa: N801 - stands for client.ledger
        @staticmethod
        def series(_: Any, *, costs: bool) -> Series:  # noqa: ARG004 - the ledger's
            return calls(50)


def test_a_plot_can_be_saved(tmp_path: Path) -> None:
    """PNG, SVG and PDF; another ending or place is refused in words."""
    from nbllm.core.ports import Filter

    for suffix in ("png", "svg", "pdf"):
        path = tmp_path / f"p.{suffix}"
        assert "Saved to" in plot_view("cost", _Client, Filter(), save=str(path)).text
        assert path.stat().st_size > 1000
    with pytest.raises(UsageError, match=r"must end in \.png"):
        plot_view("cost", _Client, Filter(), save="p.docx")
    with pytest.raises(UsageError, match="could not be written"):
        plot_view("cost", _Client, Filter(), save=str(tmp_path / "no" / "p.png"))


def test_the_image_is_shown_at_notebook_width_and_twice_as_sharp() -> None:
    """720 px wide on the page, 1440 px in the image."""
    data, metadata = PlotView("cost", figure("cost", calls(20)))._repr_mimebundle_()
    assert metadata["image/png"]["width"] == 720
    assert set(data) == {"image/png", "text/plain"}


def labels(axis: Any) -> list[str]:
    """What stands beside an axis, top to bottom or left to right, as it is drawn."""
    axis.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for which in (axis.get_major_ticks(), axis.get_minor_ticks()) for tick in which if low <= tick.get_loc() <= high]
    return [tick.label1.get_text() for tick in sorted(ticks, key=lambda tick: tick.get_loc()) if tick.label1.get_text()]


SPREADS = (1.0, 1.05, 1.2, 2.0, 5.0, 9.0, 12.0, 50.0, 1e3, 1e4)
SHORTEST_S = (3e-5, 1.1e-3, 0.9, 1.0, 7.5)


@pytest.mark.parametrize(
    ("shortest_s", "spread"),
    [(shortest_s, spread) for at, shortest_s in enumerate(SHORTEST_S) for spread in SPREADS[at % 2 :: 2]],  # a chessboard of both
)
def test_each_label_of_the_timeline_is_a_time_with_its_unit(shortest_s: float, spread: float) -> None:
    """However close together the calls are, between three and a dozen labels are there, each as "600 ms" or "2 s"."""
    series = calls(40, hits=0, failures=0)
    series = replace(series, latency_s=np.geomspace(shortest_s, shortest_s * spread, 40))
    axis = figure("timeline", series).axes[0].yaxis
    shown = labels(axis)
    assert {tick.label1.get_color() for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())} == {style.FAINT}
    assert 2 <= len(shown) <= 12, shown
    assert [text for text in shown if not re.fullmatch(r"\d+ (s|ms|µs)", text)] == []
    assert len(set(shown)) == len(shown)
