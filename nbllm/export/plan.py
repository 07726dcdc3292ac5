"""A plan of files, written as one: a new folder by one rename, an older export file by file, with what the user changed kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nbllm.export.errors import ExportError
from nbllm.export.target import MANIFEST, check_target, inside


@dataclass(frozen=True, slots=True)
class Plan:
    """Every file of an export: path with / between its parts -> bytes.

    Raises ExportError for a path that would leave the folder: that is a bug here, and nothing is written.
    """

    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        for path in self.files:
            parts = PurePosixPath(path).parts
            if (
                not parts
                or path.startswith("/")
                or ".." in parts
                or "\\" in path
                or ":" in path
                or "\0" in path
                or path == MANIFEST
            ):
                raise ExportError(f"The export would write {path!r:.80}, which is no place within its folder.")

    def hashes(self) -> dict[str, str]:
        """Return path -> sha256 in hex, sorted."""
        return {path: digest(self.files[path]) for path in sorted(self.files)}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a plan: paths that were written anew, that were there already with the same bytes, that the user had changed
    and that were therefore kept, and that an older export had and this one has not.
    """

    written: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def digest(data: bytes) -> str:
    """Return the sha256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def write(plan: Plan, out: Path, about: Mapping[str, Any], *, force: bool = False) -> Written:
    """Write a plan into a folder; about: what its manifest tells besides the hashes.

    A folder that is not there, or is empty, gets everything by one rename. One that holds an older export is brought up to date:
    files that are not as that export left them are kept, unless `force`. Raises ExportError, with nothing written, for any other
    folder, and for one whose git repository has changes that are not committed.
    """
    known = check_target(out, plan.hashes(), flow=str(about.get("flow", "")), force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".nbllm-export-", dir=out.parent))
    except OSError as error:
        raise ExportError(f"{out.parent} cannot be written: {error.strerror or error}.", hint="Give another --out.") from None
    try:
        _fill(staging, plan.files)
        if known is None:
            _manifest(staging, about, plan.hashes())
            _move_whole(staging, out)
            return Written(written=tuple(sorted(plan.files)))
        return _update(staging, out, plan, about, known, force=force)
    except OSError as error:
        raise ExportError(f"The export could not be written: {error.strerror or error} ({error.filename}).",
                          hint="Is the disk full, or the folder read-only? Export again when it is not.") from None  # fmt: skip
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.chmod(0o755)  # mkdtemp's 0700 is for secrets; there are none, and a container's user is another one
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _manifest(folder: Path, about: Mapping[str, Any], hashes: Mapping[str, str], also: Mapping[str, str] | None = None) -> None:
    told = {**about, "files": dict(hashes), **({"being_written": dict(also)} if also else {})}
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    new = folder / f"{MANIFEST}.new"
    new.write_text(text, encoding="utf-8")
    new.replace(folder / MANIFEST)


def _move_whole(staging: Path, out: Path) -> None:
    """Put the finished folder in its place. An empty folder there makes room; .git in it stays."""
    if out.is_dir():
        for item in staging.iterdir():
            item.replace(out / item.name)
    else:
        staging.replace(out)


def _update(
    staging: Path, out: Path, plan: Plan, about: Mapping[str, Any], known: Mapping[str, frozenset[str]], *, force: bool
) -> Written:
    hashes = plan.hashes()
    old = {path: min(was) for path, was in known.items()}
    here = {path: _hash_of(inside(out, path)) for path in {*hashes, *known}}
    theirs = {p for p, now in here.items() if now is not None and now not in known.get(p, ()) and now != hashes.get(p)}
    theirs |= {p for p in known if p in hashes and here[p] is None}  # deleted on purpose: that is a change too
    if force:
        theirs = set()
    written = sorted(p for p in hashes if p not in theirs and here[p] != hashes[p])
    removed = sorted(p for p in known if p not in hashes and p not in theirs and here[p] is not None)
    _manifest(out, about, old, {p: hashes[p] for p in written})  # a crash from here on leaves a folder that is still ours
    for path in written:
        place = inside(out, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / path).replace(place)
    for path in removed:
        inside(out, path).unlink()
        _remove_empty(inside(out, path).parent, out)
    kept = sorted(theirs)
    _manifest(out, about, {p: h for p, h in hashes.items() if p not in theirs} | {p: old[p] for p in kept if p in old})
    return Written(tuple(written), tuple(p for p in sorted(hashes) if here[p] == hashes[p]), tuple(kept), tuple(removed))


def _remove_empty(folder: Path, out: Path) -> None:
    """Remove folders that became empty, from the innermost out."""
    while folder != out and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _hash_of(path: Path) -> str | None:
    try:
        return digest(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
