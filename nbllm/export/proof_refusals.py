"""What the clean process found, as refusals: by cell and line of the notebook where these can be told, with what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from nbllm.export.places import Places
from nbllm.export.proof import APP_PROBLEM, Proof
from nbllm.export.read_only import AT_EACH_START
from nbllm.export.refusals import Refusal

_LINE = re.compile(r" \(line (\d+) of the module\)")
_SYNTAX_LINE = re.compile(r" \(flows\.py, line (\d+)\)")
_MISSING = re.compile(r"No such file or directory: '([^']+)'")
_PARAMETER = re.compile(r": the parameter (\w+)\b|: \*{1,2}(\w+) takes anything")


def proof_refusals(proof: Proof, places: Places, read: Sequence[str]) -> list[Refusal]:
    """Return a refusal for each problem. read: files that the flow's cells read."""
    return [_refusal(problem, places, read) for problem in proof.problems]


def _refusal(problem: str, places: Places, read: Sequence[str]) -> Refusal:
    reason, cell, at = problem.rstrip("."), None, None
    if line := _LINE.search(problem) or _SYNTAX_LINE.search(problem):
        cell, at = places.of_line(int(line[1]))
        reason = reason.replace(line[0], "") if cell else reason
    elif problem.startswith(APP_PROBLEM):
        named = _PARAMETER.search(problem)
        reason = " ".join(problem.removeprefix(APP_PROBLEM).split())
        cell, at = places.of_flow((named[1] or named[2]) if named else "")
    return Refusal(kind="proof", cell=cell, line=at, reason=reason.rstrip("."), todo=_todo(problem, read))


def _todo(problem: str, read: Sequence[str]) -> str:
    if AT_EACH_START in problem and " writes " in problem:
        return "Move it to a cell of its own and tag that no-export; a flow can write to temporary files (tempfile)"
    if "FileNotFoundError" in problem:
        missing = _MISSING.search(problem)
        wanted = [missing[1]] if missing else read
        files = [path for path in wanted if PurePosixPath(path).name and not PurePosixPath(path).is_absolute()]
        return f"Take the file along: --include {' '.join(files)}" if files else ""
    if "KeyError" in problem and (named := re.search(r"KeyError: '([A-Z][A-Z0-9_]+)'", problem)):
        return (
            f"A proof has no variables of this machine. Read {named[1]} inside the flow, or with os.environ.get({named[1]!r}, ...)"
        )
    if problem.startswith("Importing the module asks"):
        return "Move it into the flow, or to a cell of its own that the flow does not need (tag it no-export)"
    if "open from the start" in problem:
        return "Open it inside the flow, in a with block"
    if "took longer" in problem:
        return "Does a cell wait for something, or never end?"
    if problem.startswith("A recorded run"):
        return "Run the flow once more in the notebook, so that its newest recording is of this code; or: %llm_calls forget"
    return ""
