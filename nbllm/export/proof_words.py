"""What a proof compared of recorded runs, in words: for a person who wants to know what was not."""

from __future__ import annotations

from nbllm.export.examples import Picked
from nbllm.export.proof import Proof


def imported_words(proof: Proof) -> str:
    """Return how the module was imported, as the middle of a sentence."""
    network = "without network" if proof.cut_off else "with Python's own connections blocked"
    return f"imported in a clean process {network}{', app included' if proof.app else ''}"


def compared_words(flow: str, picked: Picked, proof: Proof) -> str:
    """Return what was compared, as the end of a sentence on the proof; or that nothing was, why, and what helps."""
    if proof.runs or proof.varying:
        return "; ".join(_what_asked_the_same(proof))
    if not picked.recorded:
        return f"no prompt was compared, because no run of {flow} is recorded: run it once in the notebook and export again"
    if picked.newest is None:
        why = f"no recorded run of {flow} can be run again ({picked.why_none})"
        return f"no prompt was compared, because {why}: mend that and run it once more"
    return f"no prompt was compared, because the newest recorded run of {flow} does not fit and may be another notebook's"


def _what_asked_the_same(proof: Proof) -> list[str]:
    words = []
    if proof.runs:
        words.append(f"{_runs(proof.runs)} asked the same")
    words += [f"{_runs(1)} ({run}): {how}" for run, how in proof.varying.items()]
    return words


def _runs(count: int) -> str:
    return f"{count} recorded run{'' if count == 1 else 's'}"


def left_out(picked: Picked, proof: Proof, *, certain: bool) -> dict[str, str]:
    """Return which of the picked runs cannot travel, and why: what they ask is not what the app asks, now or every time.

    certain: they are known to be the notebook's own; else their texts are not shown.
    """
    unfit = proof.unfit if certain else dict.fromkeys(proof.unfit, "it does not fit this flow, and may be another notebook's")
    varying = {run: f"{how}, so that tests and parity of the app could not hold it" for run, how in proof.varying.items()}
    tried = {str(run["run"]) for run in picked.runs}
    return {run: why for run, why in {**unfit, **varying}.items() if run in tried}


def notes_on_newest(picked: Picked, proof: Proof, *, certain: bool) -> tuple[str, ...]:
    """Return what a person should know of the run that the slice was held against."""
    newest = "" if picked.newest is None else str(picked.newest["run"])
    if not certain and newest in proof.unfit:
        note = (
            "The newest recorded run does not fit this flow. As it may be another notebook's, that is no reason to refuse. Run the "
            "flow once in the notebook and export from there (%%serve), to have its prompts compared."
        )
        return (note,)
    return ()
