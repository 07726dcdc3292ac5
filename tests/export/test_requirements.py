"""requirements.txt: the closure of a service, pinned, with hashes or marked; imports mapped to what provides them."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nbllm.export import Exported
from nbllm.export.lock import own_pins, pins
from nbllm.export.modules import origins
from nbllm.export.requirements import NOTEBOOK_ONLY, closure
from nbllm.export.wheel import ROOT, own_requirements, wheel
from tests.export.exporting import exported, refused, tree
from tests.export.making import cells

HEAD = "from nbllm import ask, flow"
FLOW = "@flow\ndef triage(t: str) -> str:\n    return ask(t, model='sim/small').text"


def with_imports(imports: str, *uses: str) -> list[str]:
    """A notebook whose flow uses what it imports."""
    return [HEAD, imports, f"{FLOW} + str([{', '.join(uses)}])"]


def test_no_jupyter_in_the_image() -> None:
    """The closure holds nothing of the notebook's face, and LiteLLM only when a rung needs it."""
    plain, more = closure([], litellm=False), closure([], litellm=True)
    assert plain.names & ({"litellm", "jupyter-core", "ipykernel", "traitlets", "pandas"} | NOTEBOOK_ONLY - {"packaging"}) == set()
    assert {"litellm"} <= more.names
    assert more.names & (NOTEBOOK_ONLY - {"packaging"}) == set()
    assert {"fastapi", "uvicorn", "aiohttp", "pydantic-core", "redis", "celery", "starlette", "diskcache"} <= plain.names
    assert plain.missing == ()


def test_every_line_has_hashes_of_the_lock(tmp_path: Path) -> None:
    """Pins are what is installed here; pip's hash mode accepts the file; the wheel's own hash is right."""
    out = exported(tmp_path / "app", proved=False).out
    text = (out / "requirements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    assert all("--hash=sha256:" in block for block in blocks)
    path, _, given = blocks[0].partition(" \\\n    --hash=sha256:")
    assert hashlib.sha256((out / path).read_bytes()).hexdigest() == given.strip()
    for block in blocks[1:]:
        wanted = Requirement(block.split(" \\")[0])
        (version,) = (one.version for one in wanted.specifier)
        assert own_pins()[wanted.name, version].hashes == tuple(re.findall(r"sha256:[0-9a-f]{64}", block))


def test_what_the_lock_does_not_know_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution at another version than the lock's goes into a file of its own, is named in the first, and is said."""
    monkeypatch.setattr("nbllm.export.requirements.own_pins", lambda: {k: v for k, v in own_pins().items() if k[0] != "anyio"})
    done = exported(tmp_path / "app", proved=False)
    assert re.search(r"^anyio==\S+  # no hash known$", tree(done.out)["requirements-unhashed.txt"].decode(), re.MULTILINE)
    assert re.search(r"^# NO HASH KNOWN: anyio==", tree(done.out)["requirements.txt"].decode(), re.MULTILINE)
    assert any("anyio" in note and "no hashes" in note for note in done.notes)


def test_imports_are_mapped_to_distributions(tmp_path: Path) -> None:
    """By the module that is imported: PyYAML for yaml; what only other cells import is left out."""
    done = exported(tmp_path / "app", *with_imports("import yaml\nimport pandas", "yaml"), proved=False)
    text = tree(done.out)["requirements.txt"].decode()
    assert re.search(r"^pyyaml==", text, re.MULTILINE)
    assert "pandas==" not in text


def test_litellm_travels_when_a_rung_needs_it(tmp_path: Path) -> None:
    """For a provider that only LiteLLM reaches; its key is named, not held."""
    sources = [HEAD, FLOW.replace("sim/small", "anthropic/claude-sonnet-4-5")]
    done = exported(tmp_path / "app", *sources, proved=False)
    assert "\nlitellm==" in tree(done.out)["requirements.txt"].decode()
    assert dict(done.keys) == {"ANTHROPIC_API_KEY": "anthropic"}


def local(folder: Path, **files: str) -> Path:
    """Write modules beside a notebook."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def of(done: Exported) -> set[str]:
    """The modules of an export."""
    return {name for name in tree(done.out) if name.endswith(".py") and not name.startswith("tests/")} - {"app.py", "flows.py"}


def test_local_modules_are_copied_with_what_they_import(tmp_path: Path) -> None:
    """Modules and packages beside the notebook, and what these import: copied byte for byte; proved with them."""
    folder = local(
        tmp_path, a="import b\nfrom c.d import x\nX = b.Y + x", b="Y = 1", c____init__="", c__d="import yaml\nx = 2", e=""
    )
    (folder / "c" / "__init__.py").write_text("")
    done = exported(tmp_path / "app", *with_imports("import a", "a.X"), folder=folder)
    assert {"a.py", "b.py", "c/__init__.py", "c/d.py"} <= of(done)
    assert "e.py" not in of(done)
    assert tree(done.out)["a.py"] == (folder / "a.py").read_bytes()
    assert "\npyyaml==" in tree(done.out)["requirements.txt"].decode()
    assert any("a.py" in note for note in done.notes)
    assert "COPY a.py app.py b.py flows.py settings.toml ./\nCOPY c/ c/\n" in tree(done.out)["Dockerfile"].decode()


@pytest.mark.parametrize(
    ("files", "imports", "reason"),
    [
        ({}, "import nowhere_at_all", "neither installed here nor beside"),
        ({"app": "x = 1"}, "import app", "has a name that the export needs"),
        ({"random": "x = 1"}, "import random", "stands in the way of Python's own random"),
        ({"a": "x ="}, "import a", "cannot be read as Python"),
        ({"a": "key = 'sk-proj-" + "a1B2" * 12 + "'"}, "import a", "looks like a key"),
        ({"a": "import nowhere_at_all"}, "import a", "imported by a.py, line 1"),
    ],
)
def test_modules_that_are_refused(tmp_path: Path, files: dict[str, str], imports: str, reason: str) -> None:
    """Missing, compiled, shadowing, broken or secret: by cell and line of the import."""
    error = refused(tmp_path / "out", *with_imports(imports, imports.rpartition(" ")[2]), folder=local(tmp_path, **files))
    assert reason in str(error)
    assert error.refusals[0].cell in {2, None}


@pytest.mark.parametrize("expected", ["ImportError", "(KeyError, ModuleNotFoundError)", "Exception"])
def test_a_module_that_code_does_without_is_not_asked_for(tmp_path: Path, expected: str) -> None:
    """`try: import ...` with another way out: what is not installed here does not travel; what is does."""
    imports = f"try:\n    import nowhere_at_all as js\nexcept {expected}:\n    import json as js\n"
    imports += "try:\n    import yaml\nexcept ImportError:\n    yaml = None"
    done = exported(tmp_path / "app", *with_imports(imports, "js.dumps(str(yaml))"))
    assert done.proof is not None
    assert done.proof.ok
    text = tree(done.out)["requirements.txt"].decode()
    assert "nowhere" not in text
    assert "\npyyaml==" in text
    error = refused(tmp_path / "out", *with_imports(imports.replace(expected, "KeyError", 1), "js"))
    assert "nowhere_at_all is neither installed here" in str(error)


def test_compiled_modules_beside_the_notebook_are_refused(tmp_path: Path) -> None:
    """What was compiled for this machine does not go into another's image."""
    local(tmp_path, c____init__="")
    (tmp_path / "c").mkdir(exist_ok=True)
    (tmp_path / "c" / "__init__.py").write_text("")
    (tmp_path / "c" / "fast.so").write_bytes(b"\x7fELF")
    assert "compiled code (fast.so)" in str(refused(tmp_path / "out", *with_imports("import c", "c"), folder=tmp_path))


def test_a_distribution_that_no_index_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed from a folder or a repository: its name and version lead nowhere."""
    monkeypatch.setattr("nbllm.export.modules._from_a_folder", lambda name: name == "pyyaml")
    found = origins("import yaml", cells("import yaml"), None)
    assert [(r.cell, r.line, "pyyaml is installed from" in r.reason) for r in found.refusals] == [(1, 1, True)]


def test_the_wheel_is_the_code_that_runs_here() -> None:
    """Same bytes each time; every module of the package, its types and templates; a RECORD that holds."""
    name, data = wheel()
    assert (name, data) == wheel()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        found = {info.filename: archive.read(info) for info in archive.infolist()}
        assert archive.testzip() is None
    inside = {f"nbllm/{p.relative_to(ROOT).as_posix()}" for p in ROOT.rglob("*.py")}
    assert inside <= set(found)
    assert {"nbllm/py.typed", "nbllm/export/templates/Dockerfile.tmpl", "nbllm-0.1.0.dist-info/licenses/LICENSE"} <= set(found)
    assert not any("__pycache__" in one or "_notebooks" in one for one in found)
    record = found["nbllm-0.1.0.dist-info/RECORD"].decode().splitlines()
    assert {line.split(",")[0] for line in record} == set(found)
    assert 'Requires-Dist: fastapi>=0.115; extra == "service"' in found["nbllm-0.1.0.dist-info/METADATA"].decode()


def test_own_requirements_are_the_same_from_checkout_and_from_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An installed wheel tells the service's needs as the checkout does, by its own METADATA."""
    from importlib import metadata

    _, data = wheel()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        archive.extractall(tmp_path)
    (installed,) = (d for d in metadata.distributions(path=[str(tmp_path)]))
    listed = {str(Requirement(text)) for text in installed.requires or ()}
    assert listed == {str(Requirement(text)) for text in own_requirements()}
    assert sys.version_info >= (3, 11)


def test_pins_are_read_with_every_hash() -> None:
    """Of the lock's form: a pin, perhaps a marker, and its hashes."""
    text = (
        "a-b==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:"
        + "1" * 64
        + " \\\n    --hash=sha256:"
        + "0" * 64
        + "\n    # via x\n"
    )
    assert pins(text)["a-b", "1.0"].hashes == (f"sha256:{'0' * 64}", f"sha256:{'1' * 64}")
    assert len(own_pins()) > 100
