"""The pages for users of scripts: every example runs as it stands, and every option and error is on them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbllm.settings import CALL_OPTIONS
from scripts.errors_page import PAGE, page_with_tree

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = "import nbllm.testing\n_guard = nbllm.testing.offline()\n_guard.__enter__()\n"


def examples(page: Path) -> list[str]:
    """Return the Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["scripts.md", "when-things-fail.md"])
def test_every_example_of_the_page_runs(name: str, tmp_path: Path) -> None:
    """Each block runs after those before it, in a fresh interpreter and home, without key or network."""
    script = tmp_path / "examples.py"
    found = examples(ROOT / "docs" / name)
    assert found
    script.write_text(OFFLINE + "\n".join(found), encoding="utf-8")
    variables = {"NBLLM_HOME": str(tmp_path / "home"), "NBLLM_SIM_SPEED": "0", "PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


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
