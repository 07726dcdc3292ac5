"""What the clean process found, as refusals: by the cell of the notebook where that can be told, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nbllm.export.proof import Proof
from nbllm.export.refusals import Refusal
from nbllm.export.slicer import Slice

_LINE = re.compile(r" \(line (\d+) of the module\)")
_SYNTAX_LINE = re.compile(r" \(flows\.py, line (\d+)\)")


def proof_refusals(proof: Proof, found: Slice, flows: str, read: Sequence[str]) -> list[Refusal]:
    """Return a refusal for each problem.

    flows: the module's text. read: files that the flow's cells read.
    """
    return [_refusal(problem, found, flows, read) for problem in proof.problems]


def _refusal(problem: str, found: Slice, flows: str, read: Sequence[str]) -> Refusal:
    reason, cell = problem.rstrip("."), None
    if line := _LINE.search(problem) or _SYNTAX_LINE.search(problem):
        cell = _cell_at(int(line[1]), found, flows)
        reason = reason.replace(line[0], "") if cell else reason
    elif problem.startswith("The app cannot be made"):
        reason = _flattened(reason.partition(": ")[2].removeprefix("ConfigurationError: "))
        cell = next((kept.number for kept in found.kept if kept.reason == f"defines the flow {found.flow}"), None)
    return Refusal(kind="proof", cell=cell, reason=reason.rstrip("."), todo=_todo(problem, read))


def _flattened(text: str) -> str:
    """Return the reasons of a list on one line."""
    return re.sub(r"\s*\n- ", " ", text)


def _cell_at(line: int, found: Slice, flows: str) -> int | None:
    """Return the number of the cell that a line of the module is of; None for the imports at the top."""
    cell = None
    for number, first in _firsts(found, flows):
        if first > line:
            break
        cell = number
    return cell


def _firsts(found: Slice, flows: str) -> Iterator[tuple[int, int]]:
    """Yield each cell's number and the line of the module at which it begins."""
    at = 0
    for kept in found.kept:
        at = flows.index(f"# Cell {kept.number}\n{kept.text.rstrip()}", at)
        yield kept.number, flows.count("\n", 0, at) + 1


def _todo(problem: str, read: Sequence[str]) -> str:
    if "FileNotFoundError" in problem and read:
        return f"Take the file along: --include {' '.join(read)}"
    if "took longer" in problem:
        return "Does a cell wait for something, or never end?"
    if problem.startswith("A recorded run"):
        return "Run the flow once more in the notebook, so that its newest recording is of this code; or: %llm_calls forget"
    return ""
