"""Which commands there are, in the order in which they are shown. Each is a file of nbllm/cli/commands with `add`."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
"""What `add` adds a command to. A command sets `run`: a function of the parsed arguments that returns the exit code."""
NAMES = ("demo", "doctor", "cache", "export", "parity", "gateway", "serve", "keys")


def add_all(commands: Commands) -> None:
    """Add every command's parser. Imports no more than argparse and these small files."""
    for name in NAMES:
        import_module(f"nbllm.cli.commands.{name}").add(commands)
