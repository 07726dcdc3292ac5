"""What modules beside the notebook hold: refused or told as in cells, since they travel whole."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nbllm.export import prove
from nbllm.export.module_checks import module_notes, module_refusals
from nbllm.export.modules import origins
from tests.export.making import HEAD, sliced

REFUSED = {
    "a database": ("import sqlite3\nDB = sqlite3.connect('l.db')", "open resource", 2, "sqlite3.connect(...) is kept open"),
    "a file": ("LOG = open('log.txt')", "open resource", 1, "open(...) is kept open"),
    "a file in a class": ("class C:\n    x = 1\n    fh = open('log.txt')", "open resource", 3, "open(...) is kept open"),
    "a file in an if": ("if True:\n    fh = open('log.txt')", "open resource", 2, "open(...) is kept open"),
    "a patch": ("import json\njson.dumps = lambda *a, **k: 'x'", "monkeypatch", 2, "changes what json.dumps is for everybody"),
}
TOLD = {
    "the environment": ("import os\nos.environ['MODE'] = 'x'", 2, "sets the environment of the whole service"),
    "a session": ("import requests\nS = requests.Session()", 2, "once for all of its callers"),
    "eval": ("def f(x):\n    return eval(x)", 2, "eval() runs code"),
    "a patch in a function": ("import json\ndef g():\n    json.dumps = str", 3, "when g is called"),
}
FINE = [
    "def load():\n    with open('a.txt') as fh:\n        return fh.read()",
    "import os\nMODE = os.environ.get('MODE', 'x')",
    "class Reader:\n    def eval(self): return 1\nx = Reader().eval()",
    "import re\nWORDS = re.compile('a')\ndef open(path): return path\nx = open('a')",
    "if __name__ == '__main__':\n    LOG = open('log.txt')\n    print(eval('1'))",
    "import sqlite3\ndef rows():\n    db = sqlite3.connect('l.db')\n    return db.execute('select 1').fetchall()",
]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_in_cells_is_refused_in_modules(name: str) -> None:
    """Files and connections that stay open and changes of other modules: with file, line, reason and next step."""
    source, kind, line, said = REFUSED[name]
    (refusal,) = module_refusals("helpers.py", ast.parse(source))
    assert refusal.kind == kind
    assert refusal.reason.startswith(f"helpers.py, line {line}: ")
    assert said in refusal.reason
    assert refusal.todo


@pytest.mark.parametrize("name", TOLD)
def test_what_may_be_fine_is_told(name: str) -> None:
    """It travels with its module and does there what it did in the notebook: a note with file and line, no refusal."""
    source, line, said = TOLD[name]
    (note,) = module_notes("helpers.py", ast.parse(source))
    assert note.startswith(f"helpers.py, line {line}: ")
    assert said in note
    assert module_refusals("helpers.py", ast.parse(source)) == []


@pytest.mark.parametrize("source", FINE)
def test_ordinary_modules_pass_without_a_word(source: str) -> None:
    """Files that functions open, variables that are read, functions of such names of the module's own."""
    assert module_refusals("helpers.py", ast.parse(source)) == []
    assert list(module_notes("helpers.py", ast.parse(source))) == []


def test_a_part_of_a_package_may_never_be_imported() -> None:
    """A training script that lies in the package is in nobody's way: a note with file and line."""
    tree = ast.parse("LOG = open('log.txt')")
    assert module_refusals("pack/train.py", tree) == []
    (note,) = module_notes("pack/train.py", tree)
    assert note.startswith("pack/train.py, line 1: open(...) is kept open from the start of the service on, once it is imported.")
    assert len(module_refusals("pack/__init__.py", tree)) == 1


def test_modules_that_are_copied_are_looked_at(tmp_path: Path) -> None:
    """Through the imports of other modules too; everything at once."""
    (tmp_path / "one_of_this.py").write_text("import two_of_this\nLOG = open('log.txt')\n")
    (tmp_path / "two_of_this.py").write_text("import math\nmath.pi = lambda: 3\nprint(eval('1'))\n")
    found = origins("import one_of_this\n", [], tmp_path)
    assert [r.reason.partition(":")[0] for r in found.refusals] == ["one_of_this.py, line 2", "two_of_this.py, line 2"]
    assert [note.partition(":")[0] for note in found.notes] == ["two_of_this.py, line 3"]


def test_what_a_module_holds_open_in_the_end_is_seen(tmp_path: Path) -> None:
    """Also what its code does not show: the clean process looks into copied modules as into the notebook's."""
    cells = [HEAD, "import held_of_this", "@flow\ndef f(t: str) -> str:\n    return held_of_this.X"]
    text = b"X = 'x'\ndef mk(): return open(__file__)\nKEPT = [mk()]\n"
    proof = prove(sliced(*cells), beside={"held_of_this.py": text})
    assert proof.problems == ("held_of_this.py, line 3: KEPT[0] holds a file open from the start of the service on",)


def test_a_module_that_changes_json_does_not_silence_the_proof(tmp_path: Path) -> None:
    """What the clean process found is told with the json that was there before."""
    cells = [HEAD, "import patches_of_this", "@flow\ndef f(t: str) -> str:\n    return patches_of_this.X"]
    proof = prove(sliced(*cells), beside={"patches_of_this.py": b"import json\nX = 'x'\njson.dumps = lambda *a, **k: 'no json'\n"})
    assert proof.problems == ()
