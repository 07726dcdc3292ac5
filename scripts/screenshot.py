"""Take the picture of the README: a real JupyterLab in headless Chromium, simulated models, a fresh home.

`python scripts/screenshot.py [PATH]`; needs what `make test-browser` needs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.browser_env import find  # noqa: E402 - the path must be there first
from tests.browser.lab import QUIET_CHROMIUM, Lab  # noqa: E402 - see above
from tests.browser.visit import visit  # noqa: E402 - see above

CELLS = (
    "%load_ext nbllm\n%llm_budget session 5.00\ndoc = open('origin_of_species.txt', encoding='utf-8').read()",
    "%%llm -m sim/large -o answer --feature summaries\nSummarise {{ doc }} in three bullets.",
    "%%llm -m sim/large -o again\nSummarise {{ doc }} in three bullets.",
    """import asyncio, nbllm

await asyncio.gather(*(nbllm.aask(f"{n}: what is this about? {doc}", model="sim/small") for n in range(120)));""",
    "%llm_plot latency",
)


def main(target: Path) -> int:
    """Write the picture and return 0."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as driver:
        lab = Lab(Path(folder) / "lab")
        try:
            (lab.work / "origin_of_species.txt").write_bytes((ROOT / "notebooks" / "data" / "origin_of_species.txt").read_bytes())
            lab.wait_ready()
            name = lab.write("darwin.ipynb", CELLS)
            chromium = driver.chromium.launch(executable_path=find(), args=list(QUIET_CHROMIUM))
            context = chromium.new_context(viewport={"width": 1180, "height": 1240}, device_scale_factor=1.5)
            with visit(context, lab) as tab:
                tab.open(name)
                tab.command("application:toggle-left-area")
                tab.command("statusbar:toggle")
                tab.run_all()
                tab.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
                tab.page.wait_for_timeout(1500)
                tab.page.screenshot(path=target)
            chromium.close()
        finally:
            lab.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "quickstart.png"))
