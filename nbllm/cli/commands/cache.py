"""How `nbllm cache` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    cache = commands.add_parser("cache", help="show or purge stored answers", description="Show or purge the answer cache.")
    cache.set_defaults(run=_run, action="stats")
    actions = cache.add_subparsers(metavar="ACTION", title="actions")
    actions.add_parser("stats", help="entries, size, hits, and what they saved (the default)").set_defaults(action="stats")
    entries = actions.add_parser("list", help="the newest entries")
    entries.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="at most so many (20)")
    entries.set_defaults(action="list")
    purge = actions.add_parser("purge", help="delete the entries that match all that is given")
    purge.add_argument("--key", metavar="KEY", help="whose key begins with this")
    purge.add_argument("--model", metavar="MODEL", help="of this model")
    purge.add_argument("--tag", metavar="TAG", help="with this tag")
    purge.add_argument("--older-than", metavar="TIME", help="older than 90m, 12h or 7d")
    purge.add_argument("--all", action="store_true", help="every entry")
    purge.set_defaults(action="purge")


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.cache import cache

    return cache(given)
