"""The plan in force: read from its file, held against what is in use, taken back when later audits speak against it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from nbllm.core.ports.matches import Matches
from nbllm.core.semantic.plan import SemanticPlan
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.pipeline.stage import Clock
from nbllm.settings.semantic import SemanticSettings

_LOOK_EVERY_S = 1.0
"""A plan's file, and whether it still holds, is looked at as often."""


class InForce(Struct, frozen=True, gc=False):
    """The plan that may serve, or why none may, in words for a warning ("" when there is nothing to warn of)."""

    plan: SemanticPlan | None
    why_not: str = ""


class Plans:
    """Looks after the plan of the settings. What it finds wrong is said once for each plan and reason."""

    def __init__(self, matches: Matches, rows: Callable[[], Awaitable[int]], clock: Clock) -> None:
        self._matches = matches
        self._rows = rows
        self._clock = clock
        self._looked_at_s = float("-inf")
        self._for: tuple[SemanticSettings, str, str] | None = None
        self._found = InForce(None)
        self._file: tuple[str, tuple[int, int, int], SemanticPlan] | None = None
        self._said: set[str] = set()

    async def in_force(self, settings: SemanticSettings, *, embedder: str, guards: str) -> InForce:
        """Return the plan for what is in use. Touches the disk once a second at most."""
        now_s, asked = self._clock.now_s(), (settings, embedder, guards)
        if asked != self._for or now_s - self._looked_at_s >= _LOOK_EVERY_S:
            self._for, self._looked_at_s = asked, now_s
            try:
                self._found = await self._look(settings, embedder, guards)
            except NbllmError as exc:
                self._found = InForce(None, exc.summary)
        return self._found

    def say_once(self, why_not: str) -> str | None:
        """Return the warning the first time that it is due."""
        if not why_not or why_not in self._said:
            return None
        self._said.add(why_not)
        return f"The semantic cache serves nothing, it only records (shadow): {why_not.rstrip('.')}."

    def changed(self) -> None:
        """Look again with the next call."""
        self._for = None

    async def _look(self, settings: SemanticSettings, embedder: str, guards: str) -> InForce:
        if settings.mode != "on":
            return InForce(None)
        if settings.plan is None:
            return InForce(None, 'mode is "on", and there is no plan: calibrate one, and set semantic_cache.plan')
        plan = self._read(settings.plan)
        if plan.origin != "audit" and not settings.accept_foreign:
            what = "imported pairs" if plan.origin == "imported" else "labels that were not sampled from this traffic"
            return InForce(None, f"its plan comes from {what} and holds for pairs like these; accept_foreign = true lets it serve")
        back = self._matches.taken_back(plan.plan_id)
        if back is not None:
            return InForce(None, f"plan {plan.plan_id} was taken back: {back}")
        stale = plan.stale(embedder=embedder, guards=guards, index_rows=await self._rows())
        if stale is not None:
            return InForce(None, f"plan {plan.plan_id} is stale: {stale}")
        return InForce(plan)

    def _read(self, file: str) -> SemanticPlan:
        path = Path(file)
        try:
            stat = path.stat()
            key = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._file is None or self._file[:2] != (file, key):
                self._file = (file, key, SemanticPlan.from_json(path.read_text(encoding="utf-8"), where=os.fspath(path)))
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8"
            raise ConfigurationError(f"The plan {path} cannot be read: {reason}.") from None
        return self._file[2]
