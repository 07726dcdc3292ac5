"""What the JupyterLab extension costs the browser: the start of JupyterLab with it and without, and the bytes it loads."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.front_end_live import live
from bench.measure import Row

BUILT = Path(__file__).parent.parent / "nbllm" / "_labextension"
BUILT_AS = "nbllm-lab"
STARTS = 15
MOST_MORE_S = 0.05
MOST_BYTES = 150_000
# Set once the layout is restored, which is when a user can begin; counted from the navigation.
WATCH = """
let app;
Object.defineProperty(window, 'jupyterapp', {
  configurable: true,
  get: () => app,
  set: value => {
    app = value;
    value.restored.then(() => { window.startedMs = performance.now(); });
  },
});
"""


def front_end(home: Path) -> list[Row]:
    """Return the rows, or one that says what is missing here."""
    why = _missing()
    if why is not None:
        return [Row("JupyterLab extension", "50 ms more at start, 150 kB", f"not measured: {why}", "", None)]
    return [_start(home), _size(), *live(home / "lab-live")]


def _missing() -> str | None:
    from scripts.browser_env import find

    if not (BUILT / "install.json").exists():
        return "it is not built (make labextension)"
    return None if find() is not None else "there is no Chromium"


def _start(home: Path) -> Row:
    """Two Labs, one with the extension; pages are opened by turns, so that the machine's moods hit both."""
    from playwright.sync_api import sync_playwright

    from scripts.browser_env import find
    from tests.browser.lab import QUIET_CHROMIUM

    times: dict[bool, list[float]] = {True: [], False: []}
    with _lab(home / "lab-with") as with_it, _lab(home / "lab-without", extension=False) as without, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=find(), args=list(QUIET_CHROMIUM))
        pages = {True: (chromium.new_page(), with_it), False: (chromium.new_page(), without)}
        for page, _ in pages.values():
            page.add_init_script(WATCH)
        for n in range(STARTS + 2):
            for kind in (True, False) if n % 2 else (False, True):
                page, url = pages[kind]
                page.goto(url)
                page.wait_for_function("() => window.startedMs", timeout=60_000)
                if n >= 2:  # files are in the browser's cache from here on
                    times[kind].append(page.evaluate("window.startedMs") / 1000)
        chromium.close()
    more_s = median(ours - bare for ours, bare in zip(times[True], times[False], strict=True))
    bare_s, spread_s = median(times[False]), max(times[False]) - min(times[False])
    return Row(
        "start of JupyterLab with the extension",
        "50 ms more",
        f"{more_s * 1000:+.0f} ms (median of {STARTS} pairs)",
        f"without it {bare_s:.2f} s, {spread_s * 1000:.0f} ms between the quickest and the slowest",
        more_s <= MOST_MORE_S,
    )


@contextmanager
def _lab(folder: Path, *, extension: bool = True) -> Iterator[str]:
    """A JupyterLab on loopback; yields the address of its launcher."""
    from tests.browser.lab import Lab

    # Both have the other extensions of this environment, and nothing else.
    chosen = folder / "chosen"
    chosen.mkdir(parents=True)
    found = Path(sys.prefix) / "share" / "jupyter" / "labextensions"
    for one in (*(path for path in found.glob("*") if path.name != BUILT_AS), *((BUILT,) if extension else ())):
        (chosen / (BUILT_AS if one == BUILT else one.name)).symlink_to(one, target_is_directory=True)
    lab = Lab(folder, f"--LabApp.labextensions_path={chosen}")
    try:
        lab.wait_ready()
        yield f"{lab.origin}/lab?token={lab.token}&reset"
    finally:
        lab.stop()


def _size() -> Row:
    """All scripts, as the browser compiles them and as they travel."""
    files = [path.read_bytes() for path in (BUILT / "static").glob("*.js")]
    total, packed = sum(map(len, files)), sum(len(gzip.compress(data)) for data in files)
    return Row(
        "scripts of the extension, without what JupyterLab shares",
        "150 kB",
        f"{total / 1000:.0f} kB ({packed / 1000:.0f} kB compressed)",
        f"{len(files)} files",
        total <= MOST_BYTES,
    )
