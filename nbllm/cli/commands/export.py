"""How `nbllm export` is written."""

from __future__ import annotations

import argparse

from nbllm.cli.registry import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    export = commands.add_parser(
        "export",
        help="make the flow of a notebook a service",
        description="Write the service of one flow: code, settings, requirements, tests, containers, deployment, monitoring. "
        "Everything that is in the way is told at once, by cell and line, and then nothing is written. Exporting again keeps files "
        "that you changed.",
    )
    export.add_argument("notebook", metavar="NOTEBOOK", help="the .ipynb file")
    export.add_argument("--flow", required=True, metavar="NAME", help="the function that is marked with @flow")
    export.add_argument("--out", required=True, metavar="DIR", help="a new folder, or one that an export made")
    export.add_argument("--examples", nargs="+", default=[], metavar="WHICH",
                        help="recorded runs that travel, redacted: all, a number (the newest so many) or ids of runs")  # fmt: skip
    export.add_argument(
        "--include",
        nargs="+",
        default=[],
        metavar="PATH",
        help="files of the notebook's folder, and constants by name, that travel in data/",
    )
    export.add_argument("--force", action="store_true", help="overwrite what you changed, too")
    export.add_argument("--json", action="store_true", help="print what was written as JSON")
    export.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from nbllm.cli.export import export

    return export(given)
