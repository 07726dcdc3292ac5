"""From a notebook to the folder of a service: every part worked out and proved first, then written as one."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbllm
from nbllm.core.ports import Recording
from nbllm.core.recorded import Own
from nbllm.export.cells import Cell
from nbllm.export.constants import move_constants
from nbllm.export.data_files import DataFiles, data_files, missing_refusals
from nbllm.export.errors import ExportError
from nbllm.export.examples import Picked, examples_json, pick
from nbllm.export.files import project_files
from nbllm.export.lock import own_pins
from nbllm.export.magic_settings import NAMES, with_magics
from nbllm.export.module import render_flows
from nbllm.export.modules import Origins, origins
from nbllm.export.places import Places
from nbllm.export.plan import Plan, digest, write
from nbllm.export.proof import Proof, prove
from nbllm.export.proof_refusals import proof_refusals
from nbllm.export.proof_words import compared_words, imported_words, left_out, notes_on_newest
from nbllm.export.refusals import ExportRefused, Refusal
from nbllm.export.requirements import Requirements, closure, requirements_text, unhashed_text
from nbllm.export.settings_file import SettingsFile, settings_file
from nbllm.export.signature import signature_refusals
from nbllm.export.slicer import Slice, slice_notebook
from nbllm.export.target import app_name, check_target
from nbllm.export.tidying import Tidied, ruff_values, tidied
from nbllm.export.wheel import wheel
from nbllm.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export that was written.

    out: its folder. written, same, kept, removed: paths in it; kept: those that the user had changed, or deleted, and that stay as
    they are. notes: what a person should know. keys: environment variable -> endpoint or provider whose key it holds. examples:
    how many recorded runs travel. proof: what the clean process found. compared: what of recorded runs was compared, in words.
    """

    out: Path
    flow: str
    app: str
    written: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...]
    keys: Mapping[str, str]
    examples: int
    proof: Proof
    compared: str

    @property
    def proved(self) -> str:
        """How the slice was proved, as the end of a sentence."""
        return f"{imported_words(self.proof)}; {self.compared}"


def export_flow(
    cells: Sequence[Cell],
    flow: str,
    out: Path,
    *,
    settings: Settings,
    recordings: Iterable[Recording] | Own = (),
    examples: Sequence[str] = (),
    include: Sequence[str] = (),
    folder: Path | None = None,
    force: bool = False,
) -> Exported:
    """Write the service of a flow into a folder: code, settings, requirements, tests, containers, deployment, monitoring.

    cells: a notebook's (`read_ipynb`) or a session's (`history_cells`). settings: what calls are made with; lines of %llm_config
    and %llm_budget in a notebook's cells come on top. recordings: the notebook's calls as a client keeps them, or what
    `own_recordings` made of them; the newest whole run of the flow has to ask the same in the slice, and those that `examples`
    picks ("all", a number, ids of runs) travel if they do. include: what travels in data/: files by their path from `folder`, the
    notebook's, and constants by their name. force: overwrite what the user changed, too.

    Raises ExportRefused with every reason at once, and ExportError for the target folder. Nothing is written then.
    """
    out = Path(out).expanduser().absolute()
    app_name(out)
    own = recordings if isinstance(recordings, Own) else Own(tuple(recordings))
    parts = _gather(cells, flow, settings, own, examples, include, folder)
    plan, proof, parts = _proved(parts, out, force=force)
    about = {"made_by": f"nbllm {nbllm.__version__}", "flow": parts.found.flow}
    done = write(plan, out, about, force=force)
    return Exported(
        out=out, flow=parts.found.flow, app=app_name(out), written=done.written, same=done.same, kept=done.kept,
        removed=done.removed, notes=tuple(_notes(parts, proof)),
        keys=parts.settings.keys, examples=len(parts.picked.runs), proof=proof, compared=compared_words(flow, parts.picked, proof),
    )  # fmt: skip


_PROVED_ALL_THE_SAME = {"settings", "example", "literal key"}
"""Kinds of refusals that leave a module which can be tried, so that what the proof finds is told with them."""
_NOT_SLICED = (
    "Modules, files and recorded runs of the flow, its import and its app were not looked at: that needs the above to be right."
)
_NOT_PROVED = "The import in a clean process, recorded runs and the app were not tried: that needs the above to be right."
_NOT_IMPORTED = "Recorded runs and the app were not tried: that needs a module that can be imported."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Everything that an export is made of, before it is proved. refusals: what is in the way already."""

    refusals: tuple[Refusal, ...]
    found: Slice
    flows: Tidied
    cells: Sequence[Cell] = field(repr=False)
    origins: Origins
    settings: SettingsFile
    live: Settings
    needs: Requirements
    data: DataFiles
    picked: Picked
    own: Own = field(repr=False)


def _gather(
    cells: Sequence[Cell], flow: str, settings: Settings, own: Own, examples: Sequence[str],
    include: Sequence[str], folder: Path | None,
) -> _Parts:  # fmt: skip
    """Work out all parts. Raises ExportRefused with what is in the way of any of them."""
    settings, refusals = with_magics(settings, cells)
    try:
        found = slice_notebook(cells, flow=flow)
    except ExportRefused as error:
        refusals += error.refusals
        if error.partial is None:
            raise ExportRefused(flow, refusals, untried=_NOT_SLICED) from None
        found = error.partial
    try:
        parts = _worked_out(found, cells, settings, own, examples, include, folder, tuple(refusals))
    except (SyntaxError, ValueError, AssertionError):
        if not refusals:
            raise
        raise ExportRefused(flow, refusals, untried=_NOT_SLICED) from None  # what there is of the slice is no module
    if any(refusal.kind not in _PROVED_ALL_THE_SAME for refusal in parts.refusals):
        raise ExportRefused(flow, [*parts.refusals, *signature_refusals(parts.found, cells)], untried=_NOT_PROVED)
    return parts


def _worked_out(
    found: Slice, cells: Sequence[Cell], settings: Settings, own: Own, examples: Sequence[str],
    include: Sequence[str], folder: Path | None, refusals: tuple[Refusal, ...],
) -> _Parts:  # fmt: skip
    """Return the parts for a slice, or for what there is of one. refusals: what was in the way before."""
    moved = move_constants(found, include, folder)
    found = moved.found
    where = origins(render_flows(found), cells, folder)
    flows = tidied(render_flows(found, local_modules=where.local_modules), local_modules=where.local_modules)
    picked = pick(found.flow, own.recordings, examples)
    made = settings_file(settings, flows.text, used=picked.models, others=bool(where.local))
    data = data_files(found, moved.rest, folder, constants=moved.files, modules=where.local)
    needs = closure(where.distributions, litellm=made.litellm)
    missing = [
        Refusal(kind="module", reason=f"the service needs {name}, which is not installed here, so its version is not known",
                todo="pip install 'nbllm[service,service-redis]'")
        for name in needs.missing
    ]  # fmt: skip
    return _Parts(
        refusals=(*refusals, *where.refusals, *made.refusals, *moved.refusals, *data.refusals, *picked.refusals, *missing),
        found=found, flows=flows, cells=cells, origins=where, settings=made, live=settings, needs=needs, data=data, picked=picked,
        own=own,
    )  # fmt: skip


def _files(parts: _Parts, out: Path) -> dict[str, bytes]:
    """Return every file of the project but the examples, whose results only the proof knows."""
    name, data = wheel()
    files: dict[str, bytes] = {
        "flows.py": parts.flows.text.encode(),
        "settings.toml": parts.settings.text.encode(),
        **parts.settings.files,
        "requirements.txt": requirements_text(parts.needs, wheel=name, wheel_sha256=digest(data)).encode(),
        f"vendor/{name}": data,
        **parts.data.files,
        **parts.data.beside_modules(parts.origins.local_modules),
        **parts.origins.local,
    }
    if parts.needs.unhashed:
        files["requirements-unhashed.txt"] = unhashed_text(parts.needs).encode()
    files |= project_files(
        app=app_name(out),
        flow=parts.found.flow,
        files=files,
        settings=parts.settings,
        data=parts.data,
        examples=bool(parts.picked.runs),
        ruff=ruff_values(parts.flows, parts.origins.local_modules),
    )
    return files


def _proved(parts: _Parts, out: Path, *, force: bool) -> tuple[Plan, Proof, _Parts]:
    """Return the plan, its proof, and the parts without examples that do not fit. Raises ExportRefused with what was found."""
    files = _files(parts, out)
    Plan(files)
    # Before the time that a proof takes.
    check_target(out, {path: digest(one) for path, one in files.items()}, flow=parts.found.flow, force=force)
    tried = parts.picked.proving
    proof = _tried(parts, files, tried)
    if unfit := left_out(parts.picked, proof, certain=parts.own.certain):
        parts = replace(parts, picked=parts.picked.fitting(unfit))
        files = _files(parts, out)
        proof = _tried(parts, files, tried)  # the same runs: one may need what another leaves
    if parts.refusals or not proof.ok:
        found = proof_refusals(proof, Places(parts.found, parts.flows.text, parts.cells), parts.data.read)
        found += [] if proof.ok else missing_refusals(parts.data, found)
        untried = "" if proof.imported_s is not None else _NOT_IMPORTED
        raise ExportRefused(parts.found.flow, [*parts.refusals, *found], untried=untried)
    if parts.picked.runs:
        files["examples.json"] = examples_json(parts.found.flow, parts.picked, proof.results, proof.around)
    return Plan(files), proof, parts


def _tried(parts: _Parts, files: Mapping[str, bytes], only: Collection[str]) -> Proof:
    """Return the proof of these files by these runs. The newest has to ask the same, where it is known to be the notebook's."""
    code = {path: one for path, one in files.items() if not path.startswith("vendor/")}
    picked = parts.picked
    if picked.runs:
        code["examples.json"] = examples_json(parts.found.flow, picked, {})
    must = {str(picked.newest["run"])} if picked.newest and parts.own.certain else set()
    works_in = "data" if parts.data.below else ""
    try:
        return prove(
            parts.found, parts.own.recordings, settings=parts.live, beside=code, works_in=works_in, only=only, must=must,
            travelling={str(run["run"]) for run in picked.runs},
        )  # fmt: skip
    except OSError as error:
        raise ExportError(
            f"The export could not be proved: {error.strerror or error} ({error.filename}). Nothing was written.",
            hint="Is the disk full? The proof needs a few MB in the folder for temporary files.",
        ) from None


def _notes(parts: _Parts, proof: Proof) -> Iterable[str]:
    taken = tuple(f"%{name}" for name in NAMES)
    yield from (note for note in parts.found.notes if not any(name in note for name in taken))
    yield from (
        *parts.settings.notes,
        *parts.origins.notes,
        *parts.data.notes,
        *parts.own.notes,
        *parts.picked.notes,
        *proof.skipped,
        *parts.flows.notes(),
    )
    yield from notes_on_newest(parts.picked, proof, certain=parts.own.certain)
    if parts.origins.local:
        yield f"Copied from beside the notebook: {', '.join(parts.origins.local)}."
    if parts.data.files:
        yield f"Taken along: {', '.join(parts.data.files)}."
    if parts.needs.unhashed:
        why = "nbllm's lock does not hold these versions" if own_pins() else "nbllm was installed without its lock"
        count = len(parts.needs.unhashed)
        shown = ", ".join(parts.needs.unhashed[:5]) + (" ..." if count > 5 else "")
        every = count + len(parts.needs.pinned)
        yield f"{count} of {every} requirements have no hashes ({why}): {shown}. See requirements-unhashed.txt."
    if parts.settings.keys:
        yield f"Keys that the service reads from its environment: {', '.join(parts.settings.keys)}."


def python_version() -> str:
    """Return the Python that the versions belong to, such as 3.11."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def as_dict(exported: Exported) -> dict[str, Any]:
    """Return an export as plain values, for --json."""
    return {
        "out": str(exported.out), "flow": exported.flow, "app": exported.app, "written": list(exported.written),
        "same": list(exported.same), "kept": list(exported.kept), "removed": list(exported.removed), "notes": list(exported.notes),
        "keys": dict(exported.keys), "examples": exported.examples, "recorded_runs_proved": exported.proof.runs,
        "compared": exported.compared,
    }  # fmt: skip
