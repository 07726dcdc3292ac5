"""The notebooks as a person sees them, in a real JupyterLab."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit
from tests.starvation import Stopwatch

SENTENCE = "The river rose and the town slept. "
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_quickstart_opens_runs_and_costs_nothing_the_second_time(tab: Visit, pictures: Path) -> None:
    """The tour runs from top to bottom: answers, meter lines, a table and a plot, no error and no request to elsewhere.

    Run All a second time: the answer is a hit for $0.
    """
    tab.open("00_quickstart.ipynb")
    tab.run_all()
    text = tab.page.locator(".jp-Notebook").inner_text()
    assert "sim/large (simulated)" in text
    assert "cache hit" in text
    assert tab.error_texts() == []
    assert tab.page.locator(".jp-OutputArea img[src^='data:image/png']").count() >= 1
    assert tab.foreign == []
    tab.page.screenshot(path=pictures / "quickstart.png")
    tab.run_all()
    shown = tab.page.locator(".jp-CodeCell", has_text="again.source").locator(".jp-OutputArea").first.inner_text()
    assert "'cache'" in shown
    assert "True" in shown


def test_breaking_notebook_shows_errors_in_a_few_lines(tab: Visit, pictures: Path) -> None:
    """Failures read as messages, not as tracebacks: what happened, and what to do."""
    tab.open("01_when_things_break.ipynb")
    tab.run_all()
    texts = tab.error_texts()
    assert len(texts) >= 3
    assert all(len(text.splitlines()) <= 12 for text in texts), [len(text.splitlines()) for text in texts]
    assert any("Did you mean" in text and "speech" in text for text in texts)
    assert "Usage by status" in tab.page.locator(".jp-Notebook").inner_text()
    assert tab.foreign == []
    tab.page.screenshot(path=pictures / "when_things_break.png")


def test_interrupt_in_mid_stream_leaves_a_usable_kernel(tab: Visit, lab: Lab) -> None:
    """The stop button ends the answer within a second or so, what came stays in sight, marked, and the next cell runs."""
    name = lab.write(
        "interrupt.ipynb",
        [
            "%load_ext nbllm\ntext = open('data/origin_of_species.txt', encoding='utf-8').read()",
            "%%llm -m sim/large?tok_s=8&seed=5 -o part --cache off\nSummarise in ten bullets: {{ text }}",
            "part.interrupted, len(part.text) > 0, 6 * 7",
        ],
    )
    tab.open(name)
    tab.command("notebook:run-all-cells")
    tab.expect_text(".nbllm-meter", "tok/s")
    watch = Stopwatch(others=True)
    tab.command("notebook:interrupt-kernel")
    tab.wait_idle()
    assert watch.s < 3
    tab.expect_text(".nbllm-meter", "Stopped by you")
    tab.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    tab.command("notebook:run-cell")
    tab.expect_text(".jp-CodeCell >> nth=2", "(True, True, 42)")


def test_page_does_not_jump_while_an_answer_streams(tab: Visit, lab: Lab) -> None:
    """While text streams in, the output never shrinks by more than a line, and what stands above it does not move."""
    name = lab.write(
        "steady.ipynb",
        [
            "%load_ext nbllm",
            "%%llm -m sim/large?tok_s=60&seed=2 --cache off\nSummarise in ten bullets: "
            + "The river rose and the town slept. " * 40,
        ],
    )
    tab.open(name)
    tab.page.evaluate(
        """() => {
          window.seen = [];
          const cells = () => document.querySelectorAll('.jp-CodeCell');
          window.timer = setInterval(() => {
            const area = cells()[1] && cells()[1].querySelector('.jp-OutputArea');
            if (area) window.seen.push([area.getBoundingClientRect().height, cells()[0].getBoundingClientRect().top]);
          }, 15);
        }"""
    )
    tab.run_all()
    seen: list[list[float]] = tab.page.evaluate("() => { clearInterval(window.timer); return window.seen; }")
    heights = [height for height, _ in seen if height > 0]
    assert len(set(heights)) > 2, "nothing streamed"
    shrinks = [before - after for before, after in pairwise(heights) if after < before]
    assert max(shrinks, default=0) <= 24, shrinks
    tops = {round(top) for _, top in seen}
    assert len(tops) == 1, tops
