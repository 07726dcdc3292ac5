"""Requests, rungs and inner stages for testing one stage alone, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from nbllm import Endpoint
from nbllm.core.messages import Attempt, AttemptStatus, Call, Chat, Delta, Options, Request, Rung, Sink
from nbllm.core.pricing import Price
from nbllm.core.reply import Reply
from nbllm.pipeline.stage import Clock
from nbllm.testing import Script

PRICE = Price(Decimal(1), Decimal(2))
INTEGER = {"type": "integer"}
ASK = {"json_schema": INTEGER, "schema_type": INTEGER}
X_SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
SLOW = Script(pieces=["one ", "two ", "three"], first_after_s=1, gap_s=1)


@dataclass
class Even:
    """Stricter than X_SCHEMA: an odd x has the right shape and is refused all the same."""

    x: int

    def __post_init__(self) -> None:
        if self.x % 2:
            raise ValueError("odd")


def slow(text: str = "an answer", takes_s: float = 2.0) -> Script:
    """An answer in one piece, which takes its time."""
    return Script(pieces=[text], first_after_s=takes_s)


def rung(name: str = "one", model: str = "m", **endpoint: Any) -> Rung:
    """A rung on an endpoint of that name."""
    return Rung(
        id=f"{name}/{model}",
        model=model,
        endpoint_name=name,
        endpoint=Endpoint(base_url=f"http://127.0.0.1:1/{name}/v1", **endpoint),
        provider="openai_compatible",
        identity=name,
        price=PRICE,
        context_tokens=8192,
        max_output_tokens=1000,
    )


def clock(jitter: float = 0.5) -> Clock:
    """The running loop's own time, and no chance."""
    loop = asyncio.get_running_loop()
    return Clock(now_s=loop.time, epoch_s=lambda: 1_767_225_600.0 + loop.time(), jitter=lambda: jitter)


def request(*rungs: Rung, text: str = "hello", call_id: str = "c1", deadline_s: float = 300.0, **options: Any) -> Request:
    """An opened request; with one rung it stands on it."""
    chosen = rungs or (rung(),)
    now_s = asyncio.get_running_loop().time()
    opts = Options(deadline_s=deadline_s, **options)
    call = Call(
        call_id=call_id, session="s", started_at=0.0, started_s=now_s, deadline_at_s=now_s + deadline_s, payer=opts, key=None
    )
    made = Request(content=Chat(messages=({"role": "user", "content": text},)), options=opts, rungs=chosen, call=call)
    return made.on(chosen[0], rungs_left=1) if len(chosen) == 1 else made


def reply(text: str = "ok", at: Rung | None = None, **fields: Any) -> Reply:
    """A good answer."""
    where = at or rung()
    return Reply(
        text=text,
        model=where.model,
        rung=where.id,
        source="model",
        call_id="c1",
        **{"finish_reason": "stop", "message": {"role": "assistant", "content": text}, **fields},
    )


Step = str | Reply | BaseException | Callable[[Request, Sink], Any]


class Inner:
    """The stage below: plays steps, keeps the requests; each is booked as one attempt."""

    def __init__(self, *steps: Step, took_s: float = 0.0) -> None:
        self.steps = list(steps)
        self.requests: list[Request] = []
        self.took_s = took_s
        self.times: list[float] = []

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if self.took_s:
            await asyncio.sleep(self.took_s)
        book(request, failed=isinstance(step, BaseException))
        if callable(step) and not isinstance(step, BaseException):
            result = step(request, sink)
            return await result if asyncio.iscoroutine(result) else result
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, str):
            sink.delta(Delta(text=step))
            return reply(step, request.rung)
        return step


def book(request: Request, *, failed: bool = False, cost_usd: Decimal | None = Decimal("0.01")) -> None:
    """Add one closed attempt to the request's call."""
    assert request.call is not None
    number = len(request.call.attempts) + 1
    where = request.rung or rung()
    request.call.attempts.append(
        Attempt(
            attempt_id=f"{request.call.call_id}.{number}",
            call_id=request.call.call_id,
            number=number,
            rung=where.id,
            endpoint=where.endpoint_name,
            model=where.model,
            purpose=request.purpose,
            started_at=0.0,
            status=AttemptStatus.FAILED if failed else AttemptStatus.DONE,
            sent=True,
            latency_s=0.1,
            cost_usd=cost_usd,
            cost_basis="exact",
        )
    )


class Watcher:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def started(self, attempt: Attempt) -> None:
        self.events.append("started")

    def delta(self, delta: Delta) -> None:
        self.events.append(delta.text or delta)

    def restarted(self, reason: str) -> None:
        self.events.append(f"restarted: {reason}")

    @property
    def texts(self) -> list[str]:
        """Pieces of text, in order."""
        return [e for e in self.events if isinstance(e, str) and e != "started" and not e.startswith("restarted")]


def with_content(made: Request, **content: Any) -> Request:
    """The same request with other content."""
    return replace(made, content=replace(made.content, **content))


def priced_like(at: Rung, **fields: Any) -> Rung:
    """A rung with other prices or sizes."""
    return replace(at, **fields)
