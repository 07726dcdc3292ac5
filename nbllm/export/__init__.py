"""From a notebook to the code of a service: the cells that a flow needs, as a module, proved before it is written.

cells = read_ipynb(Path("support.ipynb"))
found = slice_notebook(cells, flow="triage")      # raises ExportRefused with everything that is in the way
text = render_flows(found)
proof = prove(found)                              # imports it in a clean process without network
"""

from __future__ import annotations

from nbllm.export.cells import Cell, NotebookUnreadable, history_cells, parse_ipynb, read_ipynb
from nbllm.export.module import render_flows
from nbllm.export.proof import Proof, prove
from nbllm.export.refusals import ExportRefused, Refusal
from nbllm.export.slicer import Kept, Slice, slice_notebook

__all__ = [
    "Cell",
    "ExportRefused",
    "Kept",
    "NotebookUnreadable",
    "Proof",
    "Refusal",
    "Slice",
    "history_cells",
    "parse_ipynb",
    "prove",
    "read_ipynb",
    "render_flows",
    "slice_notebook",
]
