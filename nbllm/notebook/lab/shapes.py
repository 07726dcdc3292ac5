"""What a message holds, as types: bounded numbers and strings, and the state that the JupyterLab extension shows.

Money is a string of a decimal number of USD, None where unknown. No field holds a prompt, an answer or a key.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

VERSION = 1
MOST_CALLS = 200
MOST_RUNNING = 50
MOST_LATENCIES = 60
MOST_NAME_CHARS = 200
"""Of names and reasons, in Unicode code points, not in JavaScript's units."""
MOST_TEXT_CHARS = 2_000
MOST_REPORT_CHARS = 200_000

Version = Annotated[int, Field(ge=VERSION, le=VERSION)]  # a Literal[1] would take True
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""What JavaScript can hold without loss."""
Money = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,12})?$")]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since 1970."""
Speed = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Pace = Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=MOST_NAME_CHARS)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(max_length=MOST_TEXT_CHARS)]
Report = Annotated[str, Field(max_length=MOST_REPORT_CHARS)]
Path = Annotated[str, Field(max_length=4096)]
Tag = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""A notebook: the first 16 hex digits of the SHA-256 of its path."""

CacheMode = Literal["use", "refresh", "off"]
CallSource = Literal["model", "cache", "semantic", "stale", "static"]
Status = Literal["done", "failed", "cancelled", "unknown"]
Breaker = Literal["closed", "half open", "open", "off"]
Level = Literal["ok", "soft", "hard"]
EngineState = Literal["ready", "starting", "stopped", "wedged", "failed"]


class SessionNumbers(TypedDict):
    """What this kernel process has used so far. cost_usd sums what is known; cost_known: nothing is missing in it."""

    cost_usd: Money
    cost_known: bool
    simulated_usd: Money
    input_tokens: Count
    output_tokens: Count
    calls: Count
    hits: Count
    saved_usd: Money
    failed: Count
    running: Count
    tokens_per_s: Speed | None
    latency_s: Annotated[list[Seconds], Field(max_length=MOST_LATENCIES)]


class Today(TypedDict):
    """This UTC day, all processes that share the home. cost_usd sums what is known."""

    cost_usd: Money | None
    calls: Count


class Budget(TypedDict):
    """One budget: what is spent of it, what is held by calls under way, its limits (None: none) and how it stands."""

    scope: Name
    spent_usd: Money
    reserved_usd: Money
    hard_usd: Money | None
    soft_usd: Money | None
    level: Level


class Running(TypedDict):
    """One call under way. shared: others wait for the same run, which a stop of this call does not end."""

    call_id: Id
    model: Name
    rung: Name | None
    started_at: Time
    elapsed_s: Seconds
    output_tokens: Count
    ttft_s: Seconds | None
    cell_id: Name | None
    notebook: Tag | None
    shared: bool
    stoppable: bool


class CallLine(TypedDict):
    """One call that is over. cell_id and notebook: where it was asked, None outside of a notebook."""

    call_id: Id
    started_at: Time
    model: Name
    rung: Name | None
    source: CallSource | None
    status: Status
    error: Name | None
    feature: Name | None
    ttft_s: Seconds | None
    latency_s: Seconds | None
    cost_usd: Money | None
    saved_usd: Money | None
    input_tokens: Count | None
    output_tokens: Count | None
    cell_id: Name | None
    notebook: Tag | None
    route: Name | None
    reason: Name | None
    simulated: bool


class EndpointModel(TypedDict):
    """One model of an endpoint and its breaker."""

    model: Name
    breaker: Breaker


class Engine(TypedDict):
    """A model server that %serve looks after; running and waiting: its requests."""

    state: EngineState
    running: Count | None
    waiting: Count | None


class EndpointLine(TypedDict):
    """One endpoint: error_rate of this session's attempts, and the room that its own limits leave just now."""

    name: Name
    models: Annotated[list[EndpointModel], Field(max_length=50)]
    error_rate: Rate | None
    attempts: Count
    requests_left: Count | None
    tokens_left: Count | None
    engine: Engine | None


Budgets = Annotated[list[Budget], Field(max_length=100)]
RunningCalls = Annotated[list[Running], Field(max_length=MOST_RUNNING)]
Calls = Annotated[list[CallLine], Field(max_length=MOST_CALLS)]
"""In a snapshot newest first: by started_at, then by call_id, both descending."""
EndpointLines = Annotated[list[EndpointLine], Field(max_length=50)]


class State(TypedDict):
    """Everything that the extension shows. cache_mode is that of the asking comm's notebook; None: as the settings say."""

    session: SessionNumbers
    today: Today
    budgets: Budgets
    running: RunningCalls
    calls: Calls
    endpoints: EndpointLines
    cache_mode: CacheMode | None


class Change(TypedDict):
    """What is new of a state: whole members, but of `calls` only the rows that are new or have changed, by call_id."""

    session: NotRequired[SessionNumbers]
    today: NotRequired[Today]
    budgets: NotRequired[Budgets]
    running: NotRequired[RunningCalls]
    calls: NotRequired[Calls]
    endpoints: NotRequired[EndpointLines]
    cache_mode: NotRequired[CacheMode | None]
