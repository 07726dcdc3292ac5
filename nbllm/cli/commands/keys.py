"""How `nbllm keys` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    keys = commands.add_parser("keys", help="who may call an app", description="Make, list or revoke the keys of an app.")
    actions = keys.add_subparsers(metavar="ACTION", title="actions", required=True)
    make = actions.add_parser("make", help="make a key; it is printed once")
    make.add_argument("folder", metavar="DIR", help="the folder of an exported app")
    make.add_argument("--tier", metavar="TIER", default="default", help="which of the settings' tiers it has (default)")
    make.add_argument("--note", metavar="TEXT", default="", help="whom it is for")
    listed = actions.add_parser("list", help="ids, tiers and notes; never the keys")
    listed.add_argument("folder", metavar="DIR", help="the folder of an exported app")
    revoke = actions.add_parser("revoke", help="take a key back")
    revoke.add_argument("folder", metavar="DIR", help="the folder of an exported app")
    revoke.add_argument("key_id", metavar="ID", help="its id, or the key itself")
    for name, action in (("make", make), ("list", listed), ("revoke", revoke)):
        action.set_defaults(run=_run, action=name)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.serve import keys

    return keys(given)
