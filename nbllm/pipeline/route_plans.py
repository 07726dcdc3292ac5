"""Plans of routes, read from their files when they are first needed and again when a file has changed."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from nbllm.errors import ConfigurationError, NbllmError
from nbllm.pipeline.looking import Looking
from nbllm.pipeline.stage import Clock
from nbllm.pipeline.workers import Workers

MOST_BYTES = 64 * 1024 * 1024
_HINT = "Write it anew with plan.to_json(), or correct plan= of the route."


class CutOff(Struct, frozen=True, gc=False):
    """What a plan of calibrate_threshold promises: the cut-off, the upper bound of the error of what it accepts, and its id."""

    threshold: float
    error_upper: float | None
    plan_id: str | None


class Labels(Struct, frozen=True):
    """A plan that gives each request a label: of fit_labels, or of calibrate_route at the share of strong calls that is wanted."""

    plan: Any
    plan_id: str | None

    def label(self, text: str, vector: Any) -> tuple[str, str]:
        """Return the label of one request, and how it came about. vector: (d,) of its text. Raises InvalidRequest."""
        if hasattr(self.plan, "route_one"):
            strong, gain = self.plan.route_one(text, vector)
            return ("strong" if strong else "weak"), f"by a predicted gain of {gain:.3g}"
        (label,), (share,) = self.plan.label(vector[None])
        return label, f"with a share of {share:.2f} by {self.plan.method}"


Plan = CutOff | Labels
Mark = tuple[int, int, int]
"""What tells a file from the one that was there before: when it was changed, in ns, its size and its inode."""


class Plans:
    """The plans that routes name, by path and share of strong calls. Their files are looked at in threads."""

    def __init__(self, workers: Workers, clock: Clock) -> None:
        self._workers = workers
        self._clock = clock
        self._looking: dict[tuple[str, float | None], Looking[Plan]] = {}
        self._files: dict[tuple[str, float | None], tuple[Mark, Plan]] = {}

    def known(self, path: str, strong_share: float | None = None) -> Plan | None:
        """Return a plan that was read already, None for one whose file has to be looked at. Any thread may ask."""
        looking = self._looking.get((path, strong_share))
        return None if looking is None else looking.known()

    async def get(self, path: str, strong_share: float | None = None) -> Plan:
        """Return a plan as its file has it, or had it two seconds ago. Raises ConfigurationError."""
        which = (path, strong_share)
        looking = self._looking.get(which)
        if looking is None:
            looking = self._looking[which] = Looking(partial(self._look, which), self._clock.now_s)
        return await looking.get()

    async def aclose(self) -> None:
        """End what is being read."""
        for looking in tuple(self._looking.values()):
            await looking.aclose()

    async def _look(self, which: tuple[str, float | None]) -> Plan:
        found = self._files[which] = await self._workers.run(partial(self._again, *which))
        return found[1]

    def _again(self, path: str, strong_share: float | None) -> tuple[Mark, Plan]:
        """Return the plan that was read, else read it. Touches the disk."""
        mark, plan = self._files.get((path, strong_share), (None, None))
        with suppress(OSError):  # reading says what is the matter
            if mark is not None and plan is not None and mark == marked_by(Path(path).stat()):
                return mark, plan
        return read_plan(path, strong_share)


def read_plan(path: str, strong_share: float | None = None) -> tuple[Mark, Plan]:
    """Return a plan and what its file was marked by. Raises ConfigurationError for a file that holds none."""
    file = Path(path)
    try:
        stat = file.stat()
        if stat.st_size > MOST_BYTES:
            raise ConfigurationError(f"The plan {path} is larger than {MOST_BYTES // 2**20} MB.", hint="Is it really a plan?")
        text = file.read_text(encoding="utf-8")
        said = json.loads(text)
    except OSError as exc:
        raise ConfigurationError(f"The plan {path} cannot be read: {exc.strerror or exc}.", hint=_HINT) from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"The plan {path} is no JSON.", hint=_HINT) from None
    kind = said.get("kind") if isinstance(said, dict) else None
    try:
        return marked_by(stat), _made(str(kind), text, strong_share)
    except NbllmError as exc:
        raise ConfigurationError(f"The plan {path} is none: {exc.summary}", hint=exc.hint or _HINT) from exc


def marked_by(stat: os.stat_result) -> Mark:
    """Return what a file is marked by."""
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _made(kind: str, text: str, strong_share: float | None) -> Plan:
    if kind.startswith("nbllm threshold plan"):
        return _cut_off(text)
    if kind.startswith("nbllm route plan"):
        from nbllm.calibration import RoutePlan

        plan = RoutePlan.from_json(text)
        return Labels(plan if strong_share is None else plan.choose(strong_share=strong_share), plan.sha256[:12])
    if kind.startswith("nbllm label plan"):
        from nbllm.calibration.label_plan import LabelPlan

        labels = LabelPlan.from_json(text)
        return Labels(labels, labels.sha256[:12])
    raise ConfigurationError("it does not say which kind of plan it is.")


def _cut_off(text: str) -> CutOff:
    from nbllm.calibration import ThresholdPlan

    plan = ThresholdPlan.from_json(text)
    if plan.threshold is None:
        raise ConfigurationError(f"it was refused and holds no threshold: {plan.reason}")
    return CutOff(plan.threshold, plan.error_upper, plan.data_hash[:12])
