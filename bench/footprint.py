"""What it costs to be there: import time, memory over a bare kernel."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.measure import Row, python

_IMPORT = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
_LOAD_EXT = """
import socket, sys, time
from IPython.core.interactiveshell import InteractiveShell
ip = InteractiveShell.instance()
opened = []
real = socket.socket
socket.socket = lambda *a, **k: opened.append(a) or real(*a, **k)
t = time.perf_counter()
ip.run_line_magic("load_ext", "nbllm")
t = time.perf_counter() - t
assert not opened, opened
loaded = [m for m in ("litellm", "matplotlib", "aiohttp", "pydantic") if m in sys.modules]
assert not [m for m in loaded if m in ("litellm", "matplotlib")], loaded
print(t)
"""
_MEMORY = """
import resource, sys
import ipykernel.ipkernel, IPython.core.interactiveshell
ip = IPython.core.interactiveshell.InteractiveShell.instance()
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before = rss()
ip.run_line_magic("load_ext", "nbllm")
import nbllm
for i in range(20):
    nbllm.ask(f"Summarise in three bullets: It rained all day {i}. The river rose. People stayed at home.", model="sim/small")
client = nbllm.Client(endpoints={"b": nbllm.Endpoint(base_url=%r)}, model="b/bench")
for i in range(200):
    client.ask(f"Say {i}")
assert "litellm" not in sys.modules
print(rss() - before)
"""


def starts(home: Path) -> list[Row]:
    """Import and %load_ext, each in fresh interpreters, beside `import litellm`."""
    env = {"NBLLM_HOME": str(home / "starts"), "NBLLM_SIM_SPEED": "0"}
    ours_s = median(float(python(_IMPORT.format(module="nbllm"), **env)) for _ in range(5))
    with_client_s = median(float(python(_IMPORT.format(module="nbllm.current"), **env)) for _ in range(5))
    ext_s = median(float(python(_LOAD_EXT, **env)) for _ in range(5))
    peer_s = float(python(_IMPORT.format(module="litellm"), LITELLM_LOCAL_MODEL_COST_MAP="True"))
    return [
        Row(
            "import nbllm",
            "0.15 s",
            f"{ours_s:.3f} s (with the client: {with_client_s:.3f} s)",
            f"import litellm {peer_s:.2f} s",
            ours_s <= 0.15,
        ),
        Row(
            "%load_ext nbllm in a warm kernel",
            "0.15 s, no socket",
            f"{ext_s:.3f} s",
            f"import litellm {peer_s:.2f} s",
            ext_s <= 0.15,
        ),
    ]


def memory(base_url: str, home: Path) -> list[Row]:
    """Resident memory over a bare kernel after 220 calls, LiteLLM not loaded."""
    env = {"NBLLM_HOME": str(home / "memory"), "NBLLM_SIM_SPEED": "0"}
    extra_mb = float(python(_MEMORY % base_url, **env).splitlines()[-1])
    peer_mb = float(
        python(
            "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
            "import ipykernel.ipkernel\nb = rss()\nimport litellm\nprint(rss() - b)",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        ).splitlines()[-1]
    )
    return [
        Row(
            "memory over a bare kernel, without litellm",
            "60 MB",
            f"{extra_mb:.0f} MB",
            f"import litellm {peer_mb:.0f} MB",
            extra_mb <= 60,
        )
    ]
