"""`nbllm demo`: the quickstart notebook through the whole road, in a kernel of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from nbllm.cli.paper import Paper, plural
from nbllm.core.ports import Filter
from nbllm.core.quick_jsonschema import import_jsonschema
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.money import format_usd
from nbllm.settings import Settings
from nbllm.storage.home import Home
from nbllm.storage.ledger import SqliteLedger

NOTEBOOK = "00_quickstart.ipynb"
OUT = Path("build") / "demo" / NOTEBOOK
CELL_LIMIT_S = 600
_SIM_MODEL = re.compile(r"\bsim/(?:small|large)(?:\?[\w=&.]*)?")


class DemoFailed(NbllmError):
    """A cell of the notebook failed."""


def demo(*, model: str | None = None, out: str | None = None) -> int:
    """Run the quickstart, write it with its outputs to `out`, and say where that is and what it cost.

    model: replaces the simulated models in the notebook's cells. Returns the exit code; raises NbllmError when it cannot be run.
    """
    import_jsonschema()  # which nbformat imports
    nbformat: Any = import_module("nbformat")  # its functions are not typed
    source = find_notebook()
    notebook = nbformat.read(source, as_version=4)
    if model is not None:
        use_model(notebook, model)
    target = Path(out) if out is not None else OUT
    paper = Paper()
    paper.line(f"Running {source.name} on {model or 'simulated models (no key, no network)'} ...")
    session = f"demo-{uuid4().hex[:8]}"
    started_s = time.monotonic()
    try:
        _execute(notebook, source.parent, session)
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        if (source.parent / "data").resolve() != (target.parent / "data").resolve():
            # So that the result can be opened and run again where it lies.
            shutil.copytree(source.parent / "data", target.parent / "data", dirs_exist_ok=True)
    paper.line()
    paper.line(f"  Result  {target}")
    paper.line(f"  Took    {time.monotonic() - started_s:.0f} s")
    paper.line(f"  Cost    {cost_line(session)}")
    if model is None:
        paper.line("          Simulated models charge simulated dollars: nothing was really spent.")
    paper.line()
    command = f"jupyter lab {shlex.quote(str(target))}"
    # In a checkout the environment may not be the active one, and make lab opens the demo's usual result.
    paper.line("  Open it:  " + (f"make lab     (or: {command})" if target == OUT and _has_make_lab() else command))
    return 0


def _has_make_lab() -> bool:
    """Whether the working directory is a checkout of nbllm."""
    return Path("Makefile").is_file() and Path("nbllm", "cli", "demo.py").is_file()


def find_notebook() -> Path:
    """Return the quickstart of this installation: of the wheel, or of the checkout that the package lies in."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        if (folder / NOTEBOOK).is_file():
            return folder / NOTEBOOK
    raise ConfigurationError(f"{NOTEBOOK} is not part of this installation.", hint="Install nbllm again, or run it in a checkout.")


def use_model(notebook: Any, model: str) -> None:
    """Put `model` where the cells name a simulated one, and say so at the top."""
    nbformat: Any = import_module("nbformat")  # see demo
    if not re.fullmatch(r"[^\s/]+/\S+", model):
        raise ConfigurationError(f"{model!r} is no model id.", hint="Write provider/model, such as openai/gpt-4o-mini.")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _SIM_MODEL.sub(lambda _: model, cell.source)
    said = f"*Run by `nbllm demo --model {model}`: this model stands where the notebook names a simulated one.*"
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(said))


def _execute(notebook: Any, folder: Path, session: str) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    # The paths in the cells are relative to the notebook's folder; the session's name is how the cost is found afterwards.
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute(env={**os.environ, "NBLLM_SESSION": session, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    except CellExecutionError as error:
        raise DemoFailed(f"A cell failed: {error.ename}: {error.evalue}", hint="`nbllm doctor` says what is wrong here.") from error
    except DeadKernelError as error:
        raise DemoFailed("The kernel died.", hint="`nbllm doctor` says what is wrong here.") from error


def cost_line(session: str) -> str:
    """Return what the session's calls cost and saved, in words."""
    home = Home(Settings.load().home)
    ledger = SqliteLedger(home, session=session)
    try:
        total = next(iter(ledger.usage("total", Filter(session=session))), None)
    finally:
        ledger.close()
        home.close()
    if total is None or not total.calls:
        return "unknown: the ledger holds no call of this run"
    text = f"{format_usd(total.cost_usd)} for {plural(total.calls, 'call')}"
    if total.estimated_usd:
        text += f", {format_usd(total.estimated_usd)} of it estimated"
    if total.unknown_cost_calls:
        text += f", not counting {plural(total.unknown_cost_calls, 'call')} of unknown cost"
    return f"{text}; {plural(total.hits, 'cache hit')} saved {format_usd(total.saved_usd)}"
