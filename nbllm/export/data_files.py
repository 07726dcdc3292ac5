"""Files and large constants that a flow reads: listed always, copied into the export only when they are asked for by name."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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

    read: paths of files that the flow reads, by its code, as far as they can be seen.
    """

    files: dict[str, bytes]
    below: bool = False
    read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def beside_modules(self, modules: Collection[str]) -> dict[str, bytes]:
        """Return those that lie in the folders of these modules, by their paths there: a module finds them by its `__file__`."""
        if not self.below:
            return {}
        paths = {path.removeprefix(_FOLDER): data for path, data in self.files.items()}
        return {path: data for path, data in paths.items() if "/" in path and path.partition("/")[0] in modules}


def data_files(found: Slice, include: Sequence[str], folder: Path | None, *, constants: Mapping[str, bytes]) -> DataFiles:
    """Return the files that are asked for. include: files and folders by their path from the notebook's folder. constants: values
    that were taken out of the code, by the path where it looks for them.

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
    read = tuple(dict.fromkeys(one.path for one in found.files))
    notes = [*_file_notes(found, chosen), *_constant_notes(found)]
    return DataFiles(files, below, read, tuple(notes), tuple(refusals))


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


def _file_notes(found: Slice, chosen: Iterable[str]) -> Iterable[str]:
    travelling = set(chosen)
    for one in found.files:
        if PurePosixPath(one.path).name and PurePosixPath(one.path).as_posix().removeprefix("./") not in travelling:
            yield (
                f"Cell {one.cell} reads the file {redact(one.path)!r}, which is not part of the export. "
                "Copy it with --include, or let the service find it in another way."
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
