"""How `nbllm doctor` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    doctor = commands.add_parser(
        "doctor",
        help="what was found here, what is wrong, what to do",
        description="Look at keys (by name only), servers, home, settings and versions. Exit code 1: something is broken.",
    )
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.doctor import doctor

    return doctor(as_json=given.json)
