"""One wheel brings the JupyterLab extension; without Node.js it is not made by halves, and an editable install does without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.labextension import is_built

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "nbllm" / "_labextension"
MOST_BYTES = 150_000
"""Of all that the browser loads: without what JupyterLab shares, because that is not in it."""
needs_built = pytest.mark.skipif(
    not is_built(), reason="the JupyterLab extension is not built from these sources: make labextension"
)
BACKEND = "import sys, hatchling.build as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def build(what: str, out: Path, tree: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one of hatchling's build functions on a tree, as pip does, without a network."""
    out.mkdir(exist_ok=True)
    whole = {**{name: value for name, value in os.environ.items() if name != "SKIP_JUPYTER_BUILDER"}, **env}
    command = [sys.executable, "-c", BACKEND, what, str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tree, env=whole, timeout=100)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which the extension has never been built."""
    tree = tmp_path_factory.mktemp("tree")
    wrong = shutil.ignore_patterns("__pycache__", "_labextension", "node_modules", "lib", ".yarn", ".ipynb_checkpoints")
    for name in ("nbllm", "notebooks", "scripts", "labextension"):
        shutil.copytree(ROOT / name, tree / name, ignore=wrong)
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture
def no_node(tmp_path: Path) -> dict[str, str]:
    """An environment in which no program is found on PATH."""
    (tmp_path / "empty").mkdir()
    return {"PATH": str(tmp_path / "empty")}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a wheel of this tree, as an installer lays it into an environment."""
    folder = tmp_path_factory.mktemp("wheel")
    done = build("build_wheel", folder, ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "unpacked")  # noqa: S202 - made a moment ago, by us
    return next((folder / "unpacked").glob("nbllm-*.data")) / "data" / "share" / "jupyter"


@needs_built
def test_the_wheel_brings_the_built_extension(unpacked: Path) -> None:
    """Unpacked, it lies where JupyterLab looks: entry, style, settings' schema and the name of the Python package to uninstall."""
    extension = unpacked / "labextensions" / "nbllm-lab"
    package = json.loads((extension / "package.json").read_text(encoding="utf-8"))
    assert (extension / package["jupyterlab"]["_build"]["load"]).is_file()
    assert json.loads((extension / "install.json").read_text(encoding="utf-8"))["packageName"] == "nbllm"
    assert json.loads((extension / "schemas" / "nbllm-lab" / "plugin.json").read_text(encoding="utf-8"))["properties"]
    assert not list(unpacked.parents[2].glob("nbllm/_labextension"))


@needs_built
def test_jupyterlab_takes_the_extension(unpacked: Path, tmp_path: Path) -> None:
    """`jupyter labextension list` shows it enabled and OK: its needs fit this JupyterLab."""
    env = {**os.environ, "JUPYTER_PATH": str(unpacked), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, timeout=60)
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "nbllm-lab" in line]
    assert "enabled" in line
    assert "OK" in line


@needs_built
def test_the_extension_is_small() -> None:
    """The browser loads at most 150 kB of it."""
    loaded = sum(path.stat().st_size for path in (BUILT / "static").glob("*.js"))
    assert 10_000 < loaded <= MOST_BYTES


def test_a_wheel_without_the_extension_is_not_made(bare: Path, no_node: dict[str, str], tmp_path: Path) -> None:
    """Where it is not built and cannot be, the build says so, and what to do."""
    done = build("build_wheel", tmp_path / "out", bare, **no_node)
    assert done.returncode != 0
    assert "The JupyterLab extension" in done.stderr
    assert "there is no Node.js here" in done.stderr
    assert "make labextension" in done.stderr
    assert not list((tmp_path / "out").glob("*.whl"))


def test_an_extension_of_older_sources_gets_into_no_wheel(bare: Path, no_node: dict[str, str], tmp_path: Path) -> None:
    """What was built before the sources changed is built anew, or the wheel is not made."""
    tree = tmp_path / "tree"
    shutil.copytree(bare, tree)
    built = tree / "nbllm" / "_labextension"
    (built / "static").mkdir(parents=True)
    for name in ("package.json", "install.json", "static/style.js", "sources.sha256"):
        (built / name).write_text("{}", encoding="utf-8")
    done = build("build_wheel", tmp_path / "out", tree, **no_node)
    assert done.returncode != 0
    assert "not built from the sources here" in done.stderr


def test_who_wants_a_wheel_without_it_says_so(bare: Path, no_node: dict[str, str], tmp_path: Path) -> None:
    """SKIP_JUPYTER_BUILDER=1 makes a wheel that has all but the extension."""
    done = build("build_wheel", tmp_path / "out", bare, **no_node, SKIP_JUPYTER_BUILDER="1")
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        assert not [name for name in wheel.namelist() if "labextension" in name]
        assert "nbllm/client.py" in wheel.namelist()


def test_an_editable_install_needs_no_node(bare: Path, no_node: dict[str, str], tmp_path: Path) -> None:
    """`pip install -e .` warns that the extension is missing, and goes on."""
    done = build("build_editable", tmp_path / "out", bare, **no_node)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "there is no Node.js here" in done.stderr
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        assert any(name.endswith(".pth") for name in wheel.namelist())


def test_the_sdist_holds_the_sources_of_the_extension(tmp_path: Path) -> None:
    """All that git knows of labextension/, and no package of others."""
    done = build("build_sdist", tmp_path / "out", ROOT, SKIP_JUPYTER_BUILDER="1")
    assert done.returncode == 0, done.stderr[-2000:]
    with tarfile.open(next((tmp_path / "out").glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    here = {
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "style", "schema", "test")
        for path in (ROOT / "labextension" / folder).rglob("*.*")
    }
    assert here
    assert here | {"labextension/package.json", "labextension/yarn.lock", "scripts/labextension.py"} <= names
    assert not [name for name in names if "node_modules" in name or name.startswith("labextension/lib/")]
    built = {path.relative_to(ROOT).as_posix() for path in BUILT.rglob("*.*")}
    assert built <= names


@needs_built
def test_an_sdist_is_installed_without_node(no_node: dict[str, str], tmp_path: Path) -> None:
    """The sdist brings the extension built, so that a wheel is made of it where there is no Node.js."""
    assert build("build_sdist", tmp_path / "out", ROOT).returncode == 0
    with tarfile.open(next((tmp_path / "out").glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path / "tree", filter="data")
    (tree,) = (tmp_path / "tree").iterdir()
    done = build("build_wheel", tmp_path / "out", tree, **no_node)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        assert any(name.endswith("labextensions/nbllm-lab/install.json") for name in wheel.namelist())
