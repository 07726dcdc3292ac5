"""requirements.txt of an export: what a running service needs, at the versions that are installed here, with hashes where known."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from nbllm.export.lock import Pin, own_pins
from nbllm.export.wheel import own_requirements

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NOTEBOOK_ONLY = frozenset({"ipython", "ipywidgets", "jupyterlab", "jupyter-server", "matplotlib", "packaging", "tomlkit"})
"""Dependencies of nbllm that only the notebook's face and the exporter need."""
EXTRAS = frozenset({"service", "service-redis"})
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_release": "", "platform_version": ""}


@dataclass(frozen=True, slots=True)
class Requirements:
    """The closure. pinned: with hashes. unhashed: name==version without. missing: needed, and neither installed nor locked.

    only_on: name -> the one platform that needs it.
    """

    pinned: tuple[Pin, ...]
    unhashed: tuple[str, ...]
    missing: tuple[str, ...]
    only_on: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """The canonical names of all of them."""
        return frozenset({pin.name for pin in self.pinned} | {line.partition("==")[0] for line in self.unhashed})


def closure(own: Iterable[str], *, litellm: bool) -> Requirements:
    """Return what the service needs: nbllm's runtime without its notebook face, and the distributions `own` of the flow.

    litellm: whether a rung is reached through LiteLLM. Markers are read for the container's Linux and for this machine; what only
    one of them needs says so.
    """
    roots = [*_runtime(litellm=litellm), *own]
    linux = _reached(roots, _LINUX)
    here = linux if sys.platform == "linux" else _reached(roots, {})
    pinned: list[Pin] = []
    unhashed: list[str] = []
    missing: list[str] = []
    only_on: dict[str, str] = {}
    for name in sorted(linux | here):
        pin = _pin(name)
        if pin is None:
            missing.append(name)
        elif pin.hashes:
            pinned.append(pin)
        else:
            unhashed.append(f"{pin.name}=={pin.version}")
        if not (name in linux and name in here):
            only_on[name] = "linux" if name in linux else sys.platform
    return Requirements(tuple(pinned), tuple(unhashed), tuple(missing), only_on)


def requirements_text(found: Requirements, *, wheel: str, wheel_sha256: str) -> str:
    """Return requirements.txt: one pin a block, nbllm's wheel first."""
    lines = [
        "# What the service runs on: nothing else is installed (pip install --no-deps -r requirements.txt).",
        "# Written by nbllm export. Versions are those of the notebook's environment; hashes are those of nbllm's lock.",
        f"./vendor/{wheel} \\\n    --hash=sha256:{wheel_sha256}",
    ]
    for pin in found.pinned:
        hashes = " \\\n".join(f"    --hash={one}" for one in pin.hashes)
        lines.append(f"{pin.name}=={pin.version}{_marker(found, pin.name)} \\\n{hashes}")
    lines += [f"# NO HASH KNOWN: {line} is in requirements-unhashed.txt" for line in found.unhashed]
    return "\n".join(lines) + "\n"


def unhashed_text(found: Requirements) -> str:
    """Return requirements-unhashed.txt; pip checks hashes for all lines of a file or for none, so these have one of their own."""
    head = (
        "# Pinned, but without hashes: nbllm's lock does not hold these versions. With pip-tools or uv, hashes can be added:\n"
        "# pip-compile --generate-hashes, uv pip compile --generate-hashes.\n"
    )
    return head + "".join(f"{line}{_marker(found, line.partition('==')[0])}  # no hash known\n" for line in found.unhashed)


def _marker(found: Requirements, name: str) -> str:
    return f' ; sys_platform == "{found.only_on[name]}"' if name in found.only_on else ""


def _runtime(*, litellm: bool) -> list[str]:
    from packaging.utils import canonicalize_name

    left_out = NOTEBOOK_ONLY | (frozenset() if litellm else {"litellm"})
    return [
        text
        for text in own_requirements()
        if canonicalize_name(_parsed(text).name) not in left_out and ("extra ==" not in text or _in_extras(text))
    ]


def _in_extras(text: str) -> bool:
    marker = _parsed(text).marker
    return marker is not None and any(marker.evaluate({**_LINUX, "extra": extra}) for extra in EXTRAS)


def _parsed(text: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(text)


def _reached(roots: Iterable[str], environment: Mapping[str, str]) -> set[str]:
    """Return the canonical names of everything that the roots need, themselves included."""
    from packaging.utils import canonicalize_name

    found: dict[str, set[str]] = {}
    todo = [(text, frozenset(EXTRAS)) for text in roots]
    while todo:
        text, extras = todo.pop()
        wanted = _parsed(text)
        if wanted.marker and not any(wanted.marker.evaluate({**environment, "extra": extra}) for extra in extras or {""}):
            continue
        name = canonicalize_name(wanted.name)
        known = found.get(name)
        if known is not None and wanted.extras <= known:
            continue
        found[name] = (known or set()) | wanted.extras
        inner = frozenset(found[name] | {""})
        todo += [(line, inner) for line in _needs(name)]
    return set(found)


@cache
def needed_by(top: str) -> frozenset[str]:
    """Return the top names of modules of all distributions that a module's own one needs here, () for one that is not installed.

    Of nbllm those are counted that a service has.
    """
    from packaging.utils import canonicalize_name

    by_module = metadata.packages_distributions()
    roots = _runtime(litellm=True) if top == "nbllm" else by_module.get(top, ())
    reached = _reached(roots, {})
    return frozenset(module for module, names in by_module.items() if any(canonicalize_name(name) in reached for name in names))


def _needs(name: str) -> list[str]:
    try:
        return list(metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return []


def _pin(name: str) -> Pin | None:
    """Return name and version with the lock's hashes: of what is installed, else of what is locked; None without either."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        locked = [pin for (known, _), pin in own_pins().items() if known == name]
        return locked[-1] if locked else None
    return own_pins().get((name, version)) or Pin(name, version, ())
