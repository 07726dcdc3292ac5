"""Public fakes for testing what is built on nbllm: no network, no key, no waiting.

Testing a flow, the whole road included, with answers of your choice:

    from nbllm.testing import FakeProvider, offline

    @offline()
    def test_summary(tmp_path):
        fake = FakeProvider().enqueue("A short summary.")
        with Client(home=tmp_path, providers={"simulated": fake}) as client:
            assert client.ask("Summarise ...", model="sim/small").text == "A short summary."
        assert fake.requests[0].content.messages[-1]["content"] == "Summarise ..."

Testing asyncio code of your own in virtual time: `run_virtual(coroutine())`; an hour of sleeping takes microseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from nbllm._offline import NetworkBlocked, offline
from nbllm._virtual_time import Deadlock, FakeClock, VirtualTimeLoop, run_virtual
from nbllm.core.messages import Delta, Embed, Ending, Usage
from nbllm.core.ports import Progress, RateLimits, Wire
from nbllm.errors import AttemptFailed, ConnectionFailed

__all__ = [
    "Deadlock",
    "FakeClock",
    "FakeProvider",
    "NetworkBlocked",
    "Script",
    "Step",
    "UnexpectedRequest",
    "VirtualTimeLoop",
    "offline",
    "run_virtual",
]


class UnexpectedRequest(AssertionError):
    """A strict FakeProvider got a request for which no answer was enqueued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer played piece by piece. Times are seconds on the event loop's clock.

    pieces: texts or Deltas. first_after_s: before the first piece; gap_s: between pieces; end_after_s: between the last piece and
    the end. then: how it ends, an Ending or an error (None: finish "stop", or "tool_calls" where a piece holds one). hang: never
    end. sent: False plays a failure that never reached a socket. limits: what the headers say.
    """

    pieces: Sequence[str | Delta] = ()
    first_after_s: float = 0.0
    gap_s: float = 0.0
    end_after_s: float = 0.0
    then: Ending | BaseException | type[BaseException] | None = None
    hang: bool = False
    sent: bool = True
    limits: RateLimits | None = None

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """The pieces as Deltas."""
        return tuple(Delta(text=piece) if isinstance(piece, str) else piece for piece in self.pieces)


Answer = str | Sequence[Delta] | Ending | BaseException | type[BaseException] | Script
Step = Answer | Callable[[Wire], Answer]
"""What a FakeProvider does with one request: a text, Deltas, a bare Ending, an error (class or instance), a Script, or a function
of the request that returns one of these."""


class FakeProvider:
    """A Provider that answers from a queue and keeps the requests it got, as Wire, in `.requests`.

    Without anything enqueued it answers `default`; with strict=True it raises UnexpectedRequest instead. Asked for a whole answer
    it gives what a real one would: all at once at the end, and nothing at all when it fails. Embeddings are unit vectors of
    `dimensions` floats made from a hash of the text, so that equal texts are equal and others are not.

    cancelled: requests that were given up; in_flight and peak_in_flight: at once; closed: aclose() was called.
    """

    def __init__(self, *steps: Step, default: Step = "ok", strict: bool = False, dimensions: int = 8) -> None:
        self.requests: list[Wire] = []
        self.cancelled = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.closed = False
        self.unexpected = 0
        self._queue: deque[Step] = deque(steps)
        self._default = default
        self._strict = strict
        self._dimensions = dimensions

    @property
    def calls(self) -> int:
        """How many requests came."""
        return len(self.requests)

    @property
    def left(self) -> int:
        """How many enqueued steps nobody asked for yet."""
        return len(self._queue)

    def enqueue(self, *steps: Step) -> Self:
        """Add answers, first come first served; return the provider, so that it reads as one line."""
        self._queue.extend(steps)
        return self

    def assert_done(self) -> None:
        """Raise AssertionError unless every enqueued answer was used and no other was asked for."""
        if self._queue or self.unexpected:
            raise AssertionError(
                f"{len(self._queue)} enqueued answers were not used and {self.unexpected} of {self.calls} requests found none."
            )

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Play the next step. Cancellation ends it at once."""
        self.requests.append(wire)
        script = self._next(wire)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._play(script, wire, progress)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        """Remember that it was closed; there is no socket to close."""
        self.closed = True

    def _next(self, wire: Wire) -> Script:
        step: Step
        if self._queue:
            step = self._queue.popleft()
        elif self._strict:
            self.unexpected += 1
            raise UnexpectedRequest(
                f"Request number {self.calls}, to {wire.rung.id!r}, found no answer left. Enqueue one more, or find out who asked."
            )
        else:
            step = self._default
        answer = step(wire) if callable(step) and not isinstance(step, type) else step
        return self._script(answer, wire)

    def _script(self, answer: Answer, wire: Wire) -> Script:
        if isinstance(answer, Script):
            return answer
        if isinstance(answer, str):
            if isinstance(wire.content, Embed):
                return Script(then=self._embedded(wire.content))
            return Script(pieces=(answer,))
        if isinstance(answer, Ending):
            return Script(then=answer)
        if isinstance(answer, BaseException | type):
            unsent = isinstance(answer, ConnectionFailed) and answer.whole_endpoint
            return Script(then=answer, sent=not unsent)
        return Script(pieces=answer)

    async def _play(self, script: Script, wire: Wire, progress: Progress) -> Ending:
        if script.sent:
            progress.sent()
        if script.limits is not None:
            progress.limits(script.limits)
        deltas = script.deltas
        if wire.streamed:
            for number, delta in enumerate(deltas):
                await _pause(script.gap_s if number else script.first_after_s)
                progress.delta(delta)
            await _pause(script.end_after_s)
        else:
            await _pause(script.first_after_s + script.gap_s * max(0, len(deltas) - 1) + script.end_after_s)
        if script.hang:
            await asyncio.get_running_loop().create_future()
        if script.then is not None and not isinstance(script.then, Ending):
            raise _error(script.then, wire)
        if not wire.streamed:
            for delta in _whole(deltas):
                progress.delta(delta)
        return script.then or _ending(deltas, wire)

    def _embedded(self, content: Embed) -> Ending:
        vectors = tuple(_vector(text, self._dimensions) for text in content.texts)
        return Ending(finish_reason="stop", usage=Usage(input_tokens=sum(_tokens(text) for text in content.texts)), vectors=vectors)


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _error(error: BaseException | type[BaseException], wire: Wire) -> BaseException:
    if not isinstance(error, type):
        return error
    if issubclass(error, AttemptFailed):
        return error(f"{error.__name__}, as the test asked for.", rung=wire.rung.id)
    return error(f"{error.__name__}, as the test asked for.")


def _whole(deltas: Sequence[Delta]) -> list[Delta]:
    """One piece for all the text; each further tool-call fragment needs a Delta of its own, because a Delta holds one."""
    if not deltas:
        return []
    calls = [delta.tool_call for delta in deltas if delta.tool_call is not None]
    first = Delta(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        logprobs=tuple(token for delta in deltas for token in delta.logprobs),
        tool_call=calls[0] if calls else None,
    )
    return [first, *(Delta(tool_call=call) for call in calls[1:])]


def _tokens(text: str) -> int:
    return max(1, len(text.split()))


def _ending(deltas: Sequence[Delta], wire: Wire) -> Ending:
    """A complete answer with plausible exact counts: one token a word."""
    asked = str(wire.content.texts if isinstance(wire.content, Embed) else [m.get("content") for m in wire.content.messages])
    said = "".join(delta.text for delta in deltas)
    thought = "".join(delta.reasoning for delta in deltas)
    return Ending(
        finish_reason="tool_calls" if any(delta.tool_call for delta in deltas) else "stop",
        usage=Usage(
            input_tokens=_tokens(asked),
            output_tokens=_tokens(said) + (_tokens(thought) if thought else 0),
            reasoning_tokens=_tokens(thought) if thought else None,
        ),
        model=wire.rung.model,
        request_id=f"fake-{wire.attempt_id}" if wire.attempt_id else None,
    )


def _vector(text: str, dimensions: int) -> tuple[float, ...]:
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    raw = [int.from_bytes(digest[2 * i : 2 * i + 2], "big") - 32767.5 for i in range(dimensions)]
    norm = sum(x * x for x in raw) ** 0.5
    return tuple(x / norm for x in raw)
