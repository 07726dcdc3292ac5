"""`nbllm parity`: recorded runs of an app's flows, replayed on the notebook's road and through the service, at no cost."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import Any

from nbllm.cli.export import recordings_of
from nbllm.core.recorded import of_file, own_recordings
from nbllm.export import read_ipynb, render_flows, slice_notebook
from nbllm.export.magic_settings import with_magics
from nbllm.export.refusals import ExportRefused
from nbllm.redaction import redact
from nbllm.service.recorded import RecordedRun, runs_to_replay
from nbllm.service.replay import NotebookSide, ParityFailed, app_runs, flows_named_in, parity
from nbllm.settings import Settings


def compare(given: argparse.Namespace) -> int:
    """Compare and print what differs. Returns 0 when nothing does, else 1."""
    folder = Path(given.app).expanduser().absolute()
    notebook = Path(given.notebook).expanduser().absolute() if given.notebook else None
    settings = Settings.load(start=notebook.parent if notebook else None)
    travelling = app_runs(folder)
    served = flows_named_in(folder)
    own = own_recordings(recordings_of(settings), served, None if notebook is None else of_file(notebook))
    runs, notes = runs_to_replay(own, travelling, served)
    runs = runs or travelling
    # In the notebook's folder: there its cells ran, and there their relative paths lead.
    with chdir(notebook.parent) if notebook else nullcontext():
        report = parity(folder, runs, notebook=_side(notebook, settings, runs) if notebook else None, notes=notes)
    print(report)
    return 0 if report.ok else 1


def _side(notebook: Path, settings: Settings, runs: Sequence[RecordedRun]) -> NotebookSide:
    """Return the notebook's side: its flows as slices, loaded here, and what its calls are made with."""
    cells = read_ipynb(notebook)
    settings, refusals = with_magics(settings, cells)
    names = list(dict.fromkeys(run.flow for run in runs))
    if refusals:
        raise ExportRefused(", ".join(names), refusals)
    sliced = {name: render_flows(slice_notebook(cells, flow=name)) for name in names}
    return NotebookSide({name: _loaded(text, name, notebook) for name, text in sliced.items()}, settings)


def _loaded(text: str, flow: str, notebook: Path) -> Callable[..., Any]:
    """Return a flow of a module's text; what the module imports may lie beside the notebook. Raises ParityFailed."""
    with tempfile.TemporaryDirectory(prefix="nbllm-parity-") as name:
        path = Path(name) / f"notebook_{flow}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:  # cannot be: the path ends in .py
            raise ImportError(str(path))
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        if str(notebook.parent) not in sys.path:
            sys.path.insert(0, str(notebook.parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # of the user's cells
            raise ParityFailed(
                redact(f"The cells of {notebook.name} that {flow} needs cannot be run: {type(error).__name__}: {error}."),
                hint="Does the notebook run from its own folder, from above? Without --notebook recorded runs are compared.",
            ) from error
    function: Callable[..., Any] = getattr(module, flow)
    return function
