"""Build or test the JupyterLab extension of labextension/ with the Node.js that is here.

`build` leaves it in nbllm/_labextension, where the wheel takes it from, and links it into this environment, so that its JupyterLab
has it; `try` is a `build` that does nothing when nothing has changed, and ends well where the packages that it needs cannot be had.
`test` runs eslint, prettier, tsc and jest. Where there is no Node.js all say so and end well: all else of nbllm works without the
extension. Also what hatchling calls for a wheel (pyproject.toml); so only the standard library is imported.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "labextension"
BUILT = ROOT / "nbllm" / "_labextension"
STAMP = BUILT / "sources.sha256"
"""What the built extension was made of, so that none of older sources gets into a wheel."""
NAME = "nbllm-lab"
NEEDED = 20
# This environment's programs first: in a venv that is not activated they are not on PATH; in pip's build environment they are.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
STEPS = {"build": ("build:prod",), "try": ("build:prod",), "test": ("check", "test")}


def node_problem() -> str | None:
    """Return why the extension cannot be built here, None when it can."""
    node = shutil.which("node")
    if node is None:
        return f"there is no Node.js here (version {NEEDED} or newer builds it)"
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().lstrip("v").partition(".")[0]
    if done.returncode != 0 or not major.isdigit() or int(major) < NEEDED:
        return f"Node.js {NEEDED} or newer is needed, and the one on PATH is {done.stdout.strip() or 'broken'}"
    if shutil.which("jlpm", path=PATH) is None:
        return "this environment has no jlpm: make setup installs it"
    return None


def jlpm(*arguments: str) -> int:
    """Run JupyterLab's package manager in labextension/; return its exit code."""
    program = shutil.which("jlpm", path=PATH) or "jlpm"
    print("$ jlpm", *arguments, flush=True)
    return subprocess.call([program, *arguments], cwd=SOURCE, env={**os.environ, "PATH": PATH})


def is_installed() -> bool:
    """Return whether node_modules is what the lock file says, by the times of the files."""
    state = SOURCE / "node_modules" / ".yarn-state.yml"
    wanted = (SOURCE / "yarn.lock", SOURCE / "package.json")
    return state.exists() and all(path.stat().st_mtime <= state.stat().st_mtime for path in wanted)


def made_of() -> str:
    """Return a digest of all that the built extension is made of. Times would not do: a checkout and an sdist set them anew."""
    folders = [path for name in ("src", "style", "schema") for path in (SOURCE / name).rglob("*") if path.is_file()]
    files = [*folders, *(SOURCE / name for name in ("package.json", "yarn.lock", "tsconfig.json", "install.json"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(SOURCE).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_built() -> bool:
    """Return whether the built extension is made of what lies in labextension/ now."""
    try:
        return STAMP.read_text(encoding="utf-8").strip() == made_of()
    except OSError:
        return False


def install() -> int:
    """Install what the lock file names, exactly; return the exit code."""
    if is_installed():
        return 0
    print("Installing what builds the JupyterLab extension: the first time this takes two minutes and 600 MB.", flush=True)
    code = jlpm("install", "--immutable")
    if code == 0:
        (SOURCE / "node_modules" / ".yarn-state.yml").touch()
    return code


def link() -> None:
    """Let this environment's JupyterLab find the built extension."""
    if (ROOT / ".venv").is_symlink():
        return  # the environment belongs to another checkout, and so does its extension
    place = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / NAME
    if place.is_symlink() and place.resolve() == BUILT:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(BUILT, target_is_directory=True)
    except OSError:  # Windows asks for a privilege
        shutil.copytree(BUILT, place)


def for_distribution(target: str, version: str) -> None:
    """Build what a wheel or an sdist takes, unless it is built from these sources already; RuntimeError where it cannot be built.

    version: standard or editable.
    """
    if is_built():
        return
    problem = node_problem()
    if problem is not None:
        raise RuntimeError(
            f"The JupyterLab extension, which belongs into this {target} ({version}) of nbllm, is not built from the "
            f"sources here: {problem}. "
            "Install it, or run `make labextension` where it is, or set SKIP_JUPYTER_BUILDER=1 to do without the extension."
        )
    code = run("build")
    if code != 0:
        raise RuntimeError(f"Building the JupyterLab extension failed with exit code {code}; the reason stands above.")


def run(what: str) -> int:
    """Do one of STEPS, what it needs installed first; return the first exit code that is not 0, else 0."""
    code = install()
    for name in STEPS[what]:
        code = code or jlpm("run", name)
    if code == 0 and what != "test":
        STAMP.write_text(f"{made_of()}\n", encoding="utf-8")
    return code


def main(what: str) -> int:
    """Do one of STEPS if it can be done; return the exit code."""
    if what == "try" and is_built():
        link()
        return 0
    problem = node_problem()
    if problem is None and what == "try" and install() != 0:
        problem = "its packages cannot be installed; the reason stands above"
    if problem is not None:
        print(f"The JupyterLab extension is not {'tested' if what == 'test' else 'built'}: {problem}.")
        return 0
    code = run(what)
    if code == 0 and what != "test":
        link()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
