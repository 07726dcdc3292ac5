"""One run of a flow as a stream of events: the same for SSE, WebSocket and whoever else shows a run as it goes.

started, delta, restarted: of the flow's calls, each with the call's number; then reply or error, once, as the last.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from pydantic import BaseModel

from nbllm.background import mailbox_of
from nbllm.service.caller import Caller
from nbllm.service.context import Service
from nbllm.service.failures import log_failure
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_watch import CallsMade, Event, Follower
from nbllm.service.problems import Problem, ServiceProblem, problem_of, problem_response

MOST_WAITING = 20_000
"""Events that wait for a slow reader; with more the run is ended."""
PING_S = 15.0
"""A stream is silent for so long at most."""
_MODEL, _RUNG, _SOURCE, _COST, _CALLS = ANSWER_HEADERS = ("X-Model", "X-Rung", "X-Source", "X-Cost-Usd", "X-Calls")


async def run_events(
    service: Service, spec: FlowSpec, arguments: BaseModel, caller: Caller, *, request_id: str
) -> AsyncGenerator[Event | None, None]:
    """Run a flow and yield its events; None when nothing happened for PING_S seconds. Leaving early ends the run."""
    mailbox = mailbox_of(asyncio.get_running_loop())
    waiting: deque[Event] = deque()
    bell = asyncio.Event()

    def arrived(event: Event) -> None:
        waiting.append(event)
        bell.set()
        if len(waiting) > MOST_WAITING:  # the reader is stuck in a write that goes nowhere: nobody else could end the run
            run.cancel()

    follower = Follower(lambda event: mailbox.post(lambda: arrived(event)))
    with service.paying(caller, "flow"):
        run = asyncio.create_task(service.runner.run(spec, arguments, follower))
    run.add_done_callback(lambda _: bell.set())
    try:
        while True:
            over = run.done()
            while waiting:
                yield waiting.popleft()
            if over:
                break
            try:
                async with asyncio.timeout(PING_S):
                    await bell.wait()
            except TimeoutError:
                yield None
            bell.clear()
        yield Event("reply", {"result": msgspec.Raw(_outcome(run)), **shown(follower.made())})
    except Exception as exc:
        problem = problem_of(exc)
        log_failure(request_id, exc, problem, say_why=service.config.log_prompts)
        yield Event("error", problem_data(problem, request_id))
    finally:
        if not run.done():
            run.cancel()
        await asyncio.wait([run])
        if not run.cancelled():
            run.exception()


def _outcome(run: asyncio.Task[bytes]) -> bytes:
    if run.cancelled():
        raise ServiceProblem(408, "slow-reader", "The stream was read too slowly.", f"More than {MOST_WAITING} events waited.")
    return run.result()


def encoded(event: Event) -> bytes:
    """Return an event's data as JSON, on one line."""
    return msgspec.json.encode(event.data)


def problem_data(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return a problem as its response would have it."""
    data: dict[str, Any] = json.loads(bytes(problem_response(problem, request_id).body))
    if problem.retry_after_s is not None:
        data["retry_after_s"] = problem.retry_after_s
    return data


def shown(made: CallsMade) -> dict[str, Any]:
    """Return what a run's calls were, for the end of a stream. cost_usd is a decimal text, null when unknown."""
    return {
        "calls": made.calls,
        "models": made.models,
        "rungs": made.rungs,
        "sources": made.sources,
        "input_tokens": made.input_tokens,
        "output_tokens": made.output_tokens,
        "cost_usd": None if made.cost_usd is None else f"{made.cost_usd:f}",
    }


def answer_headers(made: CallsMade) -> dict[str, str]:
    """Return the headers that say what a run's calls were: models, rungs, sources, cost ("unknown" when it is), number."""
    said = {_MODEL: made.models, _RUNG: made.rungs, _SOURCE: made.sources}
    headers = {name: _plain(", ".join(values)) for name, values in said.items() if values}
    cost = "unknown" if made.cost_usd is None else f"{made.cost_usd:f}"
    return headers | {_COST: cost, _CALLS: str(made.calls)}


def _plain(text: str) -> str:
    """Return text that may stand in a header: names come from servers."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:500]
