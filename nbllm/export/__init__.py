"""From a notebook to the code of a service: the cells that a flow needs, as a module, proved before it is written.

cells = read_ipynb(Path("support.ipynb"))
found = slice_notebook(cells, flow="triage")      # raises ExportRefused with everything that is in the way
text = render_flows(found)
proof = prove(found)                              # imports it in a clean process without network
done = export_flow(cells, "triage", Path("support_app"), settings=settings)     # all of that, and the project around it
"""

from __future__ import annotations

from nbllm.export.cells import Cell, NotebookUnreadable, history_cells, parse_ipynb, read_ipynb
from nbllm.export.errors import ExportError
from nbllm.export.module import render_flows
from nbllm.export.project import Exported, export_flow
from nbllm.export.proof import Proof, prove
from nbllm.export.refusals import ExportRefused, Refusal
from nbllm.export.slicer import Kept, Slice, slice_notebook

__all__ = [
    "Cell",
    "ExportError",
    "ExportRefused",
    "Exported",
    "Kept",
    "NotebookUnreadable",
    "Proof",
    "Refusal",
    "Slice",
    "export_flow",
    "history_cells",
    "parse_ipynb",
    "prove",
    "read_ipynb",
    "render_flows",
    "slice_notebook",
]
