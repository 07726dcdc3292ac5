"""Hostile names and cells through the whole export: what is written is the user's code, the templates, and nothing else."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbllm import Endpoint, Settings
from nbllm.export import Cell, Exported, ExportRefused
from nbllm.export.lexer import read_code
from tests.export.exporting import NOTEBOOK, exported, tree
from tests.export.hostile import CELLS, FLOW_NAMES
from tests.export.making import HEAD, cells

FLOW = "@flow\ndef triage(t: str) -> str:\n    return ask(t, model='sim/small').text"
SETTINGS = Settings(model="sim/small")
OF_THE_CODE = {"flows.py", "settings.toml", "requirements.txt", "Dockerfile", ".dockerignore", "README.md", "ruff.toml",
               ".nbllm-export.json"}  # fmt: skip
"""Files that may differ between exports; every other one is the same whatever the notebook holds."""


def notebook(sources: Sequence[str]) -> list[Cell]:
    """A notebook with these cells marked for export."""
    marked = [Cell(number=number, source=source, tags=("export",)) for number, source in enumerate(sources, 2)]
    return [*cells(HEAD), *marked, Cell(number=len(sources) + 2, source=FLOW)]


def all_that_can(out: Path, sources: Sequence[str]) -> tuple[Exported, list[str]]:
    """Export with every one of these cells that is not refused; those that are refused are left out and the rest tried again."""
    left = list(sources)
    for _ in range(30):
        try:
            return exported(out, notebook=notebook(left), settings=SETTINGS), left
        except ExportRefused as error:
            assert not out.exists()
            str(error).encode("utf-8")
            at_fault = {r.cell - 2 for r in error.refusals if r.cell is not None and 2 <= r.cell < len(left) + 2}
            at_fault |= {
                n for n, s in enumerate(left) for r in error.refusals if r.cell is None and r.kind == "proof" and _stops(s)
            }
            if not at_fault:
                raise
            left = [source for number, source in enumerate(left) if number not in at_fault]
    raise AssertionError("Something is refused for ever.")


def _stops(source: str) -> bool:
    """Whether a module with the cell fails or ends Python; what the proof finds has no cell's number."""
    code = read_code(source)
    if "global x" in code.python:
        return True  # only as the first thing that a module says of x
    try:
        exec(compile(code.python, "cell", "exec"), {"__name__": "cell", "flow": lambda f: f})  # noqa: S102 - data of this suite
    except BaseException:
        return True
    return False


@pytest.mark.parametrize("part", range(3))
def test_hostile_cells_change_nothing_but_the_users_code(part: int, tmp_path: Path) -> None:
    """A third of more than a thousand cells in one notebook: written whole, and nothing in it is anybody else's."""
    done, left = all_that_can(tmp_path / "support_app", CELLS[part::3])
    assert len(left) > 60
    found, plain = (
        tree(done.out),
        tree(exported(tmp_path / "plain" / "support_app", notebook=notebook([]), settings=SETTINGS, proved=False).out),
    )
    assert {name: data for name, data in found.items() if name not in OF_THE_CODE} == {
        name: data for name, data in plain.items() if name not in OF_THE_CODE
    }
    for name in OF_THE_CODE - {"flows.py", "ruff.toml", ".nbllm-export.json"}:
        assert found[name] == plain[name], name
    for words in (("check", "."), ("format", "--check", ".")):
        ruff = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=done.out, capture_output=True, text=True, check=False)
        assert ruff.returncode == 0, ruff.stdout + ruff.stderr
    assert all(re.fullmatch(r"[A-Z]+\d+", rule) for rule in tomllib.loads(found["ruff.toml"].decode())["lint"]
               .get("per-file-ignores", {}).get("flows.py", []))  # fmt: skip
    mine = {ast.dump(n) for s in (HEAD, FLOW, *left) for t in [read_code(s).tree] if t is not None for n in t.body}
    body = ast.parse(found["flows.py"].decode()).body[1:]
    others = [node for node in body if ast.dump(node) not in mine and not isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(n, ast.FunctionDef) and n.name == "y" and len(n.decorator_list) == 1 for n in others)


def test_there_are_enough_of_them() -> None:
    """The list is as long as is promised."""
    assert len(set(CELLS)) + len(set(FLOW_NAMES)) > 500


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_hostile_flow_names(name: str, tmp_path: Path) -> None:
    """None gets as far as a file."""
    with pytest.raises(ExportRefused):
        exported(tmp_path / "app", flow=name)
    assert list(tmp_path.iterdir()) == []


ODD = ['http://a"b.example.org/v1', "http://a'b.example.org/v1", "http://a`id`.example.org/v1", "http://$(id).example.org/v1",
       "http://${home}.example.org/v1", "http://a,b.example.org/v1", "http://a{{x}}.example.org/v1"]  # fmt: skip


@pytest.mark.parametrize("url", ODD)
def test_hostile_addresses(url: str, tmp_path: Path) -> None:
    """An endpoint's address reaches settings, compose and cluster as the text that it is, or is refused before."""
    settings: Any = Settings(
        home=tmp_path / "home", endpoints={"lab": Endpoint(base_url=url, api_key_env="LAB_KEY")}, model="lab/m"
    )
    done = exported(tmp_path / "app", NOTEBOOK[0], *NOTEBOOK[2:], settings=settings, proved=False)
    found = tree(done.out)
    assert tomllib.loads(found["settings.toml"].decode())["endpoints"]["lab"]["base_url"] == url
    host = url.removeprefix("http://").removesuffix("/v1").lower().replace("$", "$$")
    compose = yaml.safe_load(found["compose.yaml"])
    assert compose["services"]["app"]["environment"]["NBLLM_KEY_HOSTS"] == f"LAB_KEY@{host}"
    pods = yaml.safe_load(found["deploy/base/deployment.yaml"])["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [one["value"] for one in pods if one["name"] == "NBLLM_KEY_HOSTS"] == [f"LAB_KEY@{host}"]
    json.loads(found["monitoring/grafana/dashboards/app.json"])
