"""Which files a flow reads and writes: seen in its code, listed with cell and line, told when the proof fails for want of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.export.data_files import DataFiles, data_files, missing_refusals
from tests.export.exporting import exported, refused
from tests.export.making import HEAD, sliced

READS = {
    "a constant": "PATH = 'kb/l.csv'\nx = open(PATH).read()",
    "joined": "import os\nx = open(os.path.join('kb', 'l.csv')).read()",
    "joined with a constant": "import os\nKB = 'kb'\nx = open(os.path.join(KB, 'l.csv')).read()",
    "a keyword": "import pandas as pd\nx = pd.read_csv(filepath_or_buffer='kb/l.csv')",
    "a default": "def load(p='kb/l.csv'):\n    return open(p).read()\nx = load()",
    "a default of a keyword": "def load(*, p='kb/l.csv'):\n    return open(p).read()\nx = load()",
    "a database": "import sqlite3\ndef load():\n    return sqlite3.connect('kb/l.csv')\nx = load",
    "numpy": "import numpy as np\nx = np.genfromtxt('kb/l.csv')",
    "joblib": "import joblib\nx = joblib.load('kb/l.csv')",
    "Path": "from pathlib import Path\nx = (Path('kb') / 'l.csv').read_text()",
    "joinpath": "from pathlib import Path\nKB = Path('kb')\nx = KB.joinpath('l.csv').open().read()",
    "a mode": "x = open('kb/l.csv', 'rb').read()",
    "an f-string": "KB = 'kb'\nx = open(f'{KB}/l.csv').read()",
    "a list": "FILES = ['kb/l.csv']\nx = [open(p).read() for p in FILES]",
    "a table of paths": "FILES = {'l': 'kb/l.csv'}\nx = [open(p).read() for _, p in FILES.items()]",
    "an attribute": "class Cfg:\n    path = 'kb/l.csv'\nx = open(Cfg.path).read()",
    "some library": "from fractions import Fraction as load_it\nx = load_it('kb/l.csv')",
    "some library's method": "import configparser\nx = configparser.ConfigParser().read('kb/l.csv')",
}
FOLDERS = {
    "glob": "import glob\nx = [open(p).read() for p in glob.glob('kb/*.csv')]",
    "iglob": "from glob import iglob\nx = list(iglob('./kb/**/*.csv', recursive=True))",
    "listdir": "import os\nx = [open(os.path.join('kb', n)).read() for n in os.listdir('kb')]",
    "walk": "import os\nx = [f for _, _, files in os.walk('kb') for f in files]",
    "Path.glob": "from pathlib import Path\nx = [p.read_text() for p in Path('kb').glob('*.csv')]",
    "iterdir": "from pathlib import Path\nKB = Path('kb')\ndef load():\n    return [p.read_text() for p in KB.iterdir()]\nx = load",
    "one of many": "def load(n):\n    return open(f'kb/{n}.csv').read()\nx = load",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A notebook's folder with kb/l.csv and a folder that is called as a word."""
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "l.csv").write_text("a,b")
    (tmp_path / "labels").mkdir()
    return tmp_path


def looked_at(folder: Path, *sources: str, include: tuple[str, ...] = (), modules: dict[str, bytes] | None = None) -> DataFiles:
    """What is found of the files of these cells and a flow."""
    found = sliced(HEAD, *sources, "@flow\ndef f(t: str) -> str:\n    return ask(f'{x} {t}').text")
    return data_files(found, include, folder, constants={}, modules=modules or {})


@pytest.mark.parametrize("name", READS)
def test_a_file_that_is_read_is_listed(name: str, folder: Path) -> None:
    """However its path is written out: with cell and line, and the next step; once it travels, without a word."""
    (note,) = looked_at(folder, READS[name]).notes
    assert note.startswith("Cell 2, line ")
    assert "reads the file 'kb/l.csv', which is not part of the export. Copy it with --include kb/l.csv" in note
    assert looked_at(folder, READS[name], include=("kb/l.csv",)).notes == ()
    assert looked_at(folder, READS[name], include=("kb",)).notes == ()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_read_is_listed(name: str, folder: Path) -> None:
    """Whatever lists it; once the folder travels there is no note any more."""
    (note,) = looked_at(folder, FOLDERS[name]).notes
    assert "reads the file 'kb', which is not part of the export. Copy it with --include kb," in note
    assert looked_at(folder, FOLDERS[name], include=("kb",)).notes == ()


@pytest.mark.parametrize(
    "source",
    [
        "with open('kb/l.csv', 'w') as fh:\n    fh.write('a')\nx = 1",
        "OUT = 'kb/l.csv'\nx = 1\nopen(OUT, mode='a').write(str(x))",
        "import pandas as pd\nx = pd.DataFrame()\nx.to_csv('kb/l.csv')",
        "from pathlib import Path\nx = Path('kb/l.csv').write_text('a')",
        "x = {'labels': 1}['labels']",
        "import sqlite3\ndef x():\n    return sqlite3.connect(':memory:')",
        "import pandas as pd\ndef x():\n    return pd.read_csv('https://example.org/kb/l.csv')",
        "def x():\n    '''kb/l.csv'''",
    ],
)
def test_what_is_no_file_that_is_read(source: str, folder: Path) -> None:
    """Files that are written, words that are called as a folder is, databases in memory, addresses, docstrings."""
    assert looked_at(folder, source).notes == ()


def test_what_a_flow_writes_is_told(folder: Path) -> None:
    """A container's folder is read-only, so what a function writes there fails when it is called: a note with cell and line."""
    (note,) = looked_at(folder, "def x(t):\n    with open('log.txt', 'a') as fh:\n        fh.write(t)").notes
    assert note.startswith("Cell 2, line 2 writes 'log.txt' when it is called: a container")
    assert looked_at(folder, "def x(t):\n    open('/tmp/log.txt', 'a').write(t)").notes == ()


def test_files_of_modules_beside_are_listed(folder: Path) -> None:
    """With the module's file and line; beside the module's own __file__ too."""
    text = (
        b"from pathlib import Path\nHERE = Path(__file__).parent\nRULES = (HERE / 'l.csv').read_text()\nMORE = open('kb/l.csv')\n"
    )
    notes = looked_at(folder, "x = 1", modules={"kb/__init__.py": text}).notes
    assert notes[0].startswith("kb/__init__.py, line 3 reads the file 'kb/l.csv'")
    assert len(notes) == 1


def test_absolute_paths_are_told_as_such(folder: Path) -> None:
    """--include cannot take them, so it is not named."""
    (note,) = looked_at(folder, "x = lambda: open('/srv/big.csv').read()").notes
    assert "'/srv/big.csv' by an absolute path" in note
    assert "--include" not in note


def test_missing_files_are_told_with_what_failed(tmp_path: Path) -> None:
    """An import that fails over an empty folder does not say so itself: the refusal names the folder and --include."""
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "a.md").write_text("text")
    sources = (
        HEAD,
        "import glob",
        "x = max(glob.glob('kb/*.md'))",
        "@flow\ndef f(t: str) -> str:\n    return ask(f'{x} {t}', model='sim/small').text",
    )
    error = refused(tmp_path / "app", *sources, flow="f", folder=tmp_path)
    told = [(r.cell, r.line, r.kind, r.todo) for r in error.refusals]
    assert (3, 1, "file", "Take it along: --include kb") in told
    assert (3, 1, "proof", "") in told
    done = exported(tmp_path / "app", *sources, flow="f", folder=tmp_path, include=["kb"])
    assert not any("reads" in note for note in done.notes)


def test_a_file_is_told_once(folder: Path) -> None:
    """Where the failure itself names the file, there is no second line on it."""
    found = looked_at(folder, READS["a constant"])
    (refusal,) = missing_refusals(found, [])
    assert (refusal.cell, refusal.line) == (2, 2)
    assert missing_refusals(found, [refusal]) == []
