"""ruff at an export: used where it is, never trusted with the meaning of the code."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nbllm.export import tidying
from nbllm.export.templating import filled, templates
from nbllm.export.tidying import Tidied, ruff_values, tidied

CODE = "import os\ndef f( x ):\n    return os.getcwd( )+x\n"


def settings_of(found: Tidied, *local: str) -> dict[str, Any]:
    """The ruff.toml of an export with this text."""
    return tomllib.loads(filled(templates()["ruff.toml"], ruff_values(found, local)))


def test_code_is_laid_out_and_its_rules_are_looked_at() -> None:
    """The same code, formatted; nothing is fixed."""
    found = tidied("import json\n" + CODE)
    assert found.text == "import json\nimport os\n\n\ndef f(x):\n    return os.getcwd() + x\n"
    assert (found.formatted, found.checked, found.broken) == (True, True, {"F401": 1})
    assert settings_of(found)["lint"]["per-file-ignores"] == {"flows.py": ["F401"]}
    assert "exclude" not in settings_of(found).get("format", {})


@pytest.mark.parametrize("answer", ["def f(x): return 1", "def f(", "", None])
def test_what_ruff_says_is_taken_for_the_same_code_only(answer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code, no code, an answer that never comes: the text stays, and the project's settings leave it out."""
    monkeypatch.setattr(tidying, "_run", lambda command, _: answer if "format" in command else "no JSON")
    found = tidied(CODE)
    assert (found.text, found.formatted, found.checked) == (CODE, False, False)
    told = settings_of(found)
    assert (told["format"]["exclude"], told["lint"]["per-file-ignores"]) == (["flows.py"], {"flows.py": ["ALL"]})
    assert "laid out as its cells are" in found.notes()[0]


@pytest.mark.parametrize("told", ["[]", json.dumps([{"code": 5}]), json.dumps({"code": "E1"}), "[{}]"])
def test_odd_reports_are_no_rules(told: str) -> None:
    """Only rules with a name are told."""
    assert tidying._rules(told) == ({} if told == "[]" else None)


def test_a_ruff_that_cannot_be_run_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fails, hangs or is gone by now leaves the text as it is."""
    for error in (OSError("gone"), subprocess.TimeoutExpired("ruff", 1.0)):

        def fails(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(subprocess, "run", fails)
        assert tidied(CODE).text == CODE


def test_the_working_directory_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a library's name, or a ruff.toml, where the export happens to be run: the same bytes."""
    code = "import json\n\nimport numpy\n\nfrom nbllm import flow\n\nprint(json, numpy, flow)\n"
    plain = tidied(code)
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").touch()
    (tmp_path / "ruff.toml").write_text("line-length = 20\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert tidied(code) == plain


def test_copied_modules_are_left_alone_and_sorted_as_the_projects() -> None:
    """They are excluded from both commands, and imports of them stand last."""
    told = settings_of(tidied("import json\n\nimport beside\n", local_modules=["beside"]), "beside")
    assert {"beside", "beside.py", "data"} <= set(told["extend-exclude"])
    assert told["lint"]["isort"]["known-first-party"] == ["app", "beside", "flows"]
