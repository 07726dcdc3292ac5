"""The commands' parsers: one file each, all of them registered, and cheap to make."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from nbllm.cli import main, parser
from nbllm.cli.registry import NAMES

FOLDER = Path(__file__).resolve().parents[2] / "nbllm" / "cli" / "commands"
WORDS = {
    "demo": [], "doctor": [], "cache": [], "export": ["n.ipynb", "--flow", "f", "--out", "o"], "parity": ["app"], "gateway": [],
    "serve": ["app"], "keys": ["list", "app"],
}  # fmt: skip


def test_each_file_is_a_command() -> None:
    """Files and registry name the same commands."""
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == set(NAMES) == set(WORDS)


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_a_line_of_help_and_something_that_runs_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its --help ends well, the top's help names it, and what it parses knows what to call."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: nbllm {name}" in capsys.readouterr().out
    assert f"\n    {name} " in parser().format_help()
    given = parser().parse_args([name, *WORDS[name]])
    assert isinstance(given, argparse.Namespace)
    assert callable(given.run)


def test_help_loads_nothing_but_the_parsers() -> None:
    """`nbllm --help` imports argparse and these small files, none of what the commands need."""
    code = (
        "import sys; from nbllm.cli import parser; parser().format_help();"
        "print(*sorted(n for n in sys.modules if n.startswith('nbllm.') and not n.startswith('nbllm.cli')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code says that nothing was done."""
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
