"""How `nbllm serve` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser(
        "serve",
        help="run an exported app",
        description="Run the app in a folder until Ctrl-C or SIGTERM, on this machine's loopback unless its settings or --host say "
        "otherwise. What is open to whom is said on stderr, the log goes to stdout as JSON.",
    )
    serve.add_argument("folder", metavar="DIR", help="the folder of an exported app")
    serve.add_argument("--host", metavar="HOST", help="address to listen on, instead of the settings'")
    serve.add_argument("--port", metavar="PORT", type=int, help="port to listen on, instead of the settings'; 0: a free one")
    serve.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.serve import serve

    return serve(given)
