"""Files and connections that a module would keep open, wherever it holds them."""

from __future__ import annotations

import gc
import logging
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from nbllm.export import prove
from nbllm.export.open_things import open_things
from tests.export.making import HEAD, sliced

HELD = {
    "through a function": ("def mk(): return open(F)\nfh = mk()", "fh holds a file", 3),
    "in a class": ("class S:\n    fh = open(F)", "S.fh holds a file", 2),
    "in an object": ("class S:\n    def __init__(self): self.fh = open(F)\ns = S()", "s.fh holds a file", 4),
    "in a list of a dict": ("x = {'a': [open(F)]}", "x['a'][0] holds a file", 2),
    "behind a function": ("def mk():\n    fh = open(F)\n    return lambda: fh.read()\nread = mk()", "read.fh holds a file", 5),
    "as a default": ("def read(fh=open(F)): return fh.read()", "read(...) holds a file", 2),
    "by a partial": ("from functools import partial\nread = partial(str, open(F))", "read(...) holds a file", 3),
    "a database": ("import sqlite3\ndb = [sqlite3.connect(':memory:')]", "db[0] holds a database", 3),
    "a connection": ("import socket\na, b = socket.socketpair()", "a holds a connection", 3),
}


def found_in(tmp_path: Path, source: str) -> list[str]:
    """What a module holds."""
    (tmp_path / "f.txt").write_text("x")
    source = f"F = {str(tmp_path / 'f.txt')!r}\n{source}\n"
    module = ModuleType("flows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        exec(source, vars(module))  # noqa: S102 - that is what is tested
        found = list(open_things(module, source))
        vars(module).clear()
        gc.collect()
    return found


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_open_is_named(name: str, tmp_path: Path) -> None:
    """With the name that holds it, what it is, and the line that bound it."""
    source, said, line = HELD[name]
    found = found_in(tmp_path, source)
    assert found[0].startswith(said)
    assert found[0].endswith(f"(line {line} of the module)")


@pytest.mark.parametrize(
    "source",
    [
        "import io, sys\nx = [io.StringIO('a'), io.BytesIO(b'a'), sys.stdout]",
        "with open(F) as fh: text = fh.read()",
        "fh = open(F)\nfh.close()",
        "x = []\nx.append(x)",
        "def later(): return open(F)",
    ],
)
def test_what_is_closed_or_nothing_outside_is_fine(source: str, tmp_path: Path) -> None:
    """Texts in memory, the standard streams, files that were closed, functions that will open one."""
    assert found_in(tmp_path, source) == []


def test_a_log_file_is_named(tmp_path: Path) -> None:
    """A handler of a logger is nobody's name."""
    logger = logging.getLogger("flows.of.this.test")
    handler = logging.FileHandler(tmp_path / "log.txt")
    logger.addHandler(handler)
    try:
        (said,) = found_in(tmp_path, "")
        assert "log.txt" in said
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_the_proof_says_so(tmp_path: Path) -> None:
    """A module that keeps a file open is not proved."""
    (tmp_path / "words.txt").write_text("x")
    cells = [HEAD, "def mk(): return open('words.txt')", "fh = mk()", "@flow\ndef f(t: str) -> str:\n    return fh.read()"]
    (problem,) = prove(sliced(*cells), folder=tmp_path).problems
    assert problem.startswith("fh holds a file open")
