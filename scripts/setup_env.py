"""Make .venv and install nbllm into it from the lock file, if that has not been done for this lock already.

Run by `make setup` with whatever Python is there, so this file keeps to syntax that an old one can still parse. pip checks
every file against the hashes in requirements.lock; uv does the same, faster, when it is on PATH.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, ".nbllm-setup")
NEEDED = (3, 11)


def fingerprint():
    """Return what the environment was made from: the lock, the project's own metadata, and where the project lies."""
    digest = hashlib.sha256(ROOT.encode("utf-8", "surrogateescape"))
    for name in ("requirements.lock", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_ready():
    """Return whether the environment was made from exactly these files."""
    try:
        with open(STAMP) as file:
            return file.read() == fingerprint() and os.path.exists(PYTHON)
    except OSError:
        return False


# `make labextension` builds the JupyterLab extension, which takes Node.js and minutes; the rest of nbllm does not wait for it.
ENV = dict(os.environ, SKIP_JUPYTER_BUILDER="1")


def run(*command):
    """Run a command in the project's root, shown first; its failure ends this script with its exit code."""
    print("$ " + " ".join(os.path.relpath(part, ROOT) if part.startswith(ROOT) else part for part in command), flush=True)
    code = subprocess.call(command, cwd=ROOT, env=ENV)
    if code != 0:
        sys.exit(code)


def make_venv(uv):
    """Create .venv unless a working one is there."""
    if os.path.exists(PYTHON) and subprocess.call([PYTHON, "-c", "pass"]) == 0:
        return
    if uv:
        run(uv, "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, VENV)
        return
    try:
        import ensurepip  # noqa: F401  (Debian ships Python without it)
    except ImportError:
        sys.exit("This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv")
    run(sys.executable, "-m", "venv", "--clear", VENV)


def main():
    """Bring .venv up to date; do nothing when it is."""
    if sys.version_info < NEEDED:
        sys.exit(
            "nbllm needs Python %d.%d or newer; %s is %d.%d.\nName another one: make setup PYTHON=python3.12"
            % (NEEDED[0], NEEDED[1], sys.executable, sys.version_info[0], sys.version_info[1])
        )
    if is_ready():
        return
    uv = shutil.which("uv")
    make_venv(uv)
    pip = [uv, "pip", "install", "--quiet", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install", "--quiet"]
    print("Installing from requirements.lock; the first time this takes a minute or two.", flush=True)
    run(*pip, "--require-hashes", "-r", os.path.join(ROOT, "requirements.lock"))
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ROOT)
    with open(STAMP, "w") as file:
        file.write(fingerprint())


if __name__ == "__main__":
    main()
