"""The ways to an export from outside: the command, and nbconvert."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nbllm.cli import main
from nbllm.export import ExportError
from tests.export.exporting import NOTEBOOK, exported, ipynb, tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual notebook as a file, in a folder that is the working one."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return ipynb(tmp_path / "support.ipynb", *NOTEBOOK)


def test_the_command_writes_and_says_what(notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same files as from Python; a second time nothing is written; a changed file is kept and named."""
    words = ["export", "support.ipynb", "--flow", "triage", "--out", "support_app"]
    assert main(words) == 0
    assert "triage is exported to" in capsys.readouterr().out
    assert tree(tmp_path / "support_app") == tree(exported(tmp_path / "other" / "support_app", proved=False).out)
    (tmp_path / "support_app" / "app.py").write_text("# mine\n", encoding="utf-8")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "0 files written" in said
    assert "Kept as you changed or deleted them: app.py" in said
    assert main([*words, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["app.py"]


def test_what_is_in_the_way_is_printed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Exit code 1, every reason with its cell and line on stderr, nothing written."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    path = ipynb(tmp_path / "n.ipynb", "from nbllm import flow\nx = input()\ny = eval('1')", "@flow\ndef triage(): return x, y")
    assert main(["export", str(path), "--flow", "triage", "--out", str(tmp_path / "app")]) == 1
    said = capsys.readouterr().err
    assert "cell 1, line 2" in said
    assert "cell 1, line 3" in said
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize("flow", ["class", "../x", "", "triage()", "tri age"])
def test_hostile_names_of_flows(notebook: Path, tmp_path: Path, flow: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A keyword or a path is no flow: refused, nothing written."""
    assert main(["export", str(notebook), "--flow", flow, "--out", str(tmp_path / "app")]) == 1
    assert "Give the name of a function" in capsys.readouterr().err
    assert not (tmp_path / "app").exists()


def test_recorded_runs_of_the_home_are_found(notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was recorded in the home proves the export, and travels when it is picked."""
    from nbllm import Client, use
    from tests.export.making import run

    code = "\n".join(source for source in NOTEBOOK if not source.startswith("%"))
    with Client(home=tmp_path / "home", recordings=True, model="sim/small") as client, use(client):
        run(code)["triage"]("It burns.")
    words = ["export", str(notebook), "--flow", "triage", "--out", str(tmp_path / "app"), "--examples", "1", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["examples"], told["recorded_runs_proved"]) == (1, 1)


def test_nbconvert(notebook: Path, tmp_path: Path) -> None:
    """The exporter that pyproject.toml registers writes the project beside the notebook, and a page that says so."""
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"][
        "nbconvert.exporters"
    ]
    module, _, name = registered["nbllm-service"].partition(":")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", f"{module}.{name}", str(notebook)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "support_app") == tree(exported(tmp_path / "other" / "support_app", proved=False).out)
    assert "triage is a service" in (tmp_path / "support.service.md").read_text(encoding="utf-8")


def test_nbconvert_needs_to_know_which_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several flows, or none, it says which there are."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    exporter = importlib.import_module("nbllm.export.nbconvert_exporter").ServiceExporter
    for sources, why in (
        (("x = 1",), "has no flow"),
        (("from nbllm import flow", "@flow\ndef a(): ...\n@flow\ndef b(): ..."), "a, b"),
    ):
        with pytest.raises(ExportError, match=why):
            exporter().from_filename(str(ipynb(tmp_path / "n.ipynb", *sources)))
