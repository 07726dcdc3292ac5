"""What the panel costs the browser while a notebook works: frames while an answer streams, and memory over many calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.measure import Row

CALLS = 10_000
ROWS = 200
LEAST_FRAMES_PER_S = 50
MOST_MORE_MB = 3.0
"""What the engine's own bookkeeping and the notebook's page may move between two collections; 10,000 rows that stayed are more."""
STREAM = "%%llm -m sim/large?tok_s=200 --cache off\nSummarise in ten bullets: " + "The house stands on a hill above the sea. " * 60
FILL = f"for n in range({ROWS}): nbllm.ask('row', model='sim/small')"
MANY = f"for n in range({CALLS // 4}): nbllm.ask('row', model='sim/small')"
# Frames are counted only while a call is shown as running, so that loading and idle time do not count.
COUNT = """() => {
  window.frames = 0; window.streamedMs = 0;
  let last = null;
  const look = now => {
    const busy = document.querySelector('.jp-nbllm-Running') !== null;
    if (busy && last !== null) { window.frames += 1; window.streamedMs += now - last; }
    last = busy ? now : null;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
SHOWN = "n => document.querySelector('.jp-nbllm-Facts')?.innerText.replaceAll(',', '').match(/Calls\\s+(\\d+)/)?.[1] >= n"


def live(lab_folder: Path) -> list[Row]:
    """Return both rows. The first collection comes after a quarter of the calls: caches that fill once are full by then."""
    from playwright.sync_api import sync_playwright

    from scripts.browser_env import find
    from tests.browser.lab import QUIET_CHROMIUM, Lab
    from tests.browser.lab_panel import call_rows, finish_cell, open_panel
    from tests.browser.visit import Visit

    lab = Lab(lab_folder)
    try:
        lab.wait_ready()
        name = lab.write("live.ipynb", ["%load_ext nbllm\nimport nbllm", FILL, STREAM, MANY])
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=find(), args=list(QUIET_CHROMIUM))
            tab = Visit(chromium.new_page(viewport={"width": 1280, "height": 900}), lab)
            tab.open(name)
            for number in (0, 1):
                finish_cell(tab, number)
            open_panel(tab)
            tab.page.wait_for_function(SHOWN, arg=ROWS, timeout=60_000)
            rows = call_rows(tab).count()
            tab.page.evaluate(COUNT)
            for _ in range(3):
                finish_cell(tab, 2)
            frames, lasted_s = tab.page.evaluate("window.frames"), tab.page.evaluate("window.streamedMs") / 1000
            heaps = [_heap_mb(tab, finish_cell, ROWS + 3 + done) for done in range(CALLS // 4, CALLS + CALLS // 4 + 1, CALLS // 4)]
            chromium.close()
    finally:
        lab.stop()
    return [_frames(frames, lasted_s, rows), _memory(heaps)]


def _heap_mb(tab: Any, finish_cell: Any, calls: int) -> float:
    """Make a quarter of the calls, wait until the panel has counted them, and return what is left after a collection."""
    finish_cell(tab, 3)
    tab.page.wait_for_function(SHOWN, arg=calls, timeout=60_000)
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"] / 1e6
    session.detach()
    return used


def _frames(frames: int, lasted_s: float, rows: int) -> Row:
    per_s = frames / lasted_s if lasted_s else 0.0
    return Row(
        f"frames a second while an answer streams at 200 tokens/s, {rows} rows in the panel",
        f"{LEAST_FRAMES_PER_S}",
        f"{per_s:.0f}",
        f"{frames} frames in {lasted_s:.1f} s, headless, drawn by the processor; kernel, server and browser share it",
        per_s >= LEAST_FRAMES_PER_S,
    )


def _memory(heaps_mb: list[float]) -> Row:
    more_mb = heaps_mb[-1] - heaps_mb[0]
    return Row(
        f"memory of the page over {CALLS:,} calls",
        "flat",
        f"{more_mb:+.1f} MB",
        " -> ".join(f"{heap:.1f}" for heap in heaps_mb) + " MB of JavaScript heap after a collection, each quarter",
        more_mb <= MOST_MORE_MB,
    )
