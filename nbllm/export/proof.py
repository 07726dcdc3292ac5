"""The proof of a slice: its module is imported in a clean process without network, and runs again what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbllm
from nbllm.core.ports import Recording
from nbllm.core.recorded import retold, runs_of
from nbllm.export.comparing import DAYS_AGAIN, ON_OTHER_DAYS, Verdict, asks_the_same, held, judged
from nbllm.export.module import render_flows
from nbllm.export.slicer import Slice
from nbllm.redaction import redact
from nbllm.settings import Endpoint, Settings
from nbllm.settings.strategies import models_of

LIMIT_S = 60.0
_MARK = "nbllm-proof:"
_to_json = json.dumps  # as it is before the user's code, which may set another
APP_PROBLEM = "The app cannot be made: "
"""How problems of the service itself begin."""
_MOST_AROUND = 200
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Proof:
    """What the clean process found.

    problems: why the slice is not proved, () when it is. runs: recorded runs whose prompts came out the same. varying: by the run's
    id, how the prompts of others are different each time; what stays the same of them did so. unfit: by the run's id, why it is
    none of this code; runs that had to fit are problems instead. skipped: what could not be tried, and why. imported_s: how long
    the import took, in seconds; None when it failed. results: what each run returned, as JSON, by the run's id. app: whether the
    app around the flow was made too. around: by the run's id, recorded calls outside of the flow that it made: %%llm cells'.
    cut_off: whether the process had no network at all; else Python's own connections alone were blocked.
    """

    problems: tuple[str, ...]
    runs: int = 0
    skipped: tuple[str, ...] = ()
    imported_s: float | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    app: bool = False
    around: Mapping[str, Any] = field(default_factory=dict)
    varying: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    cut_off: bool = False
    stdout: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the slice."""
        return not self.problems


def prove(
    found: Slice,
    recordings: Iterable[Recording] = (),
    *,
    folder: Path | None = None,
    settings: Settings | None = None,
    limit_s: float = LIMIT_S,
    beside: Mapping[str, bytes] | None = None,
    works_in: str = "",
    only: Collection[str] | None = None,
    must: Collection[str] | None = None,
    travelling: Collection[str] = (),
) -> Proof:
    """Import the slice's module in a clean process: no network, no keys, nothing of this session; then run what was recorded.

    recordings: calls of the flow, as a client keeps them; each run's prompts are rendered again, on a provider that answers what
    was recorded, and compared. What differs is rendered some times more in another process, at other times of the clock: a prompt
    that holds the hour, or something random, is compared in what stays. folder: the notebook's, where relative paths lead (default:
    an empty one). settings: for the names of endpoints, routes and models; keys stay here. limit_s: longest time for everything in
    a process, in seconds. beside: the other files of an export, which are laid around the module; an app.py among them is imported
    too. works_in: the folder among these where relative paths lead then. only: ids of the runs to try, None: all. must: ids of the
    runs that have to ask the same, None: all. travelling: ids of runs that are to be examples: they are rendered on other
    days and a second time, too.
    """
    with tempfile.TemporaryDirectory(prefix="nbllm-proof-") as name:
        place = Path(name)
        path = place / "app" / "flows.py"
        _lay_out(path.parent, {"flows.py": render_flows(found).encode(), **(beside or {})})
        if beside is not None:
            folder = path.parent / works_in
        recordings = tuple(recordings)
        every = [run for run in recorded_runs(found.flow, recordings) if only is None or run["run"] in only]
        task: dict[str, Any] = {
            "module": str(path),
            "flow": found.flow,
            "home": str(place / "home"),
            "runs": [run for run in every if not run["problem"]],
            "days": (),
            "seed": "0",
            "paths": [str(folder)] if beside is None and folder is not None else [],
            "around": calls_around(recordings),
            "settings": _settings(settings),
            "app": "app.py" in (beside or {}),
            "read_only": True,
        }
        told = _run(task, folder or place, place, limit_s)
        if isinstance(told, Proof):
            return told
        if told["written"] and told["imported_s"] is None:
            told["problems"] = _writes(task, told, folder or place, place, limit_s, own=beside is not None or folder is None)
        again: dict[str, Any] = {}
        for seed, days, runs in _further(task["runs"], told["seen"], set(travelling), again):
            further = {**task, "runs": runs, "days": days, "seed": seed, "app": False}
            later = _run(further, folder or place, place, limit_s)
            for run, renderings in ({} if isinstance(later, Proof) else later["seen"]).items():
                again[run] = [*again.get(run, ()), *renderings]
    return _proof(told, again, every, None if must is None else set(must))


def _writes(task: Mapping[str, Any], told: Mapping[str, Any], folder: Path, place: Path, limit_s: float, *, own: bool) -> list[str]:
    """Return every file that an import writes, and what else fails: where the folder is the proof's own it is let through once."""
    if not own:
        return list(told["written"])
    lenient = _run({**task, "runs": [], "read_only": False}, folder, place, limit_s)
    if isinstance(lenient, Proof) or not lenient["written"]:
        return list(told["problems"])
    return [*lenient["written"], *lenient["problems"]]


def _further(
    runs: Sequence[Mapping[str, Any]], seen: Mapping[str, Any], travelling: Collection[str], again: Mapping[str, Any]
) -> Iterator[tuple[str, Sequence[float], Sequence[Mapping[str, Any]]]]:
    """Yield which runs are rendered again, with which hash seed and on which days. again: what came of those yielded before.

    Those that differ, those that then still would be refused (the order of a small set is often the same with another seed), and
    those that have to come out the same always. The latter begin with the last, so that one which needs what another left shows.
    """
    fine = [run for run in runs if seen.get(run["run"]) and "error" not in seen[run["run"]][0]]
    differing = [run for run in fine if _differs(seen[run["run"]][0])]
    to_hold = [run for run in reversed(fine) if run["run"] in travelling and run not in differing]
    if differing:
        yield "1", DAYS_AGAIN, differing
    for seed in "23":
        if refused := [run for run in differing if _verdict(seen[run["run"]][0], again.get(run["run"], ())).problem]:
            yield seed, DAYS_AGAIN[:1], refused
    if to_hold:
        yield "1", ON_OTHER_DAYS, to_hold


def _lay_out(folder: Path, files: Mapping[str, bytes]) -> None:
    for inner, data in files.items():
        file = folder / inner
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _differs(seen: Mapping[str, Any]) -> bool:
    return "error" not in seen and not asks_the_same(seen["recorded"], seen["sent"])


def _proof(
    told: Mapping[str, Any], again: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], must: Collection[str] | None
) -> Proof:
    """Return what both processes found. runs: those that were meant to be tried."""
    problems, unfit, varying = list(told["problems"]), {}, {}
    same: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        name = run["run"]
        if run["problem"]:
            unfit[name] = run["problem"]
            continue
        if name not in told["seen"]:  # the module could not be imported
            continue
        seen = told["seen"][name][0]
        verdict = _verdict(seen, again.get(name, ()))
        if not verdict.problem:
            same[name] = seen
            if verdict.varies:
                varying[name] = verdict.varies
        elif must is None or name in must:
            problems.append(f"A recorded run ({name}): {verdict.problem}")
        else:
            unfit[name] = verdict.problem
    return Proof(
        tuple(redact(problem) for problem in problems),
        len(same) - len(varying),
        tuple(redact(reason) for reason in told["skipped"]),
        told["imported_s"],
        {name: seen["result"] for name, seen in same.items()},
        told["app"],
        {name: seen["around"] for name, seen in same.items()},
        varying,
        {name: redact(why) for name, why in unfit.items()},
        told["cut_off"],
        told["stdout"],
    )


def _verdict(seen: Mapping[str, Any], again: Sequence[Mapping[str, Any]]) -> Verdict:
    if "error" in seen:
        return Verdict(problem=seen["error"])
    if not _differs(seen):
        return held(seen, again)
    verdict = judged(seen["recorded"], seen["sent"], [one["sent"] for one in again if "error" not in one])
    return Verdict(f"it asks something else. {verdict.problem}") if verdict.problem else verdict


def _run(task: Mapping[str, Any], folder: Path, place: Path, limit_s: float) -> dict[str, Any] | Proof:
    """Return what a clean process told, or the proof that failed because it told nothing."""
    root = str(Path(nbllm.__file__).resolve().parents[1])
    # This very nbllm, whichever one is installed. Its folder may be site-packages, which must not stand before Python's own.
    first = f"import sys; sys.path.insert(0, {root!r}); import nbllm; del sys.path[0]; sys.path.append({root!r})"
    code = f"{first}; from nbllm.export.proving import main; main()"
    variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # Another order of sets shows what hangs on it.
    variables |= {"HOME": str(place), "USERPROFILE": str(place), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": task["seed"]}
    command = [sys.executable, "-P", "-s", "-c", code]  # not -I, which would not read the two that begin with PYTHON
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code; the user's code is what is to be tried
            command, input=json.dumps(task), capture_output=True, text=True, encoding="utf-8", errors="replace",
            timeout=limit_s, cwd=folder, env=variables, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Proof((f"Import and recorded runs took longer than {limit_s:g} s.",))
    line = next((text for text in reversed(done.stdout.splitlines()) if text.startswith(_MARK)), None)
    if line is None:
        last = redact(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
        return Proof((f"The process that imports the module ended without a word: {last:.300}",))
    return {**json.loads(line.removeprefix(_MARK)), "stdout": done.stdout}


def report(told: Mapping[str, Any]) -> None:
    """Write the clean process's findings where the parent looks for them."""
    sys.stdout.write(f"\n{_MARK}{_to_json(told)}\n")
    sys.stdout.flush()


def recorded_runs(flow: str, recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return the recorded runs of a flow, oldest first: their id, when they began in Unix time, their arguments, the calls in their
    order, those of inner flows too, and why they cannot be run again, "" when they can.
    """
    return [
        {
            "run": run.run,
            "started_at": run.calls[0].started_at,
            "arguments": run.arguments,
            "problem": run.problem,
            "calls": list(map(retold, run.calls)),
        }
        for run in runs_of(recordings, {flow})
    ]


def calls_around(recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return the newest recorded calls outside of flows, each set of messages once: what %%llm cells asked once for all runs."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(recordings, key=lambda r: r.started_at):
        if one.flow is None and "messages" in one.prompt:
            key = json.dumps(one.prompt["messages"], sort_keys=True, default=str)
            found[key] = retold(one)
    return list(found.values())[-_MOST_AROUND:]


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint's address and prices: a flow may look at what its answers cost."""
    prices = {"input_usd_per_mtok": endpoint.input_usd_per_mtok, "output_usd_per_mtok": endpoint.output_usd_per_mtok}
    return {"base_url": endpoint.base_url, **{name: str(price) for name, price in prices.items() if price is not None}}


def _settings(settings: Settings | None) -> dict[str, Any]:
    """Return what of the settings decides where a call goes; no key, and no name of one."""
    if settings is None:
        return {}
    endpoints = {name: _shown(endpoint) for name, endpoint in settings.endpoints.items() if endpoint.base_url}
    routes: dict[str, Sequence[str]] = {name: models_of(name, settings.routes) for name in settings.routes}
    return {"model": settings.model, "ladder": list(settings.ladder), "endpoints": endpoints, "routes": routes}
