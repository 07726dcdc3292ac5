"""Which NVIDIA GPUs are here, and how much memory they and this machine have."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which

_ASK = ("--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits")
_ASK_S = 10.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Memory in bytes, free_bytes as it was when asked."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


def gpus(environ: Mapping[str, str] = os.environ) -> list[Gpu] | None:
    """Return the GPUs that a process started here would see, None when nvidia-smi is not here or does not answer.

    CUDA_VISIBLE_DEVICES narrows them down, by number or by the beginning of the uuid.
    """
    program = which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return None
    try:
        asked = subprocess.run([program, *_ASK], capture_output=True, text=True, timeout=_ASK_S, check=False)  # noqa: S603 - found on PATH, fixed words
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parsed(asked.stdout) if asked.returncode == 0 else []
    return visible(found, environ.get("CUDA_VISIBLE_DEVICES")) or None


def parsed(listed: str) -> list[tuple[str, Gpu]]:
    """Return (uuid, GPU) for each line that nvidia-smi prints; lines that do not read as one ([N/A], say) are left out."""
    found = []
    for line in listed.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) >= 5 and words[0].isdigit() and words[-1].isdigit() and words[-2].isdigit():
            gpu = Gpu(int(words[0]), ", ".join(words[2:-2]), int(words[-2]) * MIB, int(words[-1]) * MIB)
            found.append((words[1], gpu))
    return found


def visible(found: list[tuple[str, Gpu]], devices: str | None) -> list[Gpu]:
    """Return those that CUDA_VISIBLE_DEVICES names, in its order; all without it. As in CUDA, the first bad name ends the list."""
    if devices is None:
        return [gpu for _, gpu in found]
    chosen: list[Gpu] = []
    for name in (part.strip() for part in devices.split(",")):
        match = [gpu for uuid, gpu in found if name and (name == str(gpu.index) or (not name.isdigit() and uuid.startswith(name)))]
        if not match:
            break
        chosen.append(match[0])
    return chosen


def machine_bytes() -> int | None:
    """Return the memory of this machine in bytes, None where the system does not say."""
    if not hasattr(os, "sysconf"):
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def machine_free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return what programs could still take of this machine's memory, None where the system does not say.

    meminfo: as Linux has it.
    """
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None
