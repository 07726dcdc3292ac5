"""Recorded runs of a flow as examples: picked by name, redacted once more, with what the exported flow makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbllm.core.ports import Recording
from nbllm.export.proof import recorded_runs
from nbllm.export.refusals import Refusal
from nbllm.redaction import redact_json

_NUMBER = re.compile(r"[1-9]\d{0,3}\Z")
_SHOWN_RUNS = 10


@dataclass(frozen=True, slots=True)
class Picked:
    """runs: those that were picked, oldest first. newest: the last run that can be run again. models: rungs that answered calls,
    newest first. recorded: how many runs there are. why_none: why the last of all cannot be run again, "" if it can.
    """

    runs: tuple[Mapping[str, Any], ...]
    newest: Mapping[str, Any] | None
    models: tuple[str, ...]
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    recorded: int = 0
    why_none: str = ""

    @property
    def proving(self) -> frozenset[str]:
        """The ids of the runs that are tried with the slice: the newest, which has to fit, and those that travel if they do."""
        return frozenset(str(run["run"]) for run in (*self.runs, *((self.newest,) if self.newest else ())))

    def fitting(self, left_out: Mapping[str, str]) -> Picked:
        """Return it without the runs that do not fit, and with a note on each. left_out: why, by the run's id."""
        notes = tuple(
            f"The recorded run {run['run']} does not travel: {left_out[run['run']]}." for run in self.runs if run["run"] in left_out
        )
        return replace(self, runs=tuple(run for run in self.runs if run["run"] not in left_out), notes=(*self.notes, *notes))


def pick(flow: str, recordings: Iterable[Recording], which: Sequence[str]) -> Picked:
    """Return the runs that are meant. which: "all", a number (so many of the newest) or ids of runs.

    Runs that asked and got the very same count once, the newest of them. One that cannot be run again is left out, with a note.
    """
    every = recorded_runs(flow, recordings)
    good = [run for run in every if not run["problem"]]
    apart = list({_told(run): run for run in good}.values())
    chosen: dict[str, Mapping[str, Any]] = {}
    refusals = []
    for word in which:
        if word == "all":
            found = apart or every
        elif _NUMBER.match(word):
            found = (apart or every)[-int(word) :]
        else:
            found = [run for run in every if len(word) >= 4 and run["run"].startswith(word)]
        if not found:
            refusals.append(Refusal(kind="example", reason=f"--examples {word!r:.40}: no recorded run of {flow} is meant by that",
                                    todo=_what_there_is(flow, every)))  # fmt: skip
        chosen |= {run["run"]: run for run in found}
    notes = (f"{_what_there_is(flow, good)} --examples takes them along.",) if good and not which else ()
    models = dict.fromkeys(str(call["rung"]) for run in reversed(every) for call in run["calls"] if "texts" not in call["prompt"])
    runs = tuple(run for run in every if run["run"] in chosen)
    picked = Picked(
        runs, good[-1] if good else None, tuple(models), notes, tuple(refusals), len(every), every[-1]["problem"] if every else ""
    )
    return picked.fitting({run["run"]: run["problem"] for run in runs if run["problem"]})


def _told(run: Mapping[str, Any]) -> str:
    return json.dumps([run["arguments"], run["calls"]], sort_keys=True, default=str)


def _what_there_is(flow: str, every: Sequence[Mapping[str, Any]]) -> str:
    if not every:
        return f"No run of {flow} is recorded here; run it once in the notebook."
    names = ", ".join(str(run["run"]) for run in reversed(every[-_SHOWN_RUNS:]))
    return f"Recorded runs of {flow}, the newest first: {names}{' ...' if len(every) > _SHOWN_RUNS else ''}."


def examples_json(flow: str, picked: Picked, results: Mapping[str, Any], around: Mapping[str, Any] | None = None) -> bytes:
    """Return examples.json: a list of runs with flow, arguments, result and calls (model and what core.recorded.retold has).

    around: by the run's id, what %%llm cells had asked for all runs, and the exported flow asks in each.
    """
    told = []
    for run in picked.runs:
        outside = (around or {}).get(str(run["run"]), ())
        told.append(
            {
                "flow": flow,
                "arguments": run["arguments"],
                "result": results.get(str(run["run"])),
                "calls": list(map(_call, run["calls"])),
                **({"around": list(map(_call, outside))} if outside else {}),
            }
        )
    return (json.dumps(redact_json(told), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n").encode()


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"rung": call["rung"], "model": str(call["rung"]).partition("/")[2], **call}
