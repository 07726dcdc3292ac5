"""%%serve: run the cell, then export its flow with this session's cells. What it takes is in nbllm.notebook.serve_manual."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from nbllm.notebook import wording
from nbllm.notebook.names import users_names
from nbllm.notebook.own_runs import own_runs
from nbllm.notebook.views import Table, View, columns
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from nbllm.export import Exported, Kept


def export_cell(shell: Any, client: Any, values: Mapping[str, Any], cell: str) -> View:
    """Run the cell, export the flow, and return what was written and what a person should know.

    Raises UsageError for a line that makes no sense, before the cell runs; ExportRefused with every reason at once.
    """
    __tracebackhide__ = True  # an error of the user's own code is shown as that of their cell
    if "out" not in values:
        raise UsageError("%%serve needs a folder for the project: %%serve --flow NAME --out FOLDER. (%%serve? is the manual.)")
    before = set(_flows(shell.user_ns))
    objects = {name: shell.user_ns[name] for name in before}
    _run(shell, cell)
    name = _flow_name(
        values.get("flow"), shell.user_ns, {n for n in _flows(shell.user_ns) if shell.user_ns[n] is not objects.get(n)}
    )
    return export_here(shell, client, name, values)


def export_here(shell: Any, client: Any, flow: str, values: Mapping[str, Any]) -> View:
    """Export a flow of this session with the cells that ran, and return what was written. Raises ExportRefused, ExportError."""
    from nbllm.export import export_flow, history_cells, slice_notebook

    inputs, failed = history(shell)
    cells = history_cells(inputs, failed=failed)
    done = export_flow(
        cells,
        flow,
        Path(values["out"]),
        settings=client.settings,
        recordings=own_runs(client, [flow]),
        examples=tuple(values.get("examples", ())),
        include=tuple(values.get("include", ())),
        folder=Path.cwd(),
        force=values.get("force", False),
    )
    return exported_view(done, slice_notebook(cells, flow).kept)


def history(shell: Any) -> tuple[list[str], set[int]]:
    """Return the raw inputs of the session by number, and the numbers of those that failed."""
    inputs = list(shell.history_manager.input_hist_raw)
    failed = set(getattr(shell.history_manager, "exceptions", ()) or ())
    return inputs, failed


def _run(shell: Any, cell: str) -> None:
    """Run the body as a cell of its own runs, so that its errors look like a cell's; what it ends with is not shown."""
    __tracebackhide__ = True
    if not cell.strip():
        return
    import ast

    source = shell.transform_cell(cell)
    filename = shell.compile.cache(source, len(shell.history_manager.input_hist_raw) - 1, raw_code=cell)
    with shell.builtin_trap:
        code = shell.compile(ast.parse(source, filename), filename, "exec")
        exec(code, shell.user_ns)  # noqa: S102 - it is what running a cell means


def _flows(namespace: Mapping[str, Any]) -> list[str]:
    return [name for name in users_names(namespace) if getattr(namespace[name], "__nbllm_flow__", "") == name]


def _flow_name(given: str | None, namespace: Mapping[str, Any], defined: set[str]) -> str:
    """Return which flow is meant. UsageError where that cannot be said."""
    if given is None:
        if len(defined) == 1:
            return defined.pop()
        found = f"this cell defines {', '.join(sorted(defined))}" if defined else "this cell defines no flow"
        raise UsageError(f"Which flow? {found[0].upper()}{found[1:]}: name it with --flow. A flow is a function under @nbllm.flow.")
    return flow_named(given, namespace)


def flow_named(given: str, namespace: Mapping[str, Any]) -> str:
    """Return the name of a flow; UsageError for anything else."""
    if given not in namespace:
        raise UsageError(f"{given}: no such function here. {did_you_mean(given, _flows(namespace))}")
    if not callable(namespace[given]):
        raise UsageError(f"{given}: a function is needed, not {type(namespace[given]).__name__}.")
    return given


def exported_view(done: Exported, kept: Sequence[Kept]) -> View:
    """Return what an export wrote, for a notebook. kept: the cells that flows.py is made of."""
    shown = os.path.relpath(done.out)
    files = wording.plural(len(done.written), "file")
    same = f", {len(done.same)} as before" if done.same else ""
    rows: list[Sequence[str]] = [
        ("project", f"{shown}: {files} written{same}"),
        *((f"cell {cell.number}", cell.reason) for cell in kept),
        ("proved", done.proved),
        (
            "examples",
            f"{wording.plural(done.examples, 'recorded run')} travel{'s' * (done.examples == 1)} along"
            if done.examples
            else "none travel along",
        ),
    ]
    if done.kept:
        rows.append(("kept", f"{', '.join(done.kept)}: changed by hand, left as they are (--force overwrites)"))
    if done.removed:
        rows.append(("removed", ", ".join(done.removed)))
    rows += [("needs", f"{variable}: the key of {endpoint}") for variable, endpoint in done.keys.items()]
    rows += [("note", note) for note in done.notes]
    table = Table(columns=columns("", ""), rows=rows)
    again = () if done.examples else (f"With recorded runs: %serve export {done.flow} --out {shown} --examples all",)
    todo = (f"Run it: %serve up {shown}", f"Compare it with this notebook: %serve parity {shown}", *again)
    return View(f"{done.flow} is exported to {shown}", (table,), todo)
