"""Files and large constants that a flow reads: listed always, copied into the export only when they are asked for by name."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from nbllm.export.file_uses import FileRead, file_uses_of_modules
from nbllm.export.refusals import Refusal
from nbllm.export.slicer import Slice
from nbllm.redaction import redact

LARGE_CONSTANT_BYTES = 20_000
"""From here on a literal in the code is told of: a reviewer should know of it before the file is opened."""
LARGE_FILE_BYTES = 100_000_000
_LOOKED_AT_BYTES = 5_000_000
"""So much of a file is looked through for keys."""
_FOLDER = "data/"


@dataclass(frozen=True, slots=True)
class DataFiles:
    """What travels. files: path in the export -> bytes. below: whether the flow's relative paths begin in data/, and not beside it.

    read: paths of files that the flow reads, by its code, as far as they can be seen. missing: what of them lies in the notebook's
    folder and does not travel.
    """

    files: dict[str, bytes]
    below: bool = False
    read: tuple[str, ...] = ()
    missing: tuple[FileRead, ...] = ()
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def beside_modules(self, modules: Collection[str]) -> dict[str, bytes]:
        """Return those that lie in the folders of these modules, by their paths there: a module finds them by its `__file__`."""
        if not self.below:
            return {}
        paths = {path.removeprefix(_FOLDER): data for path, data in self.files.items()}
        return {path: data for path, data in paths.items() if "/" in path and path.partition("/")[0] in modules}


def data_files(
    found: Slice, include: Sequence[str], folder: Path | None, *, constants: Mapping[str, bytes], modules: Mapping[str, bytes]
) -> DataFiles:
    """Return the files that are asked for. include: files and folders by their path from the notebook's folder. constants: values
    that were taken out of the code, by the path where it looks for them. modules: those that are copied, by their path.

    They keep these paths: beside flows.py when all of them lie in data/, else below data/, where the app then works.
    """
    refusals: list[Refusal] = []
    chosen: dict[str, bytes] = dict(constants)
    for wanted in include:
        try:
            chosen |= _chosen(wanted, folder)
        except _NotTaken as error:
            refusals.append(Refusal(kind="file", reason=f"--include {wanted!r:.80}: {error}", todo=error.todo))
    below = not all(path.startswith(_FOLDER) for path in chosen)
    files = {(f"{_FOLDER}{path}" if below else path): data for path, data in sorted(chosen.items())}
    uses = [*found.files, *file_uses_of_modules(modules)]
    read = [one for one in uses if one.how == "reads" or (one.how == "names" and _is_there(one.path, folder))]
    made = {one.path for one in uses if one.how == "writes"}  # by the flow itself, where it is not there before
    read = [one for one in read if one.path not in made or _is_there(one.path, folder, plain=True)]
    absent = list({one.path: one for one in reversed(read) if not _travels(one.path, chosen)}.values())[::-1]
    missing = tuple(one for one in absent if _is_there(one.path, folder, plain=True))
    notes = [*map(_read_note, absent), *_write_notes(uses), *_constant_notes(found)]
    return DataFiles(files, below, tuple(dict.fromkeys(one.path for one in read)), missing, tuple(notes), tuple(refusals))


def missing_refusals(data: DataFiles, told: Iterable[Refusal]) -> list[Refusal]:
    """Return a refusal for each file that is read and does not travel, when something failed, perhaps for that; told: what was."""
    known = " ".join(refusal.todo for refusal in told)
    return [
        Refusal(kind="file", cell=one.cell or None, line=one.line if one.cell else None, todo=_include(one.path),
                reason=f"{'it' if one.cell else one.place} reads {redact(one.path)!r}, which is not part of the export")
        for one in data.missing if f"--include {one.path}" not in known
    ]  # fmt: skip


def _chosen(wanted: str, folder: Path | None) -> dict[str, bytes]:
    """Return what one word of --include stands for. Raises _NotTaken."""
    if folder is None:
        raise _NotTaken("there is no folder to look in")
    root = folder.resolve()
    place = (root / wanted).resolve()
    if PurePosixPath(wanted.replace("\\", "/")).is_absolute() or root not in place.parents:
        raise _NotTaken("it does not lie below the notebook's folder", "Move it there, and give its path from there")
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    return {file.relative_to(root).as_posix(): _content(file, root) for file in files}


def _content(file: Path, root: Path) -> bytes:
    if not file.is_file():
        raise _NotTaken(f"there is no such file in {root}")
    if file.is_symlink() or root not in file.resolve().parents:
        raise _NotTaken(f"{file.name} is a link")
    if file.stat().st_size > LARGE_FILE_BYTES:
        raise _NotTaken(f"{file.name} is larger than 100 MB", "Let the flow fetch it from where such files are kept")
    data = file.read_bytes()
    text = data[:_LOOKED_AT_BYTES].decode("utf-8", "ignore")
    if redact(text) != text:
        raise _NotTaken(f"{file.name} holds what looks like a key", "Take it out of the file, and make it invalid")
    return data


class _NotTaken(Exception):
    """Why a file does not travel, and what to do about it."""

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.todo = todo


def _is_there(path: str, folder: Path | None, *, plain: bool = False) -> bool:
    """Whether a path is one of the notebook's folder. plain: it is certain to be a path; else a mere word names no folder."""
    if folder is None or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        return False
    if set("*?[") & set(path):
        return any(fnmatch(one.name, path) for one in folder.iterdir()) if plain and folder.is_dir() else False
    try:
        place = folder / path
        return place.is_file() or (place.is_dir() and (plain or "/" in path))
    except OSError:  # too long for a path
        return False


def _travels(path: str, chosen: Iterable[str]) -> bool:
    """Whether a file, or something of a folder or pattern, is among those that travel."""
    return any(one == path or one.startswith(f"{path}/") or fnmatch(one, path) for one in chosen)


def _include(path: str) -> str:
    return f"Take it along: --include {shlex.quote(path)}"


def _read_note(one: FileRead) -> str:
    what = f"{one.place} reads the file {redact(one.path)!r}"
    if PurePosixPath(one.path).is_absolute():
        return (
            f"{what} by an absolute path: the service looks for it there, where it runs. One from the notebook's folder can travel."
        )
    return (
        f"{what}, which is not part of the export. Copy it with --include {redact(shlex.quote(one.path))}, or let the service find "
        "it in another way."
    )


def _write_notes(uses: Iterable[FileRead]) -> Iterable[str]:
    for one in uses:
        if one.how == "writes" and one.later and not one.path.startswith(("/tmp/", "/dev/")):  # noqa: S108 - nothing is written
            yield (
                f"{one.place} writes {redact(one.path)!r} when it is called: a container of the export can write to "
                "temporary files (tempfile) and NBLLM_HOME only."
            )


def _constant_notes(found: Slice) -> Iterable[str]:
    for kept in found.kept:
        for statement in ast.parse(kept.text).body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                size = sum(len(str(n.value)) for n in ast.walk(statement.value) if isinstance(n, ast.Constant))
                if size >= LARGE_CONSTANT_BYTES:
                    target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
                    name = ast.unparse(target)[:60]
                    yield f"Cell {kept.number}: {name} is a constant of {size / 1000:,.0f} kB in flows.py; --include takes it out."
