"""What a module writes when it is imported: the container that the export ships is read-only, so it could not start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.export import prove, render_flows
from nbllm.export.places import Places
from nbllm.export.proof_refusals import proof_refusals
from tests.export.making import HEAD, cells, sliced

USE = "@flow\ndef f(t: str) -> str:\n    return ask(f'{x} {t}').text"


def refusals(*sources: str, beside: dict[str, bytes] | None = None) -> list[tuple[int | None, int | None, str, str]]:
    """Cell, line, reason and next step of what the proof of these cells finds."""
    found = sliced(HEAD, *sources)
    proof = prove(found, beside=beside or {})
    places = Places(found, render_flows(found), cells(HEAD, *sources))
    return [(r.cell, r.line, r.reason, r.todo) for r in proof_refusals(proof, places, ())]


def test_every_write_at_the_start_is_told() -> None:
    """All at once, with cell, line, path and what to do; a fault that comes after the first write is told with them."""
    told = refusals(
        "import os\nos.makedirs('out', exist_ok=True)\nx = 1\nopen('out/a.csv', 'w').close()",
        "with open('notes.txt', 'a') as fh:\n    fh.write('n')\n    x += 1",
        "x += {}['gone']",
        USE,
    )
    assert [(cell, line) for cell, line, _, _ in told] == [(2, 2), (2, 4), (3, 1), (4, 1)]
    assert "writes 'out' each time when the service starts" in told[0][2]
    assert "writes 'out/a.csv'" in told[1][2]
    assert "writes 'notes.txt'" in told[2][2]
    assert all("no-export" in todo for _, _, _, todo in told[:3])
    assert "KeyError" in told[3][2]


def test_a_module_beside_that_writes_is_named() -> None:
    """With its file and line, since no cell of the notebook holds it."""
    ((cell, _, reason, _),) = refusals(
        "import helpers_of_this",
        "x = helpers_of_this.X",
        USE,
        beside={"helpers_of_this.py": b"X = 1\nopen('log.txt', 'w').close()\n"},
    )
    assert cell is None
    assert reason.startswith("helpers_of_this.py, line 2, writes 'log.txt'")


@pytest.mark.parametrize(
    "source",
    [
        "import tempfile, pathlib\np = pathlib.Path(tempfile.mkdtemp()) / 'a'\np.write_text('b')\nx = p.read_text()",
        "import os\nx = open(os.devnull, 'w').close()",
        "import os\nos.makedirs('kb', exist_ok=True)\nx = open('kb/a.txt').read()",
        "x = 1\ntry:\n    open('log.txt', 'w').close()\nexcept OSError:\n    x = 2",
        "import functools\nx = 1\n@functools.cache\ndef g(): open('later.txt', 'w')",
    ],
)
def test_writing_where_a_container_can_is_fine(source: str) -> None:
    """Temporary files, /dev/null, folders that are there, writes that may fail, and those of functions that run later."""
    assert refusals(source, USE, beside={"kb/a.txt": b"a"}) == []


def test_a_file_that_comes_from_below_python_is_seen() -> None:
    """Libraries written in C open files unseen; what lies in the folder afterwards tells of them."""
    source = "import ctypes\nc = ctypes.CDLL(None)\nx = c.close(c.creat(b'x.bin', 0o600))\nNAME = 'x.bin'\nx = NAME"
    if os.name == "nt":
        pytest.skip("creat of the C library is POSIX")
    ((cell, _, reason, _),) = refusals(source, USE)
    assert cell == 2
    assert "writes 'x.bin'" in reason


def test_the_notebooks_own_folder_is_left_alone(tmp_path: Path) -> None:
    """A proof in the notebook's folder writes nothing there."""
    proof = prove(sliced(HEAD, "open('a.txt', 'w').close()\nx = 1", USE), folder=tmp_path)
    assert "writes 'a.txt'" in proof.problems[0]
    assert list(tmp_path.iterdir()) == []
