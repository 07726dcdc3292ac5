"""Parity of an app: recorded runs, replayed on the notebook's road and through the service, on one cache, at no cost.

The service runs as it always does, over HTTP on loopback, in a process of its own; only its models are recorded answers, and its
cache is the one that the notebook's side has filled. So a call that asks the very same is a hit, and one that does not is none.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbllm
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.redaction import redact
from nbllm.replayed import RecordedAnswers
from nbllm.service.configuration import load_service
from nbllm.service.flow_specs import describe_all
from nbllm.service.parity import ParityReport, RunTrace, compare, same
from nbllm.service.parity_settings import notes_on, settings_differences
from nbllm.service.recorded import RecordedRun, is_embedding
from nbllm.service.tracing import TracingClient, run_here
from nbllm.settings import Settings

LIMIT_S = 600.0
MARK = "nbllm-parity:"


class ParityFailed(NbllmError):
    """The comparison itself could not be made: no app, no runs, or a service that does not start."""


@dataclass(frozen=True, slots=True)
class NotebookSide:
    """The notebook: its flows by name, and the settings that its calls are made with."""

    flows: Mapping[str, Callable[..., Any]]
    settings: Settings


def app_runs(folder: Path) -> list[RecordedRun]:
    """Return the runs that travel with an app, in its examples.json; none without one. Raises ParityFailed."""
    path = folder / "examples.json"
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            RecordedRun(
                row["flow"],
                row["arguments"],
                tuple(row.get("calls", ())),
                row.get("result"),
                knows_result="result" in row,
                around=tuple(row.get("around", ())),
            )
            for row in rows
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ParityFailed(f"{path} cannot be read: {error}.", hint="Export the app anew with --examples.") from None


def flows_named_in(folder: Path) -> set[str]:
    """Return the names that app.py takes from flows.py: what an app serves can be said without running it."""
    path = folder / "app.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    except SyntaxError:
        return set()
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "flows"}
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "flows"]
    return found | {alias.name for n in imported for alias in n.names}


def parity(
    folder: Path, runs: Sequence[RecordedRun], *, notebook: NotebookSide | None = None, limit_s: float = LIMIT_S,
    notes: Sequence[str] = (),
) -> ParityReport:  # fmt: skip
    """Replay runs on both sides and compare; without a notebook the service is held against the recordings alone.

    folder: the app's. limit_s: longest time for the service's side. notes: on where the runs come from, for the report. Raises
    ParityFailed, and ConfigurationError for settings or flows that cannot work. Nothing is sent to a model, nothing is written to
    the app's home. Not on an event loop.
    """
    folder = folder.expanduser().resolve()
    if not (folder / "app.py").is_file():
        raise ParityFailed(
            f"{folder.name} holds no app.py.", hint="%%serve --flow NAME --out FOLDER or `nbllm export` makes an app."
        )
    if not runs:
        raise ParityFailed(
            f"There is no recorded run of a flow of {folder.name} to replay.",
            hint=" ".join(
                [*notes, "Run the flow once where recordings are on (in a notebook they are), or export it with --examples."]
            ),
        )
    with tempfile.TemporaryDirectory(prefix="nbllm-parity-", ignore_cleanup_errors=True) as name:
        home = Path(name) / "home"
        before, skipped, varying = (
            ([run.trace() for run in runs], dict[str, str](), set[int]()) if notebook is None else _notebook(notebook, runs, home)
        )
        told = _service(folder, runs, home, passes=2 if notebook is None else 1, limit_s=limit_s)
    passes = [[RunTrace.from_json(run) for run in one] for one in told["passes"]]
    after = [_fitting(run, left, tries) for run, left, *tries in zip(runs, before, *passes, strict=True)]
    every = enumerate(zip(runs, before, after, passes[0], passes[-1], strict=True))
    varying |= {n for n, (run, left, right, first, again) in every if _varies(run, first, again) and not _fits(run, left, right)}
    before, remembered = _with_what_is_remembered(runs, before, after)
    left_out = {*told["unknown"], *skipped}
    known = [number for number, run in enumerate(after) if run.flow not in left_out and number not in varying]
    not_compared = [*_notes_on_varying([runs[number].flow for number in sorted(varying)]), *remembered]
    missing = tuple(f"{flow}: the app does not serve it" for flow in told["unknown"])
    names = ("recorded" if notebook is None else "notebook", "service")
    app = load_service(folder / "settings.toml", {})[0]
    settings = [] if notebook is None else settings_differences(notebook.settings, app)
    return compare(
        [before[number] for number in known], [after[number] for number in known], names=names, settings=settings,
        around=[runs[number].around_traces() for number in known],
        skipped=(*missing, *(f"{flow}: {why}" for flow, why in skipped.items())),
        notes=(*notes, *not_compared, *notes_on(after, [app] if notebook is None else [notebook.settings, app])),
    )  # fmt: skip


def _fitting(run: RecordedRun, left: RunTrace, tries: Sequence[RunTrace]) -> RunTrace:
    """Return the service's run that is like the other side's, else its first.

    A recording may be of a run whose answers came from a model or from the cache, or of one before or after a function that keeps
    what it gave (`functools.cache`) had been called. The service is in the one state on the first pass, in the other on the second.
    """
    return next((one for one in tries if _fits(run, left, one)), tries[0])


def _fits(run: RecordedRun, left: RunTrace, right: RunTrace) -> bool:
    return same(left, right, run.around_traces())


def _with_what_is_remembered(
    runs: Sequence[RecordedRun], before: Sequence[RunTrace], after: Sequence[RunTrace]
) -> tuple[list[RunTrace], list[str]]:
    """Return the first side's runs, with the recorded calls where it asks less than was recorded; and notes on these.

    A kernel whose functions keep what they gave asks nothing any more; the service, a new process, asks as the recorded run did.
    """
    found: list[RunTrace] = []
    flows: Counter[str] = Counter()
    for run, left, right in zip(runs, before, after, strict=True):
        recorded = replace(run.trace(), result=left.result, error=left.error, knows_result=left.knows_result)
        less = not left.error and len(left.calls) < len(recorded.calls)
        if less and _fits(run, recorded, right):
            flows[run.flow] += 1
            found.append(recorded)
        else:
            found.append(left)
    return found, [
        f"{count} run{'' if count == 1 else 's'} of {flow} held against the calls that were recorded: here it asks less, with the "
        "same result. It keeps what it was told, or was changed since."
        for flow, count in flows.items()
    ]


def _notes_on_varying(flows: Sequence[str]) -> list[str]:
    """Return a note on each flow whose runs are not compared: the notebook itself does not ask the same twice."""
    return [
        f"Not compared: {count} run{'' if count == 1 else 's'} of {flow}, which asks something else each time (clock or chance)."
        for flow, count in Counter(flows).items()
    ]


def _notebook(
    side: NotebookSide, runs: Sequence[RecordedRun], home: Path
) -> tuple[list[RunTrace], dict[str, str], set[int]]:  # fmt: skip
    """Run everything twice on the notebook's road: once to fill the cache, once from it.

    Return what was done, the flows that are left out and why, and the runs (by number) that asked something else the second time.
    """
    specs: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for flow in dict.fromkeys(run.flow for run in runs):
        if flow not in side.flows:
            skipped[flow] = "the notebook has no such flow"
            continue
        try:
            specs |= describe_all([side.flows[flow]])
        except ConfigurationError as error:
            skipped[flow] = error.summary
    answers = RecordedAnswers()
    with TracingClient(settings_for(side.settings, runs), home, answers) as client:
        first, again = (
            [run_here(specs[run.flow], run, client, answers) if run.flow in specs else run.trace() for run in runs]
            for _ in range(2)
        )
    varying = {n for n, (one, other) in enumerate(zip(first, again, strict=True)) if _varies(runs[n], one, other)}
    return again, skipped, varying


def _varies(run: RecordedRun, one: RunTrace, other: RunTrace) -> bool:
    """Whether the second run asked something else, and not merely less, as a function does that keeps what it gave."""
    more = Counter(_asked(other)) - Counter(_asked(one))
    return _asked(one) != _asked(other) and (bool(more) or len(other.calls) >= len(run.calls))


def _asked(run: RunTrace) -> list[str]:
    return sorted(call.key for call in run.calls)


def settings_for(settings: Settings, runs: Sequence[RecordedRun]) -> Settings:
    """Return settings that name a model: where nothing is configured, that which answered the newest recorded call."""
    if settings.model or settings.ladder:
        return settings
    rungs = [str(call["rung"]) for run in reversed(runs) for call in run.calls if call.get("rung") and not is_embedding(call)]
    return settings.with_values("parity", {"model": rungs[0]}) if rungs else settings


def _service(folder: Path, runs: Sequence[RecordedRun], home: Path, *, passes: int, limit_s: float) -> dict[str, Any]:
    """Run everything through the service in a process of its own, so many times; return what it told."""
    told_runs = [{"flow": r.flow, "arguments": r.arguments, "calls": list(r.calls)} for r in runs]
    around = {json.dumps(call, sort_keys=True, default=str): call for run in runs for call in run.around}
    task = {"folder": str(folder), "home": str(home), "runs": told_runs, "around": list(around.values()), "passes": passes}
    root = str(Path(nbllm.__file__).resolve().parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *paths]), "NBLLM_HOME": str(home), "MPLBACKEND": "agg"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nbllm.service.replaying"], input=json.dumps(task, default=str), capture_output=True, text=True,
            encoding="utf-8", errors="replace", timeout=limit_s, cwd=folder, env=variables, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ParityFailed(f"The service of {folder.name} took longer than {limit_s:g} s for {len(runs)} runs.") from None
    line = next((text for text in reversed(done.stdout.splitlines()) if text.startswith(MARK)), None)
    if line is None:
        last = "\n".join(f"  {text}" for text in done.stderr.strip().splitlines()[-6:]) or f"  exit code {done.returncode}"
        raise ParityFailed(redact(f"The service of {folder.name} did not run. Its last words:\n{last}"))
    told: dict[str, Any] = json.loads(line.removeprefix(MARK))
    return told
