"""Cells that this Python cannot read: told as that, also where the flow is in one and so seems not to be there."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence

from nbllm.export.book import Book, Unit
from nbllm.export.refusals import Refusal


def not_python(unit: Unit) -> Refusal:
    """Return the refusal of a cell that cannot be parsed, with line and reason."""
    version = ".".join(platform.python_version_tuple()[:2])
    return Refusal(kind="not python", cell=unit.cell.number, line=unit.code.problem_line, todo="Correct it",
                   reason=f"it is no Python, as Python {version} reads it: {unit.code.problem:.80}")  # fmt: skip


def hiding(book: Book, flow: str) -> Sequence[Refusal]:
    """Return the refusals of cells that cannot be read and hold what looks like the flow's definition."""
    defines = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(flow)}\b|^\s*{re.escape(flow)}\s*=", re.MULTILINE)
    return [not_python(unit) for unit in book.units if _is_unreadable(unit) and defines.search(unit.cell.source)]


def _is_unreadable(unit: Unit) -> bool:
    return unit.code.tree is None and (unit.code.cell_magic is None or bool(unit.code.problem))
