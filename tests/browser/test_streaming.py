"""A streamed answer in a real JupyterLab, looked at in every frame: it must not jump, flicker or pile up."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

WATCH = """() => {
  window.frames_seen = [];
  const look = () => {
    if (window.frames_seen === null) return;
    const area = [...document.querySelectorAll('.jp-CodeCell')][2]?.querySelector('.jp-OutputArea');
    const meters = area ? area.querySelectorAll('.nbllm-meter') : [];
    const scroller = document.querySelector('.jp-WindowedPanel-outer');
    window.frames_seen.push([
      area ? area.offsetHeight : 0, area ? area.querySelectorAll('.jp-OutputArea-output').length : 0, meters.length,
      meters.length ? meters[0].innerText : '', scroller ? scroller.scrollTop : 0,
    ]);
    requestAnimationFrame(look);
  };
  look();
}"""
TEXT = (
    "The first sentence says that the house stands on a hill. The second one adds a number, 42, and a word in `code`. "
    "The third sentence is about money: it costs 5 dollars. The fourth one is the last. "
) * 6
TYPESET_PX = 8
"""A formula or a code block that is completed may be this much lower than its source was."""


def frames(tab: Visit) -> list[list[Any]]:
    """What was seen: height, outputs, meters, meter text and scroll position of each frame with an output in it."""
    seen = tab.page.evaluate("() => { const seen = window.frames_seen; window.frames_seen = null; return seen; }")
    return [frame for frame in seen if frame[1]]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_streaming_answer_grows_in_place(tab: Visit, lab: Lab, pictures: Path, theme: str) -> None:
    """One output and one meter in every frame, never lower than before, the page not scrolled, meter changes below ten a second."""
    name = lab.write(
        f"stream-{theme.split()[1].lower()}.ipynb",
        [
            "%load_ext nbllm",
            f"doc = {TEXT!r}",
            "%%llm -m sim/large -o a --cache off\nSummarise in ten bullets: {{ doc }}",
            "a.latency_s",
        ],
    )
    tab.open(name)
    tab.theme(theme)
    tab.page.evaluate(WATCH)
    tab.run_all()
    seen = frames(tab)
    tab.page.screenshot(path=pictures / f"stream-{theme.split()[1].lower()}.png")
    assert len(seen) > 20
    assert {frame[1] for frame in seen} == {1}
    assert {frame[2] for frame in seen} <= {0, 1}
    assert seen[-1][2] == 1
    drops = [before[0] - after[0] for before, after in pairwise(seen)]
    assert max(drops) <= TYPESET_PX
    assert {frame[4] for frame in seen} == {0}
    lasted_s = float(tab.outputs(3).split()[-1])
    changes = sum(before[3] != after[3] for before, after in pairwise(seen))
    assert 2 * lasted_s <= changes <= 10 * lasted_s + 3
    assert "sim/large (simulated)" in seen[-1][3]
    assert tab.page.locator(".jp-CodeCell .jp-OutputArea [role=status]").count() == 1
    assert tab.page.locator(".jp-OutputArea [aria-live=polite], .jp-OutputArea [aria-live=assertive]").count() == 0
