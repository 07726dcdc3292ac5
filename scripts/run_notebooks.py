"""Run the example notebooks in place, so that the outputs in the repository are true: `make notebooks`.

Each run has a home of its own and no key in its environment. Timestamps of the run are not kept.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
EXPORTED = "support_app"
"""What a notebook writes beside itself; no part of the repository."""


def run(path: Path, home: Path) -> None:
    """Execute one notebook and write it back."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
    )
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN", "_SECRET"))}
    client.execute(env={**kept, "NBLLM_HOME": str(home), "NBLLM_SESSION": "docs"})
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    # Only what a reader needs: the Python that ran it would change with every machine.
    notebook.metadata["language_info"] = {"name": "python"}
    # The folder of this run is gone afterwards; a reader's own is somewhere else.
    text = nbformat.writes(notebook).replace(str(home), "~/.local/share/nbllm")
    path.write_text(text + "\n", encoding="utf-8")
    print(f"ran {path.name}")


def main() -> int:
    """Run them in order, each in a fresh home."""
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        shutil.rmtree(FOLDER / EXPORTED, ignore_errors=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            run(path, Path(home) / "home")
    shutil.rmtree(FOLDER / EXPORTED, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
