"""What a client can say of its calls and its money: ledger, cache, usage, promises, budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from nbllm.background import Job, awaited, waited
from nbllm.core.ports import Filter
from nbllm.errors import InvalidRequest
from nbllm.settings import Settings

if TYPE_CHECKING:
    from nbllm.core.messages import DayScope
    from nbllm.core.usage_table import UsageTable
    from nbllm.house import House, ModelSeen

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget as it stands. hard_usd None: no limit."""

    scope: str
    spent_usd: Decimal
    reserved_usd: Decimal
    hard_usd: Decimal | None
    soft_usd: Decimal | None


class Books:
    """The half of Client that looks back. The other half opens the house and asks."""

    session: str
    _settings: Settings

    def configure(self, origin: str = "client.configure", **values: Any) -> None:
        """Change settings (Client.configure)."""
        raise NotImplementedError

    def _open_house(self) -> House:
        raise NotImplementedError

    def _run(self, work: Callable[[House], Coroutine[Any, Any, T]]) -> T:
        """Run something of our own on the loop and wait for it."""
        house = self._open_house()
        refuse_on_loop(house, "This method")
        return waited(Job(house.host, lambda: work(house)))

    async def _arun(self, work: Callable[[House], Coroutine[Any, Any, T]]) -> T:
        """Async twin of `_run`, also on the loop itself."""
        house = self._open_house()
        return await work(house) if house.host.is_here else await awaited(Job(house.host, lambda: work(house)))

    @property
    def ledger(self) -> Any:
        """The Ledger (core/ports)."""
        return self._open_house().storage.ledger

    @property
    def store(self) -> Any:
        """The ResponseStore (core/ports)."""
        return self._open_house().storage.store

    @property
    def recordings(self) -> Any:
        """The Recordings (core/ports)."""
        return self._open_house().storage.recordings

    def models(self) -> list[Any]:
        """Return what is known of models that can be named, for completion and %llm_models."""
        return list(self._open_house().catalog.models())

    def usage(self, by: str = "model", **where: Any) -> UsageTable:
        """Return sums by "model", "feature", "user", "day", "session", "source", "status" or "total".

        where: session, model, feature, user, since, until (Unix seconds); nothing given: this session. Raises InvalidRequest.
        """
        from nbllm.core.usage_table import UsageTable, simulated_note

        rows, models = self.ledger.usages((by, "model"), self._filter(where))
        return UsageTable(by, rows, simulated_note(models))

    def check_slo(self, *, session: str | None = None, since: float | None = None, model: str | None = None, **limits: Any) -> Any:
        """Hold this session's calls against limits (p50_s, p95_s, p99_s, ttft_p95_s, error_rate ...).

        Returns the report; raises SloViolated with the measured numbers when one does not hold. Cache hits are not counted.
        """
        from inspect import signature

        from nbllm.core.statistics import check_slo, require
        from nbllm.settings.suggest import did_you_mean

        known = [name for name, limit in signature(check_slo).parameters.items() if limit.kind is limit.KEYWORD_ONLY]
        for name in limits:
            if name not in known:
                raise InvalidRequest(f"There is no limit {name!r}.", hint=did_you_mean(name, known, limit=20))
        where = {"session": session, "since": since, "model": model}
        chosen = self._filter({k: v for k, v in where.items() if v is not None})
        series = self.ledger.series(chosen, costs=limits.get("cost_usd") is not None)
        report = check_slo(series, **limits)
        require(report)
        return report

    def _filter(self, where: Mapping[str, Any]) -> Filter:
        known = tuple(field.name for field in fields(Filter))
        for name in where:
            if name not in known:
                from nbllm.settings.suggest import did_you_mean

                raise InvalidRequest(f"Calls cannot be chosen by {name!r}.", hint=did_you_mean(name, known))
        return Filter(**where) if "session" in where or "since" in where else Filter(session=self.session, **where)

    def spent_session_usd(self) -> Decimal:
        """Return what this session has spent, in USD."""
        name = f"session:{self.session}"
        spent: Decimal = self._run(lambda house: house.storage.budgets.balance([name]))[name].spent_usd
        return spent

    def budget_lines(self) -> list[BudgetLine]:
        """Return every budget that is limited, and the session and the day in any case."""
        return self._run(self._budget_lines)

    async def abudget_lines(self, more: Sequence[DayScope] = ()) -> list[BudgetLine]:
        """Async twin of `budget_lines`. more: further budgets of today, such as those of a service's keys; they come last."""
        return await self._arun(lambda house: self._budget_lines(house, more))

    async def _budget_lines(self, house: House, more: Sequence[DayScope] = ()) -> list[BudgetLine]:
        from nbllm.core.budget import day_scope, scope_lines, utc_day

        limits, day_utc = self._settings.budgets, utc_day(time.time())
        scopes = [
            *scope_lines(limits, session=self.session, day_utc=day_utc),
            *(day_scope(extra, day_utc, limits) for extra in more),
        ]
        balances = await house.storage.budgets.balance([scope.name for scope in scopes])
        return [
            BudgetLine(s.name, balances[s.name].spent_usd, balances[s.name].reserved_usd, s.hard_usd, s.soft_usd) for s in scopes
        ]

    async def astanding(self) -> dict[str, str]:
        """Return how each model that the settings name stands: "closed" (well), "half open", "open" or "off".

        "off" is also a model that cannot be asked at all: no such endpoint, no key. Nothing is sent.
        """
        return await self._arun(lambda house: house.standing())

    @property
    def is_open(self) -> bool:
        """Whether anything was asked of it yet: before, there is no home and no loop, and looking back would make them."""
        return getattr(self, "_house", None) is not None

    def models_seen(self, more: Sequence[str] = ()) -> list[ModelSeen]:
        """Return how the models that the settings name, and more of them, stand, and what their limits leave."""
        rungs = self._open_house().rungs(more)
        return self._run(lambda house: house.models_seen(rungs))

    def set_budget(
        self, kind: str, amount_usd: Decimal | None, *, name: str | None = None, soft: Decimal | float | None = None
    ) -> None:
        """Set or lift (None) a hard budget. kind: request, session, day, feature or user (these two with a name); soft: a share."""
        if kind in ("feature", "user"):
            if not name:
                raise InvalidRequest(f"A {kind} budget needs the {kind}'s name.", hint=f"For example: %llm_budget {kind} NAME 5.00")
            key = f"budget.{kind}s.{name}"
        elif kind in ("request", "session", "day"):
            key = f"budget.{kind}_usd"
        else:
            raise InvalidRequest(f"There is no budget of kind {kind!r}.", hint="Use request, session, day, feature or user.")
        values: dict[str, Any] = {key: amount_usd}
        if soft is not None:
            values["budget.soft"] = soft
        self.configure("%llm_budget", **values)


def refuse_on_loop(house: House, what: str) -> None:
    """Raise RuntimeError for a sync door that is called on the very loop that would have to answer it."""
    if house.host.is_here:
        raise RuntimeError(
            f"{what} would wait for the loop that it was called on. Use its async twin (aask, astream, aembed, areset_breakers)."
        )
