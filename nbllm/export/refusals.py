"""What stands in the way of an export: each with its cell, line, reason and what to do, told all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbllm.errors import NbllmError
from nbllm.redaction import redact

if TYPE_CHECKING:
    from nbllm.export.slicer import Slice

KINDS = (
    "no such flow", "bad flow name", "not a flow", "two flows", "async flow",
    "magic", "shell", "cell magic", "input", "display", "notebook only", "undefined", "order", "history", "failed cell",
    "open resource", "exec", "namespace", "monkeypatch", "buys at start", "literal key", "not python", "not module code",
    "llm cell", "changed after", "relative import", "proof", "module", "settings", "file", "example",
)  # fmt: skip
"""Every kind of refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that cannot be exported.

    cell: its number, None when it is no cell's. line: within the cell, from 1. kind: one of KINDS. todo: what to do about it.
    """

    kind: str
    reason: str
    todo: str = ""
    cell: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        """Return one line: where, what, and what to do."""
        place = "" if self.cell is None else f"cell {self.cell}" + (f", line {self.line}" if self.line else "") + ": "
        return " ".join(f"{place}{self.reason}. {self.todo}".split())


class ExportRefused(NbllmError):
    """The notebook cannot be exported as it is; `refusals` holds every reason, in the order of the cells.

    untried: what could not be looked at because of them, "" when everything was. partial: the slice as far as there is one.
    """

    def __init__(self, flow: str, refusals: Sequence[Refusal], *, untried: str = "", partial: Slice | None = None) -> None:
        self.flow = flow
        self.untried = untried
        self.partial = partial
        self.refusals = tuple(
            Refusal(kind=r.kind, reason=redact(r.reason), todo=redact(r.todo), cell=r.cell, line=r.line) for r in in_order(refusals)
        )
        count = len(self.refusals)
        lines = "\n".join(f"  - {refusal}" for refusal in self.refusals)
        left_out = "Nothing was written. A cell that the service does not need can be left out with the tag no-export."
        super().__init__(
            f"Flow {flow!r:.80} cannot be exported: {count} {'thing is' if count == 1 else 'things are'} in the way.\n{lines}",
            hint=f"{untried} {left_out}".strip(),
        )


def in_order(refusals: Sequence[Refusal]) -> list[Refusal]:
    """Return refusals by cell and line, each once; those of no cell first."""
    return sorted(dict.fromkeys(refusals), key=lambda r: (r.cell or 0, r.line or 0, KINDS.index(r.kind), r.reason))
