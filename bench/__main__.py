"""make bench: measures everything in one run, prints the table, writes it to docs/benchmarks.md and its main rows to README.md.

python -m bench [--only starts,hits,...] [--no-write] [--peers]
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

from bench import (
    calibration,
    calls,
    crowd,
    export,
    footprint,
    front_end,
    lab,
    meter,
    panels,
    peers,
    route_plans,
    routes,
    scale,
    service,
    service_redis,
    stages,
    vectors,
)
from bench.measure import Row, server

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
IN_README = {
    "exact hit, sync door, row written": "an answer from the cache",
    "uncached call, async, c=1": "what a call takes, one caller",
    "64 callers, one process": "calls a second, 64 callers",
    "import nbllm": "import",
}
"""Rows of the table that README.md shows too, by their name there."""
SECTIONS = {
    "starts": lambda _, home: footprint.starts(home),
    "hits": calls.hits,
    "uncached": lambda base_url, home: calls.uncached(base_url, home) + crowd.canned(base_url, home),
    "usual": crowd.usual,
    "stages": stages.stages,
    "streaming": calls.streaming,
    "meter": meter.meter,
    "memory": footprint.memory,
    "growth": scale.growth,
    "vectors": vectors.lookups,
    "routes": lambda _, __: routes.decisions(),
    "export": lambda _, home: export.export(home),
    "calibration": lambda _, __: calibration.calibrate() + route_plans.plans(),
    "panels": lambda _, __: panels.panels(),
    "lab": lab.lab,
    "front-end": lambda _, home: front_end.front_end(home),
    "shared": service_redis.shared,
    "service": service.service,
}
PEERS = {"peers": peers.peers}
"""What is measured only when --peers asks for it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", default=",".join(SECTIONS), help="comma-separated: " + ", ".join(SECTIONS))
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--peers", action="store_true", help="also measure what needs an environment of its own, made with pip")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    _load_peers()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, server() as base_url:
        for name in [*args.only.split(","), *(["peers"] if args.peers else [])]:
            began = time.monotonic()
            rows += (SECTIONS | PEERS)[name](base_url, Path(folder))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = render(rows)
    print(table)
    if not args.no_write and args.only == ",".join(SECTIONS):
        for page, mark, text in ((DOCUMENT, "table", table), (README, "measured", short(rows))):
            page.write_text(between(page.read_text(encoding="utf-8"), mark, text), encoding="utf-8")
            print(f"written to {page}", file=sys.stderr)
    return 0


def _load_peers() -> None:
    """Import LiteLLM now, and leave it out of garbage collections: whoever calls aiohttp or nbllm has not loaded its 180 MB."""
    import litellm  # noqa: F401 - its size is what matters here

    gc.collect()
    gc.freeze()


def between(page: str, mark: str, text: str) -> str:
    """Return the page with `text` between <!-- mark --> and <!-- /mark -->. Raises ValueError where it has no such place."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"The page has no {begin} ... {end}.")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def short(rows: list[Row]) -> str:
    """Return the few rows that README.md shows, and where they were measured."""
    lines = ["| | nbllm | beside it, same run |", "|---|---|---|"]
    lines += [f"| {IN_README[r.what]} | {r.measured} | {r.beside} |" for r in rows if r.what in IN_README]
    return "\n".join(["", *lines, "", f"Measured with `make bench` on {machine()}.", ""])


def machine() -> str:
    """Return what the numbers were measured on, and when."""
    import os

    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{where}, {time.strftime('%Y-%m-%d')}"


def render(rows: list[Row]) -> str:
    """Return the Markdown table and the machine that it was measured on."""
    verdict = {True: "holds", False: "**falls short**", None: "reported"}
    lines = ["| what | target | measured | beside, same run | |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.target} | {r.measured} | {r.beside} | {verdict[r.ok]} |" for r in rows]
    return "\n".join(["", f"Measured with `make bench` on {machine()}.", "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
