"""The plan in force: read from its file, held against what is in use, taken back when later audits speak against it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from msgspec import Struct

from nbllm.core.ports.matches import Matches
from nbllm.core.semantic.plan import SemanticPlan
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.pipeline.looking import Looking
from nbllm.pipeline.route_plans import Mark, marked_by
from nbllm.pipeline.stage import Clock
from nbllm.pipeline.workers import Workers
from nbllm.settings.semantic import SemanticSettings


class InForce(Struct, frozen=True, gc=False):
    """The plan that may serve, or why none may, in words for a warning ("" when there is nothing to warn of)."""

    plan: SemanticPlan | None
    why_not: str = ""


class Plans:
    """Looks after the plan of the settings. What it finds wrong is said once for each plan and reason."""

    def __init__(self, matches: Matches, rows: Callable[[], Awaitable[int]], workers: Workers, clock: Clock) -> None:
        self._matches = matches
        self._rows = rows
        self._workers = workers
        self._for: tuple[SemanticSettings, str, str] | None = None
        self._looking = Looking(self._look, clock.now_s)
        self._file: tuple[str, Mark, SemanticPlan] | None = None
        self._said: set[str] = set()

    async def in_force(self, settings: SemanticSettings, *, embedder: str, guards: str, at_most_s: float) -> InForce:
        """Return the plan for what is in use, at most two seconds old; none when it cannot be read within at_most_s."""
        if settings.mode != "on":
            return InForce(None)
        if settings.plan is None:
            return InForce(None, 'mode is "on", and there is no plan: calibrate one, and set semantic_cache.plan')
        if (asked := (settings, embedder, guards)) != self._for:
            self._for = asked
            self._looking.forget()
        try:
            async with asyncio.timeout(at_most_s):
                return await self._looking.get()
        except TimeoutError:
            return InForce(None, f"its plan {settings.plan} could not be read within {at_most_s:.2g} s")
        except NbllmError as exc:
            return InForce(None, exc.summary)

    def say_once(self, why_not: str) -> str | None:
        """Return the warning the first time that it is due."""
        if not why_not or why_not in self._said:
            return None
        self._said.add(why_not)
        return f"The semantic cache serves nothing, it only records (shadow): {why_not.rstrip('.')}."

    def changed(self) -> None:
        """Look again with the next call."""
        self._looking.forget()

    async def aclose(self) -> None:
        """End what is being read."""
        await self._looking.aclose()

    async def _look(self) -> InForce:
        assert self._for is not None  # noqa: S101 - in_force has set it
        settings, embedder, guards = self._for
        rows = await self._rows()
        return await self._workers.run(partial(self._held, settings, settings.plan or "", embedder, guards, rows))

    def _held(self, settings: SemanticSettings, file: str, embedder: str, guards: str, rows: int) -> InForce:
        """Read the plan, and hold it against what is in use. Touches the disk."""
        plan = self._read(file)
        if plan.origin != "audit" and not settings.accept_foreign:
            what = "imported pairs" if plan.origin == "imported" else "labels that were not sampled from this traffic"
            return InForce(None, f"its plan comes from {what} and holds for pairs like these; accept_foreign = true lets it serve")
        back = self._matches.taken_back(plan.plan_id)
        if back is not None:
            return InForce(None, f"plan {plan.plan_id} was taken back: {back}")
        stale = plan.stale(embedder=embedder, guards=guards, index_rows=rows)
        if stale is not None:
            return InForce(None, f"plan {plan.plan_id} is stale: {stale}")
        return InForce(plan)

    def _read(self, file: str) -> SemanticPlan:
        path = Path(file)
        try:
            key = marked_by(path.stat())
            if self._file is None or self._file[:2] != (file, key):
                self._file = (file, key, SemanticPlan.from_json(path.read_text(encoding="utf-8"), where=os.fspath(path)))
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8"
            raise ConfigurationError(f"The plan {path} cannot be read: {reason}.") from None
        return self._file[2]
