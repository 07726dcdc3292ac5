"""The pages for users of scripts: every example runs as it stands, and every option and error is on them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbllm.settings import CALL_OPTIONS
from scripts.errors_page import PAGE, page_with_tree

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = "import nbllm.testing\n_guard = nbllm.testing.offline()\n_guard.__enter__()\n"


def examples(page: Path) -> list[str]:
    """Return the Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


PAGES = ["README.md", *(f"docs/{name}.md" for name in ("scripts", "when-things-fail", "routes", "calibration-routes"))]


@pytest.mark.parametrize("name", PAGES)
def test_every_example_of_the_page_runs(name: str, tmp_path: Path) -> None:
    """Each block runs after those before it, in a fresh interpreter and home, without key or network."""
    script = tmp_path / "examples.py"
    found = examples(ROOT / name)
    assert found
    script.write_text(OFFLINE + "\n".join(found), encoding="utf-8")
    variables = {"NBLLM_HOME": str(tmp_path / "home"), "NBLLM_SIM_SPEED": "0", "PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_first_screen_of_the_readme_shows_what_to_type() -> None:
    """The commands demo, lab and test stand at the top, before anything is explained; the tour names what scripts need."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    first = page.splitlines()[:8]
    assert all(any(line.startswith(f"    {command} ") for line in first) for command in ("make demo", "make lab", "make test"))
    assert all(name in page for name in ("schema=", "check=", "ladder=", "static="))


def test_every_option_of_a_call_is_shown_by_example() -> None:
    """No option of `ask` is missing from the examples of docs/scripts.md, and none is shown that does not exist."""
    code = "\n".join(examples(PAGE))
    assert [name for name in CALL_OPTIONS if not re.search(rf"\b{name}=", code)] == []
    every = next(block for block in examples(PAGE) if "Describe the sea" in block)
    assert set(re.findall(r"^    (\w+)=", every, re.MULTILINE)) <= set(CALL_OPTIONS)


def test_the_tree_of_errors_is_the_one_of_the_module() -> None:
    """docs/scripts.md shows the tree that stands at the top of nbllm/errors.py, which holds every class of it."""
    from nbllm import errors

    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tree(page), "run: python scripts/errors_page.py"
    classes = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.NbllmError)]
    assert [name for name in classes if not re.search(rf"\b{name}\b", errors.__doc__ or "")] == []


def test_the_copy_of_the_ledger_that_the_page_advises_has_the_newest_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/ledger.md: VACUUM INTO, while a client is open, holds what a copy of the one file need not."""
    import sqlite3

    from nbllm import Client

    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    home = tmp_path / "home"
    advice = next(block for block in examples(ROOT / "docs" / "ledger.md") if "VACUUM INTO" in block)
    with Client(home=home) as client:
        client.ask("Name a river.", model="sim/small")
        monkeypatch.chdir(home)
        names: dict[str, Any] = {}
        exec(advice, names)  # noqa: S102 - the page's own lines
        names["con"].close()
    with sqlite3.connect(home / "ledger-copy.db") as copied:
        assert copied.execute("SELECT count(*) FROM calls_with_cost").fetchone() == (1,)
    copied.close()


def test_the_page_of_settings_names_every_file_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a home holds after a recorded call is in the table of docs/settings.md."""
    from nbllm import Client

    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    with Client(home=tmp_path / "home", recordings=True, budget_session_usd=1) as client:
        client.ask("Name a river.", model="sim/small")
        assert client.recordings.newest(1)  # it is written by a thread of its own; reading waits for that
        names = {entry.name for entry in (tmp_path / "home").iterdir() if not entry.name.endswith(("-wal", "-shm", "-journal"))}
    assert {"ledger.db", "state.db", "recordings.db", "cache", "run"} <= names
    assert [name for name in names if f"`{name}`" not in page and f"`{name}/`" not in page] == []
