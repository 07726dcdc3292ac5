"""A whole export: the same bytes each time, formatted and typed, nothing in it that is not the user's or a template's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nbllm import Settings
from nbllm.export import ExportError, history_cells, read_ipynb
from nbllm.export.target import MANIFEST
from nbllm.export.tidying import tidied
from tests.export.exporting import NOTEBOOK, exported, ipynb, refused, tree


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export of the usual notebook."""
    return exported(tmp_path_factory.mktemp("x") / "support_app").out


def test_the_same_bytes_twice(app: Path, tmp_path: Path) -> None:
    """Into two folders of one name, from a file and from cells, and once more over itself: the same bytes."""
    notebook = read_ipynb(ipynb(tmp_path / "n.ipynb", *NOTEBOOK))
    again = exported(tmp_path / "support_app", notebook=notebook, proved=False).out
    assert tree(again) == tree(app)
    assert exported(again, notebook=notebook, proved=False).written == ()
    assert tree(again) == tree(app)


def test_what_is_there(app: Path) -> None:
    """Everything that the README names, and no more."""
    found = set(tree(app))
    wanted = {"app.py", "flows.py", "settings.toml", "requirements.txt", "Dockerfile", ".dockerignore", "compose.yaml", "README.md",
              "Makefile", "deploy/base/kustomization.yaml", "deploy/keda/kustomization.yaml", "monitoring/prometheus.yml",
              "vendor/nbllm-0.1.0-py3-none-any.whl", MANIFEST}  # fmt: skip
    assert wanted <= found
    assert "examples.json" not in found
    assert not any(name.startswith("data/") for name in found)
    assert sum(len(data) for name, data in tree(app).items() if not name.startswith(("vendor/", "requirements"))) < 60_000


def ruff(app: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What ruff says of a project."""
    command = [sys.executable, "-m", "ruff", *words]
    return subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)


def test_the_python_is_formatted_and_passes_ruff(app: Path) -> None:
    """Every file that is not the user's code: ruff's formatter has nothing to do, and its usual rules find nothing."""
    rules = "E,F,W,I,B,UP,S,RUF,PTH,SIM,N,ANN"
    ignored = "S101,S603,S607,S310"
    done = [
        ruff(app, *words, "--isolated", "--no-cache", ".")
        for words in (("format", "--check", "--diff"), ("check", "--select", rules, "--ignore", ignored))
    ]
    assert [one.returncode for one in done] == [0, 0], "".join(one.stdout + one.stderr for one in done)


PLAIN = ("from nbllm import ask, flow\nimport json, beside", "l = lambda t : json.dumps( {'t':t, 'b':beside.B} )",
         "def triage ( t:str )->str :\n  if l == None : pass\n  return ask( l( t ), model = 'sim/small' ).text")  # fmt: skip


def test_the_users_code_is_formatted_too(tmp_path: Path) -> None:
    """The project passes ruff by its own settings: the notebook's code laid out, its rules told, copied modules left alone."""
    (tmp_path / "beside.py").write_text("B=1\nimport os\n", encoding="utf-8")
    (tmp_path / "rows.py").write_text("R=1\n", encoding="utf-8")
    sources = (*PLAIN[:2], f"@flow\n{PLAIN[2]}")
    done = exported(tmp_path / "app", *sources, folder=tmp_path, include=["rows.py"])
    assert [ruff(done.out, *words).returncode for words in (("format", "--check", "."), ("check", "."))] == [0, 0]
    text = (done.out / "flows.py").read_text(encoding="utf-8")
    assert "l = lambda t: json.dumps({" in text
    assert 'return ask(l(t), model="sim/small").text' in text
    assert (done.out / "beside.py").read_bytes() == (tmp_path / "beside.py").read_bytes()
    (told,) = [note for note in done.notes if note.startswith("ruff finds")]
    assert "E711 (1), E731 (1), E741 (1)" in told
    (done.out / "flows.py").write_text(text + "import os\n", encoding="utf-8")
    assert "F401" in ruff(done.out, "check", ".").stdout  # what is added later is looked at


def test_without_ruff_the_users_code_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ruff is not, flows.py is the cells' text, ruff.toml says so, and the project passes all the same."""
    monkeypatch.setattr("nbllm.export.tidying._command", lambda: None)
    done = exported(tmp_path / "app", PLAIN[0].replace(", beside", ""), "beside = 1\nl=lambda t :t", f"@flow\n{PLAIN[2]}")
    assert "l=lambda t :t" in (done.out / "flows.py").read_text(encoding="utf-8")
    assert [note for note in done.notes if "ruff is not installed here" in note]
    assert [ruff(done.out, *words).returncode for words in (("format", "--check", "."), ("check", "."))] == [0, 0]


def test_formatting_never_changes_what_the_code_says(tmp_path: Path) -> None:
    """A docstring that ruff would trim may be a prompt: the text stays as it is, and what fails is still told by cell and line."""
    flow = '@flow\ndef triage(t: str) -> str:\n    """Sort.   \n      Be brief.  \n    """\n    return ask(triage.__doc__ + t).text'
    done = exported(tmp_path / "app", NOTEBOOK[0], NOTEBOOK[1], flow)
    assert '"""Sort.   \n' in (done.out / "flows.py").read_text(encoding="utf-8")
    assert [ruff(done.out, *words).returncode for words in (("format", "--check", "."), ("check", "."))] == [0, 0]
    assert tidied("def f(:\n").text == "def f(:\n"
    error = refused(
        tmp_path / "b", NOTEBOOK[0], NOTEBOOK[1], "x = [1]; y = [\n  2,\n  1/0 ]", flow.replace("t).text", "t + str(y)).text")
    )
    assert [(r.cell, r.line) for r in error.refusals] == [(3, 3)]


def test_the_settings_are_the_notebooks(app: Path) -> None:
    """Model, deadline and budget of the notebook's own lines are read back by the client's reader."""
    text = (app / "settings.toml").read_text(encoding="utf-8")
    told = tomllib.loads(text)
    told.pop("service")
    assert told == {"model": "sim/small", "deadline_s": 30.0, "budget": {"day_usd": 5.0}}


def test_the_manifest_knows_every_file(app: Path) -> None:
    """Hash by path, itself excepted."""
    told = json.loads((app / MANIFEST).read_text(encoding="utf-8"))
    assert set(told["files"]) == set(tree(app)) - {MANIFEST}
    assert told["flow"] == "triage"


def test_everything_in_the_way_is_told_at_once(tmp_path: Path) -> None:
    """Cells, modules, settings, files and examples: one error, each with its place, and nothing is written."""
    error = refused(
        tmp_path / "app",
        "from nbllm import ask, flow\nimport nowhere_to_be_found",
        "%llm_config nonsense=1",
        "@flow\ndef triage(ticket: str) -> str:\n    return ask(ticket, model='sim/small').text, nowhere_to_be_found",
        include=["missing.txt", "../up.txt"], examples=["12"], folder=tmp_path,
    )  # fmt: skip
    assert [(r.kind, r.cell, r.line) for r in error.refusals] == [
        ("file", None, None), ("file", None, None), ("example", None, None), ("module", 1, 2), ("settings", 2, 1),
    ]  # fmt: skip


def test_a_notebook_that_cannot_be_sliced_tells_of_its_settings_too(tmp_path: Path) -> None:
    """Refusals of the slicer and of settings come together."""
    error = refused(
        tmp_path / "app", "from nbllm import flow\nx = input()", "%llm_budget nonsense", "@flow\ndef triage() -> str: return x"
    )
    assert [r.kind for r in error.refusals] == ["input", "settings"]


def test_what_is_wrong_with_a_flow_is_told_line_by_line(tmp_path: Path) -> None:
    """Each fault of a flow is a line of its own, with the cell and the line of its parameter, however the cell is laid out."""
    flow = """import json
from nbllm import ask, flow

@flow
def triage(
    ticket,
    lang=json.dumps({}), *,
    made: threading.Thread,
    **more):
    return ask(ticket, model='sim/small')"""
    error = refused(tmp_path / "app", "import threading", flow)
    assert [(r.kind, r.cell, r.line) for r in error.refusals] == [("proof", 2, n) for n in (5, 6, 7, 8, 9)]
    said = [line.removeprefix("  - ") for line in str(error).split("\n") if line.startswith("  - ")]
    assert [line.partition(": ")[0] for line in said] == [f"cell 2, line {n}" for n in (5, 6, 7, 8, 9)]
    assert "arbitrary_types_allowed" not in str(error)


def test_a_refused_slice_tells_the_rest_too(tmp_path: Path) -> None:
    """Faults of cells, of modules, files and examples come in one error, and it says what could not be looked at."""
    error = refused(
        tmp_path / "app",
        "from nbllm import ask, flow\nimport nowhere_to_be_found, math\nmath.pi = 3\nx = input()",
        "@flow\ndef triage(ticket: str, *more, lang='en'):\n    return ask(f'{ticket} {x} {math.pi} {nowhere_to_be_found}').text",
        include=["missing.txt"], examples=["12"], folder=tmp_path,
    )  # fmt: skip
    assert [(r.kind, r.cell, r.line) for r in error.refusals] == [
        ("settings", None, None), ("file", None, None), ("example", None, None), ("module", 1, 2), ("monkeypatch", 1, 3),
        ("input", 1, 4), ("proof", 2, 2), ("proof", 2, 2), ("proof", 2, 2),
    ]  # fmt: skip
    assert all(text in str(error) for text in ("*more takes anything", "parameter lang has no", "what it returns has no"))
    assert "recorded runs and the app were not tried: that needs the above to be right" in str(error)


def test_flows_py_is_the_users_code(app: Path) -> None:
    """Each statement of the module is one of the notebook's."""
    mine = {ast.dump(node) for source in NOTEBOOK if not source.startswith("%") for node in ast.parse(source).body}
    body = ast.parse((app / "flows.py").read_text(encoding="utf-8")).body[1:]
    assert [ast.unparse(node) for node in body if ast.dump(node) not in mine] == []


def test_no_model_is_refused(tmp_path: Path) -> None:
    """A service must not take whatever model it finds where it runs."""
    error = refused(tmp_path / "app", "from nbllm import ask, flow", "@flow\ndef triage(t: str) -> str:\n    return ask(t).text")
    assert [r.kind for r in error.refusals] == ["settings"]
    assert exported(tmp_path / "app", "from nbllm import ask, flow",
                    "@flow\ndef triage(t: str) -> str:\n    return ask(t).text",
                    settings=Settings(home=tmp_path, model="sim/large"), proved=False).written  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        ("def triage(t):\n    return ask(t, model='sim/small').text", "no annotation"),
        ("def triage(t: str) -> Thing:\n    return Thing(ask(t, model='sim/small').text)", "Thing"),
        ("def triage(t: Thing) -> str:\n    return ask(str(t), model='sim/small').text", "Thing"),
        ("def é(t: str) -> str:\n    return ask(t, model='sim/small').text", "no name for a flow"),
    ],
)
def test_flows_that_cannot_be_served_are_refused_with_their_cell(tmp_path: Path, flow: str, reason: str) -> None:
    """No annotations, types that no JSON can hold, names that no path can have: the service's own reasons, at the flow's cell."""
    name = flow[4 : flow.index("(")]
    error = refused(tmp_path / "app", "from nbllm import ask, flow", "class Thing:\n    pass", f"@flow\n{flow}", flow=name)
    assert {(r.kind, r.cell, r.line) for r in error.refusals} == {("proof", 3, 2)}
    assert any(reason in r.reason for r in error.refusals)


def test_what_fails_at_import_is_told_by_its_cell(tmp_path: Path) -> None:
    """An error while the module is imported has the cell that it is of."""
    error = refused(tmp_path / "app", "from nbllm import ask, flow", "a = 1\n\nx = [1 / 0, a]",
                    "@flow\ndef triage(t: str) -> str:\n    return ask(t + str(x), model='sim/small').text")  # fmt: skip
    assert [(r.kind, r.cell, r.line) for r in error.refusals] == [("proof", 2, 3)]
    assert "ZeroDivisionError" in error.refusals[0].reason
    assert "Recorded runs and the app were not tried" in str(error)


def test_a_session_is_exported_with_its_settings(tmp_path: Path) -> None:
    """Inputs of a live session in the order in which they ran; the client's settings count, lines of %llm_config do not again."""
    inputs = ["", NOTEBOOK[0], "%llm_config model=sim/small", NOTEBOOK[2], NOTEBOOK[3], "print(1)"]
    settings = Settings(home=tmp_path).replace_values("%llm_config", model="sim/large")
    done = exported(tmp_path / "app", notebook=history_cells(inputs), settings=settings, proved=False)
    assert b'model = "sim/large"' in tree(done.out)["settings.toml"]


def test_types_hold(app: Path) -> None:
    """mypy, strict, finds nothing in what was generated, each file by itself: what it imports is others'."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=skip", "--cache-dir", os.devnull, "app.py", "tests"]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_flow_does_not_take_the_folder(tmp_path: Path) -> None:
    """A folder that holds the export of one flow is not turned into another's without a word, nor is an export put into one."""
    out = exported(tmp_path / "app", proved=False).out
    other = [*NOTEBOOK[:3], NOTEBOOK[3].replace("def triage", "def sort")]
    for target, why in ((out, "of the flow 'triage'"), (out / "inner", "lies within")):
        before = tree(out)
        with pytest.raises(ExportError, match=why):
            exported(target, *other, flow="sort", proved=False)
        assert tree(out) == before
    assert "app.py" in exported(out, *other, flow="sort", force=True, proved=False).written


def test_settings_and_proof_are_told_together(tmp_path: Path) -> None:
    """No model, and a flow that cannot be served: both at once. A flow that asks nothing needs no model."""
    error = refused(tmp_path / "app", "from nbllm import ask, flow", "@flow\ndef triage(t):\n    return ask(t).text")
    assert [r.kind for r in error.refusals] == ["settings", "proof", "proof"]
    plain = ("from nbllm import flow", "@flow\ndef triage(t: str) -> str:\n    return t.upper()")
    assert exported(tmp_path / "plain", *plain, proved=False).written


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No place for the proof: what happened and what to do, and nothing is written."""

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="No space left on device"):
        exported(tmp_path / "app")
    assert list(tmp_path.iterdir()) == []
