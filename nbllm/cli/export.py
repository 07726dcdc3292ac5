"""`nbllm export`: from a notebook file to the folder of a service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from nbllm.cli.paper import Paper, plural
from nbllm.core.ports import Recording
from nbllm.core.recorded import of_file, own_recordings
from nbllm.export import Exported, export_flow, read_ipynb
from nbllm.export.project import as_dict
from nbllm.settings import Settings
from nbllm.storage.home import Home
from nbllm.storage.recordings import SqliteRecordings

_MOST_RECORDINGS = 2000


def export(given: argparse.Namespace) -> int:
    """Export one flow and say what was written. What is in the way of it is raised, all at once."""
    notebook = Path(given.notebook)
    folder = notebook.absolute().parent
    settings = Settings.load(start=folder)
    done = export_flow(
        read_ipynb(notebook),
        given.flow,
        Path(given.out),
        settings=settings,
        recordings=own_recordings(recordings_of(settings), [given.flow], of_file(notebook)),
        examples=given.examples,
        include=given.include,
        folder=folder,
        force=given.force,
    )
    if given.json:
        json.dump(as_dict(done), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _tell(Paper(), done)
    return 0


def recordings_of(settings: Settings) -> Sequence[Recording]:
    """Return the newest calls that were recorded in the home of these settings, () where there is none."""
    if not settings.home.exists():
        return ()
    home = Home(settings.home)
    try:
        recordings = SqliteRecordings(home)
        try:
            return recordings.newest(_MOST_RECORDINGS)
        finally:
            recordings.close()
    finally:
        home.close()


def _tell(paper: Paper, done: Exported) -> None:
    same = f", {len(done.same)} were as they are" if done.same else ""
    paper.line(f"  {done.flow} is exported to {done.out}: {plural(len(done.written), 'file')} written{same}.")
    paper.line(f"  Proved: {done.proved}.")
    if done.kept:
        paper.line(f"  Kept as you changed or deleted them: {', '.join(done.kept)}. --force overwrites them.")
    if done.removed:
        paper.line(f"  Removed, because this export has them no more: {', '.join(done.removed)}.")
    for note in done.notes:
        paper.line(f"  - {note}")
    paper.line(f"  Next: nbllm serve {given_path(done.out)}, or make run and make test in it.")


def given_path(out: Path) -> str:
    """Return a folder as a person would write it: from the working directory where it lies below."""
    here = Path.cwd()
    return str(out.relative_to(here)) if out.is_relative_to(here) else str(out)
