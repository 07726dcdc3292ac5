"""What people get: a cheap import, a wheel that is complete, and a README whose commands exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from nbllm.cli import parser
from nbllm.settings.load import ELSEWHERE, VARIABLES

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "litellm", "matplotlib", "IPython", "ipywidgets", "aiohttp", "httpx", "openai", "pydantic", "jsonschema", "jinja2", "numpy",
    "pandas", "diskcache", "sqlite3", "asyncio", "nbclient", "nbformat", "platformdirs",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that are loaded after running code in a fresh interpreter."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_nbllm_loads_nothing_heavy() -> None:
    """`import nbllm` costs next to nothing: what a call needs is loaded by the first call."""
    assert loaded_by("import nbllm").isdisjoint(HEAVY)


def test_the_command_loads_nothing_heavy_before_it_knows_what_to_do() -> None:
    """`nbllm --help` is quick: a command's own imports come with the command."""
    assert loaded_by("from nbllm.cli import parser; parser()").isdisjoint(HEAVY)


def test_every_public_name_can_be_had() -> None:
    """Each name in __all__ resolves, and dir() shows exactly those."""
    import nbllm

    assert [name for name in nbllm.__all__ if getattr(nbllm, name, None) is None] == []
    assert set(nbllm.__all__) <= set(dir(nbllm))


def test_the_version_is_said_once() -> None:
    """The package and pyproject.toml agree on the version."""
    import nbllm

    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == nbllm.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree, built without the network: with the JupyterLab extension only if that is built already."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    env = {**os.environ, "SKIP_JUPYTER_BUILDER": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("nbllm-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_its_types_and_the_notebooks(wheel: zipfile.ZipFile) -> None:
    """Every module of the tree, py.typed, the licence and the quickstart with its text are in the wheel."""
    names = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nbllm").rglob("*.py")}
    assert modules - names == set()
    assert {"nbllm/py.typed", "nbllm/_notebooks/00_quickstart.ipynb", "nbllm/_notebooks/data/origin_of_species.txt"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    """No tests, benchmarks, caches or checkpoints travel along."""
    wrong = re.compile(r"(^|/)(tests?|bench|docs|scripts|__pycache__|\.ipynb_checkpoints)/")
    assert [name for name in wheel.namelist() if wrong.search(name)] == []
    name = Path(wheel.filename or "").name.split("-py3")[0]
    assert {name.split("/")[0] for name in wheel.namelist()} - {f"{name}.data"} == {"nbllm", f"{name}.dist-info"}
    data = [one.split("/", 1)[1] for one in wheel.namelist() if one.startswith(f"{name}.data/")]
    assert [one for one in data if not one.startswith("data/share/jupyter/labextensions/nbllm-lab/")] == []


def documents() -> list[Path]:
    """Return the pages whose commands must exist."""
    return [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + sorted(
        (ROOT / "docs").rglob("*.md")
    )


def test_every_make_target_that_is_named_exists() -> None:
    """`make something` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for page in documents()
        for line in re.findall(r"(?:^ {4}|`)make ((?:[a-z-]+ ?)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        for target in line.split()
    }
    assert {"demo", "lab", "test", "check"} <= named
    assert named - targets == set()


def test_every_command_of_nbllm_that_is_named_exists() -> None:
    """`nbllm something` in a document is a command."""
    commands = set(parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]  # argparse has no public list
    named = {word for page in documents() for word in re.findall(r"`nbllm ([a-z]+)", page.read_text(encoding="utf-8"))}
    assert "demo" in named
    assert named - commands == set()


def test_every_link_between_documents_leads_somewhere() -> None:
    """A relative link in a document names a file of the repository."""
    broken = [
        (page.name, link)
        for page in documents()
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_no_file_of_the_repository_names_a_machine_or_a_registry() -> None:
    """What is committed holds no path of a developer's machine and no address of a package registry."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\0")
    # Written in halves, so that this file is not one of those it looks for.
    halves = (
        ("/wo", "rk/main"),
        ("/wo", "rk/shared"),
        ("/ro", "ot/"),
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("registry.", "npmjs"),
    )
    wrong = re.compile("|".join(re.escape(first + second) for first, second in halves).encode())
    found = [name for name in listed if name and (ROOT / name).is_file() and wrong.search((ROOT / name).read_bytes())]
    assert found == []


def test_make_lab_opens_what_make_demo_made(tmp_path: Path) -> None:
    """`make lab` opens the demo's result where there is one, and the quickstart before."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in ("notebooks/00_quickstart.ipynb", "build/demo/00_quickstart.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
        command = [make, "-n", "--no-print-directory", "lab"]
        assert path in subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout


def test_no_variable_of_the_environment_makes_the_demo_cost_money() -> None:
    """MODEL in the environment is not passed on; only `make demo MODEL=...` is."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")

    def recipe(*arguments: str) -> str:
        command = [make, "-n", "--no-print-directory", *arguments]
        env = {**os.environ, "MODEL": "openai/dear"}
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env).stdout

    assert "openai/dear" not in recipe("demo")
    assert '--model "openai/other"' in recipe("demo", "MODEL=openai/other")


def test_the_settings_page_is_what_the_program_knows() -> None:
    """docs/settings.md lists every setting and option with its default and help, as the program has them."""
    from scripts.settings_page import PAGE, page_with_tables

    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tables(page), "run: python scripts/settings_page.py"


def test_the_file_on_the_settings_page_is_a_good_one(tmp_path: Path) -> None:
    """The example in docs/settings.md can be copied as it stands."""
    from nbllm import Settings

    example = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    (tmp_path / "nbllm.toml").write_text(example[1], encoding="utf-8")
    settings = Settings.load(start=tmp_path, environ={})
    assert settings.ladder == ("lab/qwen", "openai/gpt-4o-mini")
    assert settings.endpoints["lab"].max_concurrency == 8
    assert settings.routes["cheap"]


def test_what_runs_the_tests_sets_no_variable_that_nbllm_does_not_know() -> None:
    """A variable of our prefix that is none of ours is warned of at every call, and a warning fails every test that calls."""
    set_there = {
        name
        for file in ("Makefile", ".ci/run")
        for name in re.findall(r"\bNBLLM_[A-Z_]+(?==)", (ROOT / file).read_text(encoding="utf-8"))
    }
    assert set_there <= set(VARIABLES) | ELSEWHERE
