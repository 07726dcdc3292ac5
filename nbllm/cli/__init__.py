"""The command `nbllm`: demo, doctor, cache, export, parity, serve, keys. What a command needs is imported when it is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

_ABOUT = "The lab bench for people who build with LLMs in Jupyter: cached, metered, budgeted, resilient %%llm cells."


def parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is in `run`."""
    from nbllm import __version__

    top = argparse.ArgumentParser(prog="nbllm", description=_ABOUT)
    top.add_argument("--version", action="version", version=f"nbllm {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", title="commands")

    demo = commands.add_parser("demo", help="run the quickstart notebook and say what it cost")
    demo.add_argument("--model", metavar="MODEL", help="a real model instead of the simulated ones; this may cost money")
    demo.add_argument("--out", metavar="PATH", help="where the executed notebook goes (build/demo/00_quickstart.ipynb)")
    demo.set_defaults(run="demo")

    doctor = commands.add_parser(
        "doctor",
        help="what was found here, what is wrong, what to do",
        description="Look at keys (by name only), servers, home, settings and versions. Exit code 1: something is broken.",
    )
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(run="doctor")

    _cache_parser(commands)
    _export_parser(commands)
    _parity_parser(commands)
    gateway = commands.add_parser(
        "gateway",
        help="OpenAI's wire for other SDKs, on your own cache, ledger and budgets",
        description="Serve the models that you can reach at /v1 on this machine, behind a random key, until Ctrl-C.",
    )
    gateway.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (a free one)")
    gateway.set_defaults(run="gateway")
    _serve_parsers(commands)
    return top


def _cache_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cache = commands.add_parser("cache", help="show or purge stored answers", description="Show or purge the answer cache.")
    cache.set_defaults(run="cache", action="stats")
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


def _export_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    export.set_defaults(run="export")


def _parity_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    parity.set_defaults(run="parity")


def _serve_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run an exported app",
        description="Run the app in a folder until Ctrl-C or SIGTERM, on this machine's loopback unless its settings or --host say "
        "otherwise. What is open to whom is said on stderr, the log goes to stdout as JSON.",
    )
    serve.add_argument("folder", metavar="DIR", help="the folder of an exported app")
    serve.add_argument("--host", metavar="HOST", help="address to listen on, instead of the settings'")
    serve.add_argument("--port", metavar="PORT", type=int, help="port to listen on, instead of the settings'; 0: a free one")
    serve.set_defaults(run="serve")

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
        action.set_defaults(run="keys", action=name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 well, 1 something is wrong (said on stderr or by doctor), 2 bad arguments."""
    top = parser()
    given = top.parse_args(argv)
    if not hasattr(given, "run"):
        top.print_help()
        return 2
    from nbllm.errors import NbllmError

    try:
        return _run(given)
    except NbllmError as error:
        print(f"nbllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nbllm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `nbllm cache list | head`
        sys.stderr.close()
        return 0


def _run(given: argparse.Namespace) -> int:
    if given.run == "demo":
        from nbllm.cli.demo import demo

        return demo(model=given.model, out=given.out)
    if given.run == "doctor":
        from nbllm.cli.doctor import doctor

        return doctor(as_json=given.json)
    if given.run == "export":
        from nbllm.cli.export import export

        return export(given)
    if given.run == "parity":
        from nbllm.cli.parity import compare

        return compare(given)
    if given.run == "gateway":
        from nbllm.cli.gateway import gateway

        return gateway(given)
    if given.run in {"serve", "keys"}:
        from nbllm.cli import serve

        return serve.serve(given) if given.run == "serve" else serve.keys(given)
    from nbllm.cli.cache import cache

    return cache(given)
