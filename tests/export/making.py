"""What the tests of the exporter share: notebooks from texts, running them, running what was made of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from nbllm.export import Cell, ExportRefused, Slice, render_flows, slice_notebook

HEAD = "from nbllm import ask, flow"


USES = "@flow\ndef f(t):\n    return use(t)"


def sources(text: str) -> list[str]:
    """The cells of a text, with an empty line between each and the next, and a flow that calls use() below them."""
    return [HEAD, *text.strip().split("\n\n"), USES]


def cells(*sources: str, **fields: Any) -> list[Cell]:
    """Cells of a document, numbered from 1."""
    return [Cell(number=number, source=source, **fields) for number, source in enumerate(sources, 1)]


def sliced(*sources: str, flow: str = "f") -> Slice:
    """The slice of a notebook of these cells."""
    return slice_notebook(cells(*sources), flow=flow)


def kept(*sources: str, flow: str = "f") -> list[int]:
    """The numbers of the cells that are kept."""
    return [one.number for one in sliced(*sources, flow=flow).kept]


def module_of(*sources: str, flow: str = "f") -> str:
    """The text of the module."""
    return render_flows(sliced(*sources, flow=flow))


def refused(*sources: str, flow: str = "f", notebook: Sequence[Cell] | None = None) -> ExportRefused:
    """The refusal of a notebook of these cells."""
    try:
        found = slice_notebook(list(notebook) if notebook is not None else cells(*sources), flow=flow)
    except ExportRefused as error:
        return error
    raise AssertionError(f"It was not refused:\n{render_flows(found)}")


def reasons(*sources: str, flow: str = "f") -> list[tuple[str, int | None, int | None]]:
    """Kind, cell and line of every refusal."""
    return [(r.kind, r.cell, r.line) for r in refused(*sources, flow=flow).refusals]


def run(text: str) -> dict[str, Any]:
    """Run a module's text in a namespace of its own, as a module."""
    namespace: dict[str, Any] = {"__name__": "flows"}
    sys.modules.pop("flows", None)
    exec(compile(text, "flows.py", "exec", dont_inherit=True), namespace)  # noqa: S102 - that is what is tested
    return namespace
