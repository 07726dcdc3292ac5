"""What replicas share on one Redis, opened together and closed together."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.core.breaker import BreakerState
from nbllm.core.ports import BudgetStore, Flights, ResponseStore, SharedState
from nbllm.core.throttle import BucketState
from nbllm.storage.redis_budgets import OnStateLoss, RedisBudgets
from nbllm.storage.redis_flights import RedisFlights
from nbllm.storage.redis_link import Link
from nbllm.storage.redis_responses import DEFAULT_SIZE_BYTES, RedisResponseStore
from nbllm.storage.redis_states import BREAKERS, BUCKETS, RedisState


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The ports on Redis. Nothing is opened before the first use; forked children begin anew by themselves."""

    link: Link
    store: ResponseStore
    flights: Flights
    budgets: BudgetStore
    breaker_states: SharedState[BreakerState]
    bucket_states: SharedState[BucketState]

    async def aclose(self) -> None:
        """Book what waits and close the connections of this loop. What is asked later opens them again."""
        if isinstance(self.budgets, RedisBudgets):
            await self.budgets.aclose()
        await self.link.aclose()


def open_shared(
    url: str,
    *,
    namespace: str = "nbllm",
    cache_size_bytes: int = DEFAULT_SIZE_BYTES,
    on_state_loss: OnStateLoss = "refuse",
) -> Shared:
    """Return what is shared on a Redis: redis://, rediss:// or unix://. Raises ConfigurationError for another URL.

    namespace: what all keys begin with; apps that are to share nothing need one each. on_state_loss: what budgets do while Redis
    does not answer: "refuse" attempts that a hard budget should hold (BudgetUnavailable), or "allow" them and book them later.
    """
    link = Link(url, namespace=namespace)
    return Shared(
        link=link,
        store=RedisResponseStore(link, size_limit_bytes=cache_size_bytes),
        flights=RedisFlights(link),
        budgets=RedisBudgets(link, on_state_loss=on_state_loss),
        breaker_states=RedisState(link, "breaker", BREAKERS),
        bucket_states=RedisState(link, "bucket", BUCKETS),
    )
