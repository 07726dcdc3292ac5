"""An export by itself: in a clean environment it starts, answers, passes its own tests, and imports no notebook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm.core.ports import Recording
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client
from tests.export.clean import clean_environment
from tests.export.exporting import NOTEBOOK, exported
from tests.export.making import run

ANSWER = '{"urgent": true, "topic": "fire"}'
NOT_IN_A_SERVICE = ("IPython", "ipykernel", "ipywidgets", "jupyterlab", "jupyter_server", "matplotlib", "litellm", "traitlets",
                    "nbconvert", "nbformat", "pandas", "pytest", "hypothesis", "openai",
                    "nbllm.notebook", "nbllm.export", "nbllm.engines")  # fmt: skip
STARTS = """
import json, sys
from app import app
from nbllm.service.replay import app_runs
from nbllm.service.testing import served
from pathlib import Path
with served(app) as service:
    told = [service.get("/health").status, service.get("/ready").status, service.replay(app_runs(Path("."))[0]).json]
print(json.dumps([told, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Recording]:
    """One run of the usual flow."""
    code = "\n".join(source for source in NOTEBOOK if not source.startswith("%"))
    fake = FakeProvider("facts 1", ANSWER)
    home = tmp_path_factory.mktemp("home")
    with fake_client(home, fake, recordings=True, cache="off", model="sim/small") as client, nbllm.use(client):
        run(code)["triage"]("It burns.")
        return tuple(client.recordings.newest(10))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, recordings: Sequence[Recording]) -> Path:
    """An export with its recorded run."""
    return exported(tmp_path_factory.mktemp("x") / "support_app", recordings=recordings, examples=["all"]).out


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory, app: Path) -> Path:
    """A clean environment for it."""
    return clean_environment(app, tmp_path_factory.mktemp("clean") / "env")


def environment(tmp_path: Path) -> dict[str, str]:
    """Variables without anything of this process's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NBLLM_", "VIRTUAL_ENV"))}
    return {**kept, "NBLLM_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}


def told_by(bin_: Path, app: Path, code: str, tmp_path: Path) -> Any:
    """What a script prints as its last line, run in the app's folder in the clean environment."""
    done = subprocess.run(
        [str(bin_ / "python"), "-c", code], cwd=app, capture_output=True, text=True, check=False, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_starts_and_answers_without_a_notebook(app: Path, bin_: Path, tmp_path: Path) -> None:
    """Health, readiness and a recorded call, from the wheel in vendor/; nothing of Jupyter and no LiteLLM is imported, or there."""
    told, modules = told_by(bin_, app, STARTS, tmp_path)
    assert told == [200, 200, {"urgent": True, "topic": "fire"}]
    loaded = {name for name in NOT_IN_A_SERVICE if any(one == name or one.startswith(f"{name}.") for one in modules)}
    assert loaded == set()
    there = told_by(bin_, app, "import importlib.util as u, json; print(json.dumps([n for n in "
                    f"{[n for n in NOT_IN_A_SERVICE if '.' not in n]!r} if u.find_spec(n)]))", tmp_path)  # fmt: skip
    assert there == []


def test_its_own_tests_pass(app: Path, bin_: Path, tmp_path: Path) -> None:
    """`make test` of the project: start, health, keys, the recorded call, parity. None is skipped."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    done = subprocess.run(
        [make, "test", f"BIN={bin_}"], cwd=app, capture_output=True, text=True, check=False, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 5 tests" in done.stderr
    assert "skipped" not in done.stderr


def test_nothing_is_left_in_the_folder(app: Path) -> None:
    """Tests and starts write neither a home nor caches into the project."""
    assert [path.name for path in app.iterdir() if path.name in {".state", "home"}] == []
