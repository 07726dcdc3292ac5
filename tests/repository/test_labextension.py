"""The JupyterLab extension as the repository holds it: same version, same words as the kernel's side, nothing of a registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import nbllm
from nbllm.core.meter_line import seconds, short_label
from nbllm.money import format_usd

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "labextension"
WORDS = json.loads((ROOT / "tests" / "data" / "lab_format.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("amount", "text"), WORDS["usd"])
def test_money_is_written_as_the_extension_writes_it(amount: str, text: str) -> None:
    """The shared table of amounts is what format_usd writes; jest holds the extension to the same table."""
    assert format_usd(Decimal(amount)) == text


@pytest.mark.parametrize(("value_s", "text"), WORDS["seconds"])
def test_times_are_written_as_the_extension_writes_them(value_s: float, text: str) -> None:
    """The shared table of times is what the meter line writes."""
    assert seconds(value_s) == text


@pytest.mark.parametrize(("rung", "text"), WORDS["short_label"])
def test_long_names_are_cut_as_the_extension_cuts_them(rung: str, text: str) -> None:
    """The shared table of model ids is what the meter line makes of them."""
    assert short_label(rung) == text


def test_the_extension_has_nbllms_version() -> None:
    """package.json, the greeting to the kernel and the Python package say one version."""
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    (greeting,) = re.findall(r"VERSION = '([^']+)'", (SOURCE / "src" / "version.ts").read_text(encoding="utf-8"))
    assert package["version"] == greeting == nbllm.__version__


def test_the_lock_of_the_extension_names_no_host() -> None:
    """yarn.lock holds names, versions and checksums, no addresses, so that any registry can serve it and none can swap a file."""
    lock = (SOURCE / "yarn.lock").read_text(encoding="utf-8")
    assert re.findall(r"https?:/|git[@+]|@file:", lock) == []
    packages = [entry for entry in lock.split("\n\n") if "@npm:" in entry and "\n  resolution: " in entry]
    assert len(packages) > 500
    # Yarn writes none for a binary of one kind of machine, which the others do not download.
    bare = [entry.splitlines()[0] for entry in packages if "\n  checksum: " not in entry and "\n  conditions: " not in entry]
    assert [name for name in bare if not name.startswith('"nbllm-lab@')] == []


def test_colours_come_from_the_theme() -> None:
    """No style sheet names a colour of its own: both themes and high contrast hold for all of it."""
    sheets = sorted((SOURCE / "style").glob("*.css"))
    text = "\n".join(re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL) for path in sheets)
    values = re.findall(r"(?:color|background|border|outline|fill|stroke|shadow)[\w-]*:\s*([^;]+);", text)
    assert values
    # Hex, functions and names of colours; keywords such as transparent or currentcolor follow the theme.
    wrong = re.compile(
        r"#[0-9a-f]{3,8}\b|\b(?:rgba?|hsla?|oklch|white|black|red|green|blue|orange|yellow|gray|grey)\b(?!-)", re.IGNORECASE
    )
    assert [value for value in values if wrong.search(re.sub(r"var\([^)]*\)", "", value))] == []


@pytest.mark.parametrize(("version", "says"), [(None, "there is no Node.js here"), ("v18.20.4", "the one on PATH is v18.20.4")])
@pytest.mark.parametrize(("what", "word"), [("build", "built"), ("test", "tested")])
@pytest.mark.skipif(os.name == "nt", reason="the Node.js of this test is a shell script")
def test_without_a_fitting_node_all_else_goes_on(tmp_path: Path, version: str | None, says: str, what: str, word: str) -> None:
    """Both make labextension and make test-lab say in a line what is missing, and end well."""
    if version is not None:
        (tmp_path / "node").write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / "node").chmod(0o700)
    command = [sys.executable, str(ROOT / "scripts" / "labextension.py"), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": str(tmp_path)})
    assert done.stdout.startswith(f"The JupyterLab extension is not {word}: ")
    assert says in done.stdout
