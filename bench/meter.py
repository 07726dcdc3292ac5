"""What showing a streamed answer costs: display updates a second, and the share of the stream's time spent on them."""

from __future__ import annotations

from pathlib import Path

from bench.measure import Row, python

_CODE = """
import time
from IPython.core.interactiveshell import InteractiveShell
import nbllm
from nbllm.notebook import screens
from nbllm.notebook.runner import run

shell = InteractiveShell.instance()
spent, updates = [0.0], [0]
screen = screens.Notebook()

def timed(name):
    inner = getattr(screen, name)
    def call(*args):
        began = time.thread_time()
        try:
            return inner(*args)
        finally:
            spent[0] += time.thread_time() - began
    setattr(screen, name, call)

for name in ("tick", "restarted", "finish"):
    timed(name)
show = screen._show
screen._show = lambda *args, **named: (updates.__setitem__(0, updates[0] + 1), show(*args, **named))[1]
text = "It rained all day and the river rose. " * 60
client = nbllm.get_client()
began = time.monotonic()
options = {"model": "sim/large?tok_s=160", "cache": "off", "max_tokens": 600}
run(client, "Repeat this: " + text, options, screen=screen, keep=lambda reply: None)
print("\\n", spent[0], updates[0], time.monotonic() - began)
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
