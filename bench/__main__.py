"""make bench: measures everything in one run, prints the table and writes docs/benchmarks.md.

python -m bench [--only starts,hits,...] [--no-write]
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

from bench import calls, footprint, meter, scale
from bench.measure import Row, server

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SECTIONS = {
    "starts": lambda _, home: footprint.starts(home),
    "hits": calls.hits,
    "uncached": calls.uncached,
    "streaming": calls.streaming,
    "meter": meter.meter,
    "memory": footprint.memory,
    "growth": scale.growth,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", default=",".join(SECTIONS), help="comma-separated: " + ", ".join(SECTIONS))
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, server() as base_url:
        for name in args.only.split(","):
            began = time.monotonic()
            rows += SECTIONS[name](base_url, Path(folder))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = render(rows)
    print(table)
    if not args.no_write and args.only == ",".join(SECTIONS):
        text = DOCUMENT.read_text(encoding="utf-8")
        head, _, rest = text.partition("<!-- table -->")
        _, _, tail = rest.partition("<!-- /table -->")
        DOCUMENT.write_text(f"{head}<!-- table -->\n{table}\n<!-- /table -->{tail}", encoding="utf-8")
        print(f"written to {DOCUMENT}", file=sys.stderr)
    return 0


def render(rows: list[Row]) -> str:
    """Return the Markdown table and the machine that it was measured on."""
    import os

    verdict = {True: "holds", False: "**falls short**", None: "reported"}
    lines = ["| what | target | measured | beside, same run | |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.target} | {r.measured} | {r.beside} | {verdict[r.ok]} |" for r in rows]
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    machine = f"{machine}, {time.strftime('%Y-%m-%d')}"
    return "\n".join(["", f"Measured with `make bench` on {machine}.", "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
