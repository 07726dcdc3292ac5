"""`jupyter nbconvert --to nbllm-service NOTEBOOK`: the same export as `nbllm export`, for those who convert with nbconvert."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nbconvert.exporters import Exporter
from traitlets import Bool, List, Unicode

from nbllm.export.book import read_book
from nbllm.export.cells import parse_ipynb
from nbllm.export.errors import ExportError
from nbllm.export.project import Exported, export_flow
from nbllm.settings import Settings


class ServiceExporter(Exporter):
    """Writes the project of a flow beside the notebook, and gives nbconvert a page that says what was written.

    Options: --ServiceExporter.flow=NAME (needed when there are several), .out=DIR (default: NOTEBOOK_app beside the notebook),
    .include, .force. Recorded runs are picked with `nbllm export --examples`, which knows the home.
    """

    flow = Unicode("", help="The flow; the only one of the notebook when empty.").tag(config=True)
    out = Unicode("", help="The folder of the service; NOTEBOOK_app beside the notebook when empty.").tag(config=True)
    include = List(Unicode(), help="Files of the notebook's folder that travel in data/.").tag(config=True)
    force = Bool(False, help="Overwrite what was changed in the folder.").tag(config=True)
    output_mimetype = "text/markdown"

    def _file_extension_default(self) -> str:
        return ".service.md"

    def from_notebook_node(self, nb: Any, resources: Any = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Export, and return the page. Raises ExportRefused and ExportError, which nbconvert shows."""
        nb_copy, resources = super().from_notebook_node(nb, resources, **kwargs)
        about = resources.get("metadata", {})
        folder = Path(about.get("path") or ".").absolute()
        name = str(about.get("name") or "notebook")
        cells = parse_ipynb(json.dumps(nb_copy), named=name)
        flow = self.flow or _only_flow(read_book(cells).flows)
        out = Path(self.out) if self.out else folder / f"{re.sub(r'[^A-Za-z0-9_]+', '_', name).strip('_') or 'notebook'}_app"
        done = export_flow(
            cells, flow, out, settings=Settings.load(start=folder), include=tuple(self.include), folder=folder, force=self.force
        )
        return page(done), resources


def _only_flow(flows: Any) -> str:
    if len(flows) == 1:
        return str(next(iter(flows)))
    what = f"has {len(flows)} flows: {', '.join(sorted(flows))}" if flows else "has no flow"
    raise ExportError(f"The notebook {what}. Nothing was written.", hint="Name one: --ServiceExporter.flow=NAME")


def page(done: Exported) -> str:
    """Return what was written as Markdown."""
    lines = [
        f"# {done.flow} is a service",
        "",
        f"In `{done.out}`: {len(done.written)} files written, {len(done.same)} as they were.",
    ]
    if done.kept:
        lines.append(f"Kept as they were changed or deleted: {', '.join(done.kept)}.")
    lines += ["", *(f"- {note}" for note in done.notes), "", f"    nbllm serve {done.out}"]
    return "\n".join(lines) + "\n"
