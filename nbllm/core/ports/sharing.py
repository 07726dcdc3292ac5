"""Money and small states that calls, threads and processes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol, TypeVar

from msgspec import Struct

S = TypeVar("S")
T = TypeVar("T")


class Scope(Struct, frozen=True, gc=False):
    """One budget that an attempt pays into: a name such as "session:<id>", "feature:summaries", "day:2026-11-21"."""

    name: str
    hard_usd: Decimal | None = None
    soft_usd: Decimal | None = None


class Balance(Struct, frozen=True, gc=False):
    """spent + reserved against a scope, at one moment."""

    spent_usd: Decimal
    reserved_usd: Decimal


class BudgetStore(Protocol):
    """Money spent and reserved per scope, exact to the picodollar, shared by all processes on one home."""

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        """Reserve in all scopes or in none, in one transaction; return the balances after it, maybe without unlimited scopes.

        Raises BudgetExceeded for the first scope where spent + reserved + amount > hard_usd (or spent >= hard_usd), and
        BudgetUnavailable when it cannot be checked.
        """

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        """Book the true cost in all scopes and drop the reservation; without one (nothing was reserved) only book.

        An id is booked once: a second settle changes nothing. It is booked even if its caller stops waiting for it. Returns the
        balances after it; of scopes without any limit it may leave them out.
        """

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances; a scope never seen is zero."""

    def close(self) -> None:
        """Let go of the files."""


class SharedState(Protocol[S]):
    """Small states by key (a breaker, a token bucket), changed atomically. In this process, or shared by a backend."""

    async def apply(self, key: str, change: Callable[[S | None], tuple[S, T]]) -> T:
        """Replace the state by what `change` returns for it (None: none yet) and return its result. `change` is pure."""

    async def read(self, key: str) -> S | None:
        """Return the state, or None."""
