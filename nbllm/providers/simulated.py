"""`sim/small` and `sim/large`: simulated models with realistic, seeded pace, prices and answers, and faults on request.

No model answers here, no network is used and no key is needed. The same seed, prompt, parameters and sample give the same text at
the same pace on every machine. What a fault looks like to the caller is what openai_compatible makes of the real one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypedDict

from nbllm import errors
from nbllm.core import waits
from nbllm.core.messages import Chat, Delta, Embed, Ending, ToolCallFragment, Usage
from nbllm.core.ports import Progress, Wire
from nbllm.core.pricing import estimate_tokens
from nbllm.providers.sim_answer import SimAnswer, answer, input_tokens, schema_of, seed_of
from nbllm.providers.sim_faults import context_error, refusal, with_fault
from nbllm.providers.sim_options import SimOptions, parse
from nbllm.providers.sim_pace import first_token_s, gaps_s, logprob, tokens
from nbllm.providers.sim_reading import message_text

IDENTITY = "simulated-1"
"""What stands for the simulator in cache keys: a later version that answers differently gets another number."""
REFUSAL_S = 0.04
"""How long a simulated endpoint takes to refuse."""
REMEMBERED_PROMPTS = 10_000
_COMMON_TOKENS = (
    " the",
    " a",
    ",",
    ".",
    " of",
    " and",
    " to",
    "\n",
    " in",
    " is",
    " for",
    " with",
    " that",
    " on",
    " as",
    " by",
    " it",
    " was",
    " at",
    "s",
    "-",
)
Sleep = Callable[[float], Awaitable[object]]


def speed_from(environ: Mapping[str, str]) -> float:
    """Return NBLLM_SIM_SPEED: 1 is a model's usual pace, 10 ten times as fast, 0 no waiting at all."""
    text = environ.get("NBLLM_SIM_SPEED", "1").strip() or "1"
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise errors.ConfigurationError(
            f"NBLLM_SIM_SPEED must be a number from 0, not {text!r}.",
            hint="1 is a model's usual pace, 10 ten times as fast, 0 no waiting at all.",
        )
    return speed


class Simulated:
    """A Provider without a model. `speed` as in NBLLM_SIM_SPEED; silences and drips on request are not shortened by it.

    How often each prompt was tried is remembered for `fault_times` and `fault_rate`, for this instance.
    """

    def __init__(self, *, speed: float = 1.0, sleep: Sleep = asyncio.sleep) -> None:
        self._speed = speed
        self._sleep = sleep
        self._tries: OrderedDict[str, int] = OrderedDict()

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Play one request: UnknownModel for a name that cannot be, then the fault that is due, else the answer."""
        options = parse(wire.rung.model)
        if isinstance(wire.content, Embed):
            return await self._embed(wire, wire.content, options, progress)
        return await self._chat(wire, wire.content, options, progress)

    async def aclose(self) -> None:
        """Forget how often prompts were tried; there is no socket to close."""
        self._tries.clear()

    async def _chat(self, wire: Wire, chat: Chat, options: SimOptions, progress: Progress) -> Ending:
        seed = seed_of(chat, options)
        fault = self._fault_due(options, wire.rung.model, first_prompt(chat))
        await self._refuse_early(fault, wire, options, progress)
        progress.sent()
        sent_tokens = input_tokens(chat)
        if fault == "context" or sent_tokens > options.model.context_tokens:
            await self._wait(REFUSAL_S)
            raise context_error(wire, sent_tokens, options)
        made = with_fault(answer(chat, options, seed), fault, options, sent_tokens, as_json=schema_of(chat) is not None)
        pace = _Pace(options, fault, seed, sent_tokens, chat.logprobs)
        if fault == "stall" or (fault == "stall_mid" and not wire.streamed):
            await self._fall_silent(wire)
        if wire.streamed:
            await self._stream(wire, made, pace, progress)
        else:
            await self._whole(wire, made, pace, progress)
        return Ending(finish_reason=made.finish_reason, usage=made.usage, **_names(options, seed))

    async def _refuse_early(self, fault: str | None, wire: Wire, options: SimOptions, progress: Progress) -> None:
        """Raise what an endpoint answers instead of an answer, if that is due."""
        if fault == "refused":
            await self._wait(0.001)
        refused = refusal(fault, wire, options)
        if refused is not None:
            if fault != "refused":
                progress.sent()
                await self._wait(REFUSAL_S)
            raise refused

    async def _stream(self, wire: Wire, made: SimAnswer, pace: _Pace, progress: Progress) -> None:
        pieces = list(_deltas(made, pace))
        await self._wait(pace.first_s)
        for number, (delta, gap_s) in enumerate(zip(pieces, pace.gaps(len(pieces)), strict=True)):
            if number == pace.cut_after:
                await self._break_off(wire, pace.fault)
            if number:
                await self._wait(gap_s, even_if_fast=pace.fault == "drip", yield_now=number % 16 == 0)
            progress.delta(delta)
        if pace.cut_after is not None and len(pieces) <= pace.cut_after:
            await self._break_off(wire, pace.fault)

    async def _whole(self, wire: Wire, made: SimAnswer, pace: _Pace, progress: Progress) -> None:
        pieces = list(_deltas(made, pace))
        await self._wait(pace.first_s + sum(pace.gaps(len(pieces))), even_if_fast=pace.fault == "drip")
        if pace.fault == "cut":
            raise errors.ConnectionFailed(f"{wire.rung.label} closed the connection in mid-answer.", rung=wire.rung.id)
        if pace.fault == "eof":
            raise errors.BadAnswer(f"{wire.rung.label} ended its answer before it was complete.", rung=wire.rung.id)
        if made.reasoning or made.text:
            entries = tuple(entry for delta in pieces for entry in delta.logprobs)
            progress.delta(Delta(made.text, made.reasoning, None, entries))
        for index, (call_id, name, arguments) in enumerate(made.tool_calls):
            progress.delta(Delta(tool_call=ToolCallFragment(index, call_id, name, arguments)))

    async def _break_off(self, wire: Wire, fault: str | None) -> None:
        if fault == "stall_mid":
            await self._fall_silent(wire)
        how = "closed the connection" if fault == "cut" else "ended the stream without a finish reason"
        raise errors.StreamInterrupted(f"{wire.rung.label} {how} in mid-answer.", rung=wire.rung.id)

    async def _fall_silent(self, wire: Wire) -> None:
        await self._sleep(wire.deadline_s)
        raise errors.AttemptTimeout(f"{wire.rung.label} sent nothing for {wire.deadline_s:.3g} s.", rung=wire.rung.id)

    async def _embed(self, wire: Wire, content: Embed, options: SimOptions, progress: Progress) -> Ending:
        from nbllm.providers.sim_embedding import embed

        fault = self._fault_due(options, wire.rung.model, "\n".join(content.texts[:4]))
        await self._refuse_early(fault, wire, options, progress)
        progress.sent()
        if fault in {"stall", "stall_mid"}:
            await self._fall_silent(wire)
        seed = hashlib.sha256("\0".join(content.texts).encode("utf-8", "surrogatepass")).hexdigest()
        counts = Usage(input_tokens=sum(map(estimate_tokens, content.texts)), output_tokens=0)
        await self._wait(first_token_s(options, counts.input_tokens or 0, Random(seed)))
        vectors = []
        for number, text in enumerate(content.texts):
            if number % 16 == 15:
                await self._sleep(0)
            vectors.append(embed(text, options.model.name))
        return Ending(finish_reason="stop", usage=counts, vectors=tuple(vectors), **_names(options, seed))

    async def _wait(self, wait_s: float, *, even_if_fast: bool = False, yield_now: bool = True) -> None:
        at_once = waits.skipped() or not self._speed
        paced_s = wait_s if even_if_fast else 0.0 if at_once else wait_s / self._speed
        if paced_s > 0 or yield_now:
            await self._sleep(paced_s)

    def _fault_due(self, options: SimOptions, model: str, prompt: str) -> str | None:
        """Return the fault that this try of this prompt meets, None for none."""
        if options.fault is None:
            return None
        key = hashlib.sha256(f"{model}\0{prompt}".encode("utf-8", "surrogatepass")).hexdigest()
        number = self._tries[key] = self._tries.pop(key, 0) + 1
        while len(self._tries) > REMEMBERED_PROMPTS:
            self._tries.popitem(last=False)
        if options.fault_times is not None and number > options.fault_times:
            return None
        return options.fault if Random(f"{options.seed}:{key}:{number}").random() < options.fault_rate else None


@dataclass(frozen=True, slots=True)
class _Pace:
    """How one answer comes."""

    options: SimOptions
    fault: str | None
    seed: str
    input_tokens: int
    logprobs: bool | int | None

    @property
    def cut_after(self) -> int | None:
        return self.options.after_tokens if self.fault in {"stall_mid", "cut", "eof"} else None

    @property
    def first_s(self) -> float:
        wait_s = first_token_s(self.options, self.input_tokens, Random(f"{self.seed}:first"))
        return 8 * wait_s if self.fault == "slow" else wait_s

    def gaps(self, count: int) -> Iterator[float]:
        if self.fault == "drip":
            return iter([self.options.drip_s] * count)
        slower = 8 if self.fault == "slow" else 1
        return (slower * gap for gap in gaps_s(self.options, count, Random(f"{self.seed}:gaps")))


class _Names(TypedDict):
    model: str
    request_id: str


def _names(options: SimOptions, seed: str) -> _Names:
    return {"model": f"sim-{options.model.name}", "request_id": f"sim-{seed[:16]}"}


def first_prompt(chat: Chat) -> str:
    """Return what counts as one prompt for fault_times: the first user message, so that a repair of its answer is a further try."""
    return next((message_text(message) for message in chat.messages if message.get("role") == "user"), "")


def _deltas(made: SimAnswer, pace: _Pace) -> Iterator[Delta]:
    """Yield the answer token by token: reasoning, text, tool calls."""
    for piece in tokens(made.reasoning):
        yield Delta(reasoning=piece)
    said = tokens(made.text)
    random = Random(f"{pace.seed}:logprobs")
    rivals = list(dict.fromkeys(said)) if pace.logprobs else []
    for piece in said:
        if pace.logprobs is None or pace.logprobs is False:
            yield Delta(text=piece)
        else:
            others = [*random.sample(rivals, min(len(rivals), 21)), *_COMMON_TOKENS]
            yield Delta(text=piece, logprobs=(logprob(piece, pace.logprobs, others, random),))
    for index, (call_id, name, arguments) in enumerate(made.tool_calls):
        yield Delta(tool_call=ToolCallFragment(index, call_id, name))
        for piece in tokens(arguments):
            yield Delta(tool_call=ToolCallFragment(index, arguments=piece))
