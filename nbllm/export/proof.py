"""The proof of a slice: its module is imported in a clean process without network, and runs again what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbllm
from nbllm.core.ports import Recording
from nbllm.export.module import render_flows
from nbllm.export.slicer import Slice
from nbllm.redaction import redact
from nbllm.settings import Settings
from nbllm.settings.strategies import models_of

LIMIT_S = 60.0
_MARK = "nbllm-proof:"
APP_PROBLEM = "The app cannot be made: "
"""How problems of the service itself begin."""
_MOST_AROUND = 200
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Proof:
    """What the clean process found.

    problems: why the slice is not proved, () when it is. runs: recorded runs whose prompts came out the same. skipped: runs that
    could not be tried, and why. imported_s: how long the import took, in seconds; None when it failed. results: what each run
    returned, as JSON, by the run's id. app: whether the app around the flow was made too. around: by the run's id, recorded calls
    outside of the flow that it made: those of %%llm cells.
    """

    problems: tuple[str, ...]
    runs: int = 0
    skipped: tuple[str, ...] = ()
    imported_s: float | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    app: bool = False
    around: Mapping[str, Any] = field(default_factory=dict)
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
) -> Proof:
    """Import the slice's module in a clean process: no network, no keys, nothing of this session; then run what was recorded.

    recordings: calls of the flow, as a client keeps them; each run's prompts are rendered again, on a provider that answers what
    was recorded, and compared. folder: the notebook's, where relative paths lead (default: an empty one). settings: for the names
    of endpoints, routes and models; keys stay here. limit_s: longest time for everything, in seconds. beside: the other files of
    an export, which are laid around the module; an app.py among them is imported too. works_in: the folder among these where
    relative paths lead then.
    """
    with tempfile.TemporaryDirectory(prefix="nbllm-proof-") as name:
        place = Path(name)
        path = place / "app" / "flows.py"
        for inner, data in {"flows.py": render_flows(found).encode(), **(beside or {})}.items():
            file = path.parent / inner
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if beside is not None:
            folder = path.parent / works_in
        task = {
            "module": str(path),
            "flow": found.flow,
            "home": str(place / "home"),
            "runs": recorded_runs(found.flow, recordings := tuple(recordings)),
            "around": calls_around(recordings),
            "settings": _settings(settings),
            "app": "app.py" in (beside or {}),
        }
        return _run(task, folder or place, place, limit_s)


def _run(task: Mapping[str, Any], folder: Path, place: Path, limit_s: float) -> Proof:
    root = str(Path(nbllm.__file__).resolve().parents[1])
    # This very nbllm, whichever one is installed. Its folder may be site-packages, which must not stand before Python's own.
    first = f"import sys; sys.path.insert(0, {root!r}); import nbllm; del sys.path[0]; sys.path.append({root!r})"
    code = f"{first}; from nbllm.export.proving import main; main()"
    variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    variables |= {"HOME": str(place), "USERPROFILE": str(place), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-I", "-c", code]
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
    told = json.loads(line.removeprefix(_MARK))
    return Proof(
        tuple(redact(problem) for problem in told["problems"]),
        told["runs"],
        tuple(redact(reason) for reason in told["skipped"]),
        told["imported_s"],
        told["results"],
        told["app"],
        told["around"],
        done.stdout,
    )


def report(told: Mapping[str, Any]) -> None:
    """Write the clean process's findings where the parent looks for them."""
    sys.stdout.write(f"\n{_MARK}{json.dumps(told)}\n")
    sys.stdout.flush()


def recorded_runs(flow: str, recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return the recorded runs of a flow, oldest first: their id, arguments, and the calls in their order."""
    by_run: dict[str, dict[str, Any]] = {}
    for one in sorted(recordings, key=lambda r: r.started_at):
        if one.flow is None or one.flow.get("name") != flow or "messages" not in one.prompt:
            continue
        key = str(one.flow.get("run"))
        run = by_run.setdefault(key, {"run": key, "arguments": one.flow.get("arguments", {}), "calls": []})
        run["calls"].append({"prompt": one.prompt, "rung": one.model, "text": one.answer.get("text", "")})
    return list(by_run.values())


def calls_around(recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return the newest recorded calls outside of flows, each set of messages once: what %%llm cells asked once for all runs."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(recordings, key=lambda r: r.started_at):
        if one.flow is None and "messages" in one.prompt:
            key = json.dumps(one.prompt["messages"], sort_keys=True, default=str)
            found[key] = {"prompt": one.prompt, "rung": one.model, "text": one.answer.get("text", "")}
    return list(found.values())[-_MOST_AROUND:]


def _settings(settings: Settings | None) -> dict[str, Any]:
    """Return what of the settings decides where a call goes; no key, and no name of one."""
    if settings is None:
        return {}
    endpoints = {name: {"base_url": e.base_url} for name, e in settings.endpoints.items() if e.base_url}
    routes: dict[str, Sequence[str]] = {name: models_of(name, settings.routes) for name in settings.routes}
    return {"model": settings.model, "ladder": list(settings.ladder), "endpoints": endpoints, "routes": routes}
