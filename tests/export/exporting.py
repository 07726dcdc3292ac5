"""What the tests of whole exports share: a small notebook, and exporting it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nbllm import Settings
from nbllm.export import Cell, Exported, export_flow
from nbllm.export.proof import Proof
from nbllm.export.refusals import ExportRefused
from tests.export.making import cells

NOTEBOOK = (
    "from pydantic import BaseModel\n\nfrom nbllm import ask, flow",
    "%llm_config model=sim/small deadline_s=30\n%llm_budget day 5.00",
    "class Triage(BaseModel):\n    urgent: bool\n    topic: str",
    """@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    facts = ask(f"List the facts in this ticket, in {lang}:\\n{ticket}")
    return ask(f"Classify.\\n{facts.text}", schema=Triage, feature="triage").data""",
)


def exported(out: Path, *sources: str, flow: str = "triage", proved: bool = True, **options: Any) -> Exported:
    """Export a notebook of these cells (default: NOTEBOOK) with the defaults as settings.

    proved=False leaves out the clean process, which takes a second: for tests of what is written.
    """
    notebook: Sequence[Cell] = options.pop("notebook", None) or cells(*(sources or NOTEBOOK))
    unproved = nullcontext() if proved else patch("nbllm.export.project.prove", return_value=Proof(()))
    with unproved:
        settings = options.pop("settings", None) or Settings(home=out.parent / "home")
        return export_flow(notebook, flow, out, settings=settings, **options)


def refused(out: Path, *sources: str, **options: Any) -> ExportRefused:
    """The refusal of such an export; nothing may have been written."""
    before = tree(out)
    try:
        exported(out, *sources, **options)
    except ExportRefused as error:
        assert tree(out) == before
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".nbllm-export")] == []
        return error
    raise AssertionError("It was not refused.")


def tree(out: Path) -> dict[str, bytes]:
    """Every file below a folder, {} when it is not there."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def ipynb(path: Path, *sources: str) -> Path:
    """Write a notebook file of these cells."""
    made = [
        {"cell_type": "code", "id": f"c{n}", "source": s, "metadata": {}, "outputs": [], "execution_count": None}
        for n, s in enumerate(sources)
    ]
    told = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}
    path.write_text(json.dumps(told), encoding="utf-8")
    return path
