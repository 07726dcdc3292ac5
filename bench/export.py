"""How long an export takes: the command, in a fresh interpreter, on a notebook of 200 cells, proof included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.measure import Row

_CELLS = 200
_TARGET_S = 2.0
_ROUNDS = 3


def export(home: Path) -> list[Row]:
    """One row: the median of three exports, each into a new folder; beside it, importing what the app is made of."""
    folder = home / "export"
    folder.mkdir()
    notebook = _notebook(folder / "big.ipynb")
    env = {**os.environ, "NBLLM_HOME": str(folder / "home")}

    def once(number: int) -> float:
        command = [
            sys.executable,
            "-m",
            "nbllm.cli",
            "export",
            str(notebook),
            "--flow",
            "triage",
            "--out",
            str(folder / f"app{number}"),
        ]
        began = time.perf_counter()
        subprocess.run(command, check=True, env=env, capture_output=True)
        return time.perf_counter() - began

    took_s = median(once(number) for number in range(_ROUNDS))
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import fastapi, uvicorn, aiohttp, pydantic"], check=True, capture_output=True)
    imports_s = time.perf_counter() - began
    return [
        Row(
            f"export of a notebook of {_CELLS} cells, the whole command",
            f"{_TARGET_S:g} s",
            f"{took_s:.2f} s",
            f"importing FastAPI, uvicorn, aiohttp and pydantic alone {imports_s:.2f} s",
            took_s <= _TARGET_S,
        )
    ]


def _notebook(path: Path) -> Path:
    """Write a notebook: imports, %%llm cells, functions that need each other, plots and experiments that no flow needs, a flow."""
    sources = [
        "import json\nimport re\nfrom dataclasses import dataclass\n\nfrom nbllm import ask, flow",
        "@dataclass\nclass Triage:\n    urgent: bool\n    topic: str",
        "%llm_config model=sim/small deadline_s=30",
        "%%llm -o rules\nWrite the rules of triage in five lines.",
        "def step_0(text):\n    return re.sub(r'\\s+', ' ', text)",
    ]
    while len(sources) < _CELLS - 1:
        number = len(sources)
        sources += [
            f"WORDS_{number} = {{'w{number}': {number}, 'long': 'a text of some length ' * 3}}",
            f"def step_{number}(text):\n    known = WORDS_{number}\n    return json.dumps(known) + text if text in known else text",
            f"experiment_{number} = ask('Try number {number}', model='sim/small')\nexperiment_{number}.text",
            f"for i in range(3):\n    print(i, step_{number}('w{number}'))",
        ]
    sources = sources[: _CELLS - 1]
    steps = [source[4:].partition("(")[0] for source in sources if source.startswith("def ")]
    used = "".join(f"    text = {name}(text)\n" for name in steps)
    last = "    return ask(f'{rules.text}\\n{text}', schema=Triage, feature='triage').data"
    sources.append(f"@flow\ndef triage(text: str) -> Triage:\n{used}{last}")
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": s}
        for n, s in enumerate(sources)
    ]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}), encoding="utf-8")
    return path
