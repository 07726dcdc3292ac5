"""How `nbllm demo` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    demo = commands.add_parser("demo", help="run the quickstart notebook and say what it cost")
    demo.add_argument("--model", metavar="MODEL", help="a real model instead of the simulated ones; this may cost money")
    demo.add_argument("--out", metavar="PATH", help="where the executed notebook goes (build/demo/00_quickstart.ipynb)")
    demo.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.demo import demo

    return demo(model=given.model, out=given.out)
