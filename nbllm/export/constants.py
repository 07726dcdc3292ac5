"""Large constants that are asked for by name: their values travel in data/, and the code reads them from there."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbllm.export.imports import Imported
from nbllm.export.refusals import Refusal
from nbllm.export.slicer import Kept, Slice
from nbllm.redaction import redact

_READER = Imported("nbllm.flow_context", "stored_constant")


@dataclass(frozen=True, slots=True)
class Moved:
    """A slice without the values of some constants. files: where each now is -> its JSON. rest: words that name no constant."""

    found: Slice
    files: dict[str, bytes]
    rest: tuple[str, ...]
    refusals: tuple[Refusal, ...] = ()


def move_constants(found: Slice, include: Sequence[str], folder: Path | None) -> Moved:
    """Take the constants out that `include` names. A file or folder of that name beside the notebook comes first."""
    files: dict[str, bytes] = {}
    rest: list[str] = []
    refusals: list[Refusal] = []
    for word in include:
        place = _assigned(found, word) if word.isidentifier() and not (folder is not None and (folder / word).exists()) else None
        if place is None:
            rest.append(word)
            continue
        kept, value = place
        try:
            path = f"data/{word}.json"
            files[path] = _as_json(ast.literal_eval(value))
            found = _without(found, kept, value, path)
        except (ValueError, TypeError, RecursionError) as error:
            todo = "Write it to a file in the notebook's folder, read it from there, and include the file"
            refusals.append(Refusal(kind="file", cell=kept.number, reason=f"--include {word}: {error}", todo=todo))
    return Moved(found, files, tuple(rest), tuple(refusals))


def _assigned(found: Slice, name: str) -> tuple[Kept, ast.expr] | None:
    """Return the cell and the value of the one assignment of a name, None without exactly one."""
    places = [
        (kept, statement.value)
        for kept in found.kept
        for statement in ast.parse(kept.text).body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None and _target(statement) == name
    ]
    return places[0] if len(places) == 1 else None


def _target(statement: ast.Assign | ast.AnnAssign) -> str:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def _as_json(value: Any) -> bytes:
    """Return a value as JSON. Raises ValueError when it would come back as something else: tuples, sets, bytes, keys of numbers."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    if redact(text) != text:
        raise ValueError("it holds what looks like a key")
    back = json.loads(text)
    if repr(back) != repr(value):
        raise ValueError("it holds more than texts, numbers, lists and dicts with texts for keys, so JSON cannot hold it")
    return f"{text}\n".encode()


def _without(found: Slice, kept: Kept, value: ast.expr, path: str) -> Slice:
    """Return the slice with a value replaced by a call that reads it."""
    name = _READER.name
    while any(name in one.text for one in found.kept):
        name = f"_{name}"
    reader = replace(_READER, asname="" if name == _READER.name else name)
    known = next((one for one in found.imports if (one.module, one.name) == (_READER.module, _READER.name)), None)
    imports = found.imports if known is not None else (*found.imports, reader)
    call = f'{(known or reader).bound}("{path}")'
    text = _checked(_replaced(kept.text, value, call), kept.text, call)
    cells = tuple(replace(one, text=text) if one is kept else one for one in found.kept)
    return replace(found, kept=cells, imports=tuple(sorted(imports)))


def _replaced(text: str, value: ast.expr, new: str) -> str:
    """Return a text with an expression's place taken; columns of ast count bytes."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    data = text.encode()
    first = starts[value.lineno - 1] + value.col_offset
    end = starts[(value.end_lineno or value.lineno) - 1] + (value.end_col_offset or 0)
    return (data[:first] + new.encode() + data[end:]).decode()


def _checked(new: str, old: str, call: str) -> str:
    """Return the new text. Raises AssertionError unless one value became the call and nothing else changed."""
    pairs = list(zip(ast.parse(old).body, ast.parse(new).body, strict=True))
    changed = [(a, b) for a, b in pairs if ast.dump(a) != ast.dump(b)]
    reader = ast.parse(call, mode="eval").body
    for before, after in changed:
        if not isinstance(before, ast.Assign | ast.AnnAssign):
            break
        before.value = reader
        if ast.dump(before) != ast.dump(after):
            break
    else:
        if len(changed) == 1:
            return new
    raise AssertionError("Taking a constant out changed more than its value.")
