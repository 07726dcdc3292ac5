"""What showing a streamed answer costs: display updates a second, and the share of the stream's time spent on them."""

from __future__ import annotations

from pathlib import Path

from bench.measure import Row, python

_CODE = """
import time
from IPython.core.interactiveshell import InteractiveShell
import IPython.display as shown
import nbllm
from nbllm.notebook import runner, screens

ip = InteractiveShell.instance()
ip.run_line_magic("load_ext", "nbllm")
spent = [0.0]; updates = [0]; began_at = []
cls = screens.NotebookScreen
for name in ("show", "update", "finish"):
    if hasattr(cls, name):
        def timed(self, *a, _f=getattr(cls, name), **k):
            t = time.thread_time()
            try:
                return _f(self, *a, **k)
            finally:
                spent[0] += time.thread_time() - t
                updates[0] += 1
        setattr(cls, name, timed)
began = time.monotonic()
text = "It rained all day and the river rose. " * 60
ip.run_cell_magic("llm", "-m sim/large?tok_s=160 --cache off --max-tokens 600 -o a", "Repeat this: " + text)
took = time.monotonic() - began
print(spent[0], updates[0], took)
"""


def meter(base_url: str, home: Path) -> list[Row]:
    """A stream of some seconds shown as in a notebook."""
    del base_url
    spent_s, updates, took_s = map(float, python(_CODE, NBLLM_HOME=str(home / "meter")).splitlines()[-1].split())
    share = spent_s / took_s
    measured = f"{share:.1%} of the stream's time, {updates / took_s:.1f} updates/s over {took_s:.1f} s"
    return [
        Row(
            "meter while streaming",
            "2% and 10 updates/s",
            measured,
            "the stream's own time",
            share <= 0.02 and updates / took_s <= 10.5,
        )
    ]
