"""The command `nbllm`. Its commands are in nbllm.cli.commands; what a command needs is imported when it is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

_ABOUT = "The lab bench for people who build with LLMs in Jupyter: cached, metered, budgeted, resilient %%llm cells."


def parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is in `run`."""
    from nbllm import __version__
    from nbllm.cli.registry import add_all

    top = argparse.ArgumentParser(prog="nbllm", description=_ABOUT)
    top.add_argument("--version", action="version", version=f"nbllm {__version__}")
    add_all(top.add_subparsers(metavar="COMMAND", title="commands"))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 well, 1 something is wrong (said on stderr or by doctor), 2 bad arguments."""
    top = parser()
    given = top.parse_args(argv)
    if not hasattr(given, "run"):
        top.print_help()
        return 2
    from nbllm.errors import NbllmError

    try:
        code: int = given.run(given)
    except NbllmError as error:
        print(f"nbllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nbllm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `nbllm cache list | head`
        sys.stderr.close()
        return 0
    return code
