"""A whole hit of LiteLLM's completion(), in an environment of its own that is thrown away: python -m bench --peers.

litellm 1.106.2 imports parts of its proxy before it hands out what its cache holds, and these import fastapi, orjson and
soundfile. nbllm never installs the proxy's extra (SECURITY.md), so its own environment cannot run this; these three libraries by
themselves are enough, and diskcache for the disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.calls import hit_s
from bench.measure import Row

_NEEDED = ("fastapi", "orjson", "soundfile", "diskcache")
_CODE = """
import json, sys, time
from statistics import median
import litellm
from litellm.caching.caching import Cache

litellm.suppress_debug_info = True
base_url, folder = sys.argv[1:]
# A model with a known price: for another one LiteLLM looks for its provider on each hit.
request = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Say something"}]}
found = {}
for kind, options in {"local": {}, "disk": {"disk_cache_dir": folder}}.items():
    litellm.cache = Cache(type=kind, **options)
    def call():
        return litellm.completion(**request, api_base=base_url, api_key="x", caching=True)
    call()
    time.sleep(0.5)
    for _ in range(50):
        reply = call()
    assert reply._hidden_params.get("cache_hit") is True, kind
    times = []
    for _ in range(1000):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    found[kind] = median(times)
print(json.dumps(found))
"""


def peers(base_url: str, home: Path) -> list[Row]:
    """An exact hit of ours beside one of LiteLLM's, from its disk and from its memory; ours is measured before and after."""
    python = _environment(home / "peers")
    before_s = hit_s(base_url, home / "before")
    done = _run([str(python), "-c", _CODE, base_url, str(home / "litellm-cache")])
    theirs = json.loads(done.splitlines()[-1])
    ours_s = median((before_s, hit_s(base_url, home / "after")))
    times = theirs["disk"] / ours_s
    beside = f"litellm.completion from its disk cache {theirs['disk'] * 1e3:.2f} ms, from its memory {theirs['local'] * 1e3:.2f} ms"
    return [Row("exact hit beside LiteLLM's", "30 times its hit", f"{ours_s * 1e3:.3f} ms = 1/{times:.0f}", beside, times >= 30)]


def _environment(folder: Path) -> Path:
    """Return the Python of a new environment with the same litellm as ours and what its hits import."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    _run([str(python), "-m", "pip", "install", "-q", f"litellm=={version('litellm')}", *_NEEDED])
    return python


def _run(command: list[str]) -> str:
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}\n{done.stderr[-2000:]}")
    return done.stdout
