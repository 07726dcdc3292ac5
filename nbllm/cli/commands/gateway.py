"""How `nbllm gateway` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    gateway = commands.add_parser(
        "gateway",
        help="OpenAI's wire for other SDKs, on your own cache, ledger and budgets",
        description="Serve the models that you can reach at /v1 on this machine, behind a random key, until Ctrl-C.",
    )
    gateway.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (a free one)")
    gateway.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.gateway import gateway

    return gateway(given)
