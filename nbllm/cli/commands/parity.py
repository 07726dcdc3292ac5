"""How `nbllm parity` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parity = commands.add_parser(
        "parity",
        help="does a service ask and answer as the notebook did?",
        description="Replay recorded runs of an app's flows (its examples.json, and what is recorded in your home) on the "
        "notebook's road and through the service, on one cache and with recorded answers, so at no cost. What differs is shown. "
        "Exit code 1: something does.",
    )
    parity.add_argument("app", metavar="APP", help="the folder of an exported app")
    parity.add_argument(
        "--notebook", metavar="NOTEBOOK", help="its .ipynb file; without it the recordings are what is compared with"
    )
    parity.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.parity import compare

    return compare(given)
