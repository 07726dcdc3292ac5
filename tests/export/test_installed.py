"""Exporting with an installed nbllm: a wheel has all that a checkout has for it, and makes the same project."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from nbllm.export.lock import own_pins
from tests.export.exporting import NOTEBOOK, exported, ipynb, tree

ROOT = Path(__file__).resolve().parents[2]


def test_an_installed_wheel_makes_the_same_bytes(tmp_path: Path) -> None:
    """The built wheel, in a folder before everything else: hashes of the lock that it holds, templates, and nbllm's own wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    # No export holds the JupyterLab extension, and building it takes Node.js.
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, env={**os.environ, "SKIP_JUPYTER_BUILDER": "1"})
    (built,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(installed)
    notebook = ipynb(tmp_path / "n.ipynb", *NOTEBOOK)
    out = tmp_path / "made" / "support_app"
    code = "import nbllm; print(nbllm.__file__); from nbllm.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", str(notebook), "--flow", "triage", "--out", str(out)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed), "NBLLM_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    here = tree(exported(tmp_path / "here" / "support_app", proved=False).out)
    assert tree(out) == here
    assert here["requirements.txt"].count(b"--hash=sha256:") > len(own_pins()) // 5
