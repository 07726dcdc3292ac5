"""nbllm's own lock file: which version of a distribution was tested here, and the hashes of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)[^\n]*\n((?:[ \t]+--hash=[^\n]*\n)+)", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution at one version, with the sha256 hashes of its files, sorted."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(text: str) -> Mapping[tuple[str, str], Pin]:
    """Return the pins of a lock by canonical name and version."""
    from packaging.utils import canonicalize_name

    found: dict[tuple[str, str], Pin] = {}
    for match in _PIN.finditer(text):
        name = canonicalize_name(match[1])
        found[name, match[2]] = Pin(name, match[2], tuple(sorted(set(_HASH.findall(match[3])))))
    return found


@cache
def own_pins() -> Mapping[tuple[str, str], Pin]:
    """Return the pins of the lock that nbllm came with: beside the package in a checkout, within it when installed; {} without."""
    here = Path(__file__).resolve()
    for path in (here.with_name("requirements.lock"), here.parents[2] / "requirements.lock"):
        if path.is_file():
            return pins(path.read_text(encoding="utf-8"))
    return {}
