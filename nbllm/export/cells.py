"""A notebook as the exporter sees it: cells in order, from an .ipynb file or from the inputs of a live session."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbllm.errors import NbllmError
from nbllm.redaction import redact

Kind = Literal["code", "markdown", "raw"]
_KEEP = "export"
_LEAVE_OUT = "no-export"


class NotebookUnreadable(NbllmError):
    """A file that is no notebook of the format that can be exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    number: what messages call it, its place among all cells of the file from 1, or its In number. executed: its execution count,
    None when unknown. failed: its last run ended with an error. live: it comes from a session's history, so it did run, and
    cells come in the order in which they ran.
    """

    number: int
    source: str
    kind: Kind = "code"
    tags: tuple[str, ...] = ()
    executed: int | None = None
    failed: bool = False
    live: bool = False

    @property
    def exported(self) -> bool:
        """Whether the user asks for it: the tag `export`, or a line `#| export` above its code."""
        return _KEEP in self.tags or _KEEP in self._directives

    @property
    def left_out(self) -> bool:
        """Whether the user does not want it: the tag `no-export`, or a line `#| no-export` above its code."""
        return _LEAVE_OUT in self.tags or _LEAVE_OUT in self._directives

    @property
    def _directives(self) -> set[str]:
        found: set[str] = set()
        for line in self.source.split("\n"):
            text = line.strip()
            if text and not text.startswith("#"):
                break
            if text.startswith("#|"):
                found.add(text[2:].strip())
        return found


def normal_newlines(source: str) -> str:
    """Return text with the line ends that Python counts as one: both kinds of CR become LF."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def history_cells(inputs: Sequence[str], *, failed: Collection[int] = ()) -> list[Cell]:
    """Return the cells of a live session in the order in which they ran.

    inputs: the raw inputs by In number (IPython's `history_manager.input_hist_raw`; number 0 is empty). failed: numbers of those
    that ended with an error.
    """
    return [
        Cell(number=number, source=normal_newlines(source), executed=number, failed=number in failed, live=True)
        for number, source in enumerate(inputs)
        if source.strip()
    ]


def read_ipynb(path: Path) -> list[Cell]:
    """Return the cells of a notebook file (nbformat 4) in document order. Raises NotebookUnreadable."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise NotebookUnreadable(
            f"{path} cannot be read: {error.strerror or error}.", hint="Give the path of a .ipynb file."
        ) from None
    except UnicodeDecodeError:
        raise NotebookUnreadable(f"{path} is no UTF-8 text.", hint="Give the path of a .ipynb file.") from None
    return parse_ipynb(text, named=str(path))


def parse_ipynb(text: str, *, named: str = "The notebook") -> list[Cell]:
    """Return the cells of a notebook's JSON. Raises NotebookUnreadable, which names it as `named`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotebookUnreadable(f"{named} is no JSON: {error}.", hint="Is it a .ipynb file, saved to its end?") from None
    if not isinstance(data, dict) or not isinstance(data.get("nbformat"), int) or data["nbformat"] != 4:
        found = data.get("nbformat") if isinstance(data, dict) else None
        raise NotebookUnreadable(
            f"{named} is no notebook of format 4 (its nbformat is {found!r:.40}).",
            hint="Open it in JupyterLab and save it, or: jupyter nbconvert --to notebook --nbformat 4 FILE",
        )
    language = _language(data.get("metadata"))
    if language not in {None, "python", "ipython"}:
        raise NotebookUnreadable(f"{named} is written in {language!r:.40}, and only Python can be exported.")
    cells = data.get("cells")
    if not isinstance(cells, list):
        raise NotebookUnreadable(f"{named} has no list of cells.", hint="Open it in JupyterLab and save it.")
    return [_cell(number, cell, named) for number, cell in enumerate(cells, 1)]


def _language(metadata: object) -> str | None:
    if not isinstance(metadata, dict):
        return None
    for table, key in (("language_info", "name"), ("kernelspec", "language")):
        found = metadata.get(table)
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return str(found[key]).casefold()
    return None


def _cell(number: int, cell: object, named: str) -> Cell:
    if not isinstance(cell, Mapping) or cell.get("cell_type") not in {"code", "markdown", "raw"}:
        raise NotebookUnreadable(f"{named}: cell {number} is no cell of format 4.", hint="Open it in JupyterLab and save it.")
    source: Any = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(part, str) for part in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotebookUnreadable(f"{named}: the source of cell {number} is {redact(repr(source))[:40]}, which is no text.")
    metadata, count = cell.get("metadata"), cell.get("execution_count")
    tags = metadata.get("tags") if isinstance(metadata, Mapping) else None
    outputs = cell.get("outputs")
    return Cell(
        number=number,
        source=normal_newlines(source),
        kind=cell["cell_type"],
        tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        executed=count if isinstance(count, int) and not isinstance(count, bool) else None,
        failed=any(isinstance(o, Mapping) and o.get("output_type") == "error" for o in outputs)
        if isinstance(outputs, list)
        else False,
    )
