"""The text of `flows.py`: a header, the imports, and the user's own code, cell by cell."""

from __future__ import annotations

import ast
from collections.abc import Collection

from nbllm.export.imports import import_block
from nbllm.export.names import Definition
from nbllm.export.slicer import Slice

_HEADER = '''"""The flow {flow} and what it needs, exported from a notebook by nbllm.

Below the imports this is the code of the notebook's cells, in their order;
a %%llm cell is a function.
"""
'''


def render_flows(found: Slice, *, local_modules: Collection[str] = ()) -> str:
    """Return the module's text: the same text for the same slice.

    local_modules: modules that travel with it, whose imports stand last. The text is parsed again, and holds no statement that is
    not in the slice: anything else is a bug here and raises AssertionError.
    """
    parts = [_HEADER.format(flow=found.flow)]
    block = import_block(found.imports, found.comments, local_modules)
    if block:
        parts.append("\n" + block)
    cells = "\n\n".join(f"# Cell {kept.number}\n{kept.text.rstrip()}\n" for kept in found.kept)
    first = ast.parse(cells).body[:1]
    # as isort has it: two blank lines between imports and a definition, one before anything else
    parts.append("\n\n" if first and isinstance(first[0], Definition) else "\n")
    text = "".join((*parts, cells))
    _check(text, found, block)
    return text


def _check(text: str, found: Slice, block: str) -> None:
    """Hold the whole against its parts, each parsed by itself: nothing in one may reach into another."""
    expected = ast.parse(_HEADER.format(flow=found.flow)).body + ast.parse(block).body
    for kept in found.kept:
        expected += ast.parse(kept.text).body
    if ast.dump(ast.parse(text)) != ast.dump(ast.Module(body=expected, type_ignores=[])):
        raise AssertionError(f"The module of flow {found.flow} is not the sum of its cells. Nothing was written.")
