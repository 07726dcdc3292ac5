"""Calls that are made for a caller: its name in the ledger, its part of the cache, its budget of the day."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client, ask, use
from nbllm.core.messages import DayScope
from nbllm.errors import BudgetExceeded
from nbllm.flow_context import CALLER, CallerContext
from nbllm.service import create_app
from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.context import Service
from nbllm.service.problems import problem_of
from tests.service.running import write_settings


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with Client(home=tmp_path / "home", ladder=["sim/small"]) as client:
        yield client


def as_caller(client: Client, context: CallerContext, prompt: str, **options: object) -> str:
    token = CALLER.set(context)
    try:
        return client.ask(prompt, **options).source  # type: ignore[arg-type]
    finally:
        CALLER.reset(token)


def test_calls_are_the_callers_in_the_ledger(client: Client) -> None:
    """A call that names no user is the caller's; one that does keeps its own."""
    as_caller(client, CallerContext(user="key:a"), "one")
    as_caller(client, CallerContext(user="key:a"), "two", user="ann")
    client.ask("three")
    users = {row.user for row in client.ledger.calls(client._filter({}), limit=10)}
    assert users == {"key:a", "ann", None}


def test_one_caller_is_not_served_anothers_answer(client: Client) -> None:
    """Callers with parts of the cache of their own never share an answer; those without share with everybody."""
    ann, bob = CallerContext(partition="key:a"), CallerContext(partition="key:b")
    assert [as_caller(client, who, "same") for who in (ann, ann, bob, bob)] == ["model", "cache", "model", "cache"]
    assert client.ask("same").source == "model"
    assert as_caller(client, CallerContext(), "same") == "cache"
    assert as_caller(client, ann, "same", partition="mine") == "model"


def test_a_budget_of_the_day_holds_for_its_key_and_no_other(client: Client) -> None:
    """What a key may spend a day is a budget of the road: used up, its calls are refused before anything is sent."""
    poor = CallerContext(user="key:a", scopes=(DayScope("key:a", Decimal("0.0000001")),))
    rich = CallerContext(user="key:b", scopes=(DayScope("key:b", Decimal(5)),))
    assert as_caller(client, rich, "one") == "model"
    with pytest.raises(BudgetExceeded) as refused:
        as_caller(client, poor, "another")
    assert refused.value.scope.startswith("day:")
    assert refused.value.scope.endswith(":key:a")
    assert "daily key a budget" in str(refused.value)
    assert "midnight UTC" in str(refused.value)
    problem = problem_of(refused.value)
    assert (problem.status, problem.type) == (429, "insufficient-quota")
    assert 0 < (problem.retry_after_s or 0) <= 86_400


def test_what_a_key_spent_is_counted_without_a_limit_too(client: Client) -> None:
    """A limit that is set later counts what was spent before it."""
    free = CallerContext(scopes=(DayScope("key:a", None),))
    as_caller(client, free, "one", max_tokens=300)
    spent = client.spent_session_usd()
    assert spent > 0
    with pytest.raises(BudgetExceeded) as refused:
        as_caller(client, CallerContext(scopes=(DayScope("key:a", spent),)), "two")
    assert refused.value.spent_usd == spent


def test_many_calls_at_once_do_not_overspend_a_keys_day(client: Client) -> None:
    """However many ask at once, what a key spent in a day is never more than its budget; the rest is refused."""
    with pytest.raises(BudgetExceeded) as refused:
        as_caller(client, CallerContext(scopes=(DayScope("key:z", Decimal(0)),)), "how much?", max_tokens=256)
    limit_usd = refused.value.needed_usd * 3
    caller = CallerContext(scopes=(DayScope("key:z", limit_usd),))

    def asked(number: int) -> bool:
        try:
            as_caller(client, caller, f"question {number}", max_tokens=256)
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        passed = sum(pool.map(asked, range(60)))
    assert 1 <= passed < 60
    with pytest.raises(BudgetExceeded) as last:
        as_caller(client, CallerContext(scopes=(DayScope("key:z", Decimal(0)),)), "and now?")
    assert 0 < last.value.spent_usd <= limit_usd
    assert last.value.reserved_usd == 0


def test_a_flows_own_ask_pays_for_its_caller(tmp_path: Path) -> None:
    """Inside `paying`, what a flow asks with the plain `ask` is the caller's: user, partition and budget."""

    async def main() -> None:
        app = create_app(settings=write_settings(tmp_path, "flow_partition = 'flows'"))
        service: Service = app.state.service
        caller = Caller("ab12", Tier(day_usd=Decimal(3)))
        async with app.router.lifespan_context(app):
            with service.paying(caller, "flow"):
                await asyncio.to_thread(ask, "from a flow")
            with service.paying(caller, "v1"):
                await service.client.aask("from /v1")
            rows = service.client.ledger.calls(service.client._filter({}), limit=5)
            assert {row.user for row in rows} == {"key:ab12"}
            assert service.caller_context(caller, "flow").partition == "flows"
            assert service.caller_context(caller, "v1").partition == "key:ab12"
            assert CALLER.get() is None

    asyncio.run(main())


def test_a_client_in_use_does_not_leak_a_caller(client: Client) -> None:
    """After the block nothing of a caller is left in the context."""
    with use(client):
        ask("alone")
    assert CALLER.get() is None
