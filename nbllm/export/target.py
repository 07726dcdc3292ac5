"""The folder that an export goes to: which ones are refused, and what an older export in it left there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nbllm.export.errors import ExportError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?\Z", re.IGNORECASE)
MANIFEST = ".nbllm-export.json"
"""What an export remembers of itself: the hash of each file that it wrote."""
_GIT_LIMIT_S = 10.0


def app_name(out: Path) -> str:
    """Return the app's name for containers and clusters: the folder's, in lower case with "-". Raises ExportError for a bad one."""
    folder = out.name
    if not _NAME.match(folder) or _DEVICES.match(folder):
        raise ExportError(
            f"The target folder {str(out)!r:.120} has no name that an app can have. Nothing was written.",
            hint="Use letters, digits, '-', '_' and '.', at most 63, a letter or digit first and last: --out support_app",
        )
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")


def check_target(
    out: Path, planned: Mapping[str, str], *, flow: str = "", force: bool = False
) -> Mapping[str, frozenset[str]] | None:
    """Return what an older export left in the folder, path -> hashes that are its own; None when the folder is new or empty.

    planned: path -> hash of what is to be written. flow: whose export it is to be. force: also over changes and
    another flow's. Raises ExportError for a folder that nothing may be written into.
    """
    app_name(out)
    around = next((folder for folder in out.parents if (folder / MANIFEST).exists()), None)
    if around is not None:
        raise ExportError(
            f"{out} lies within {around}, which is an export itself. Nothing was written.", hint="Give a folder beside it."
        )
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out} is no folder. Nothing was written.", hint="Give the path of a new folder.")
    if not out.exists() or all(item.name == ".git" for item in out.iterdir()):
        return None
    known = _left_by_an_export(out)
    if known is None:
        raise ExportError(
            f"{out} is not empty, and no export of nbllm. Nothing was written.", hint="Give a new folder, or empty this one."
        )
    was = _flow_of(out)
    if flow and was and was != flow and not force:
        raise ExportError(
            f"{out} is the export of the flow {was!r:.80}, and this one is of {flow!r:.80}. Nothing was written.",
            hint="Give another --out; or --force, which makes this folder the new flow's.",
        )
    changed = [] if force else _not_committed(out, planned, known)
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ExportError(
            f"{out} is in a git repository and has changes that are not committed: {shown}. Nothing was written.",
            hint="Commit or stash them, so that what the export changes can be seen; or --force, which overwrites them.",
        )
    for path in {*planned, *known}:
        inside(out, path)
    return known


def inside(out: Path, path: str) -> Path:
    """Return a path below the folder. Raises ExportError when a link leads elsewhere."""
    place = out
    for part in path.split("/"):
        place = place / part
        if place.is_symlink():
            raise ExportError(f"{place} is a link. Nothing is written through links.", hint="Put a plain file or folder there.")
    return place


def _left_by_an_export(out: Path) -> Mapping[str, frozenset[str]] | None:
    path = out / MANIFEST
    if path.is_symlink() or not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        files, also = told["files"], told.get("being_written", {})
        return {str(name): frozenset({str(files.get(name, also.get(name))), str(also.get(name, files.get(name)))})
                for name in {*files, *also} if _is_within(str(name))}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ExportError(
            f"{path} cannot be read: which files are yours and which are the export's is not known. Nothing was written.",
            hint="Restore it, or export into a new folder.",
        ) from None


def _flow_of(out: Path) -> str:
    """Return whose export the folder holds, "" where its manifest does not say."""
    return str(json.loads((out / MANIFEST).read_text(encoding="utf-8")).get("flow") or "")


def _is_within(path: str) -> bool:
    """Whether a manifest's path, which anybody may have edited, stays below its folder."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and "\\" not in path and ":" not in path


def _not_committed(out: Path, planned: Mapping[str, str], known: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the paths of the folder that differ from what git has, apart from those that are just as the last export left them.

    Files that git does not know count only where the export would write.
    """
    git = shutil.which("git")
    repository = next((p for p in (out, *out.parents) if (p / ".git").exists()), None)
    if git is None or repository is None:
        return []
    command = [git, "-c", "core.fsmonitor=false", "-C", str(out), "status", "--porcelain=v1", "-z", "--no-renames", "--", "."]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_GIT_LIMIT_S, env=environment)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    below = os.path.relpath(out.resolve(), repository.resolve()).replace(os.sep, "/")
    found = []
    for entry in done.stdout.decode("utf-8", "replace").split("\0"):
        state, path = entry[:2], entry[3:]
        path = path if below == "." else path.removeprefix(f"{below}/")
        if not entry or path == MANIFEST or (state == "??" and path not in planned):
            continue
        if _hash(out / path) not in {*known.get(path, ()), planned.get(path)}:
            found.append(path)
    return sorted(found)


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
