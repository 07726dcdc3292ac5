"""What lasts or is shared, and the outside world, as Protocols. tests/conformance holds every implementation to them.

Nothing here may stall the loop that calls it: an implementation that has to wait says so by being awaited.
"""

from __future__ import annotations

from nbllm.core.ports.answers import CacheStats, Flights, Lease, ResponseStore, Stored
from nbllm.core.ports.ledger import Filter, Ledger, Recording, Recordings, Series, Turn, UsageRow, Written
from nbllm.core.ports.provider import Progress, Provider, RateLimits, Wire
from nbllm.core.ports.semantic import AT_LEAST, Neighbour, VectorIndex, VectorRow, VectorStats
from nbllm.core.ports.sharing import Balance, BudgetStore, Scope, SharedState

__all__ = [
    "AT_LEAST",
    "Balance",
    "BudgetStore",
    "CacheStats",
    "Filter",
    "Flights",
    "Lease",
    "Ledger",
    "Neighbour",
    "Progress",
    "Provider",
    "RateLimits",
    "Recording",
    "Recordings",
    "ResponseStore",
    "Scope",
    "Series",
    "SharedState",
    "Stored",
    "Turn",
    "UsageRow",
    "VectorIndex",
    "VectorRow",
    "VectorStats",
    "Wire",
    "Written",
]
