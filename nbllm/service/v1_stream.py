"""A call as a stream of OpenAI's chunks. Its status is decided by its first piece: what fails before that is an error as any other.

An answer cannot be taken back once it is on its way, so a stream that breaks ends with an event that holds the error, and without
[DONE]. A client that leaves, or is cut, ends the call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from starlette.requests import Request as HttpRequest
from starlette.types import Send

from nbllm.background import mailbox_of
from nbllm.core.messages import Attempt, Delta, Request
from nbllm.core.reply import Reply
from nbllm.providers.served_answer import DONE, ChunkWriter, error_event
from nbllm.service.context import Service, exchange_of
from nbllm.service.failures import log_failure
from nbllm.service.problems import ServiceProblem, openai_body, problem_of
from nbllm.service.v1_endpoint import STREAM_HEADERS, header_text, told


class Restarted(ServiceProblem):
    """The answer begins anew, and part of it is with the client already."""

    def __init__(self, reason: str) -> None:
        super().__init__(502, "upstream-interrupted", "The answer broke off and began anew.", f"({reason})")


class Pieces:
    """A Sink: pieces wait here for whoever sends them on. Called on the client's loop, which may be another one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: deque[Delta] = deque()
        self.bell = asyncio.Event()
        self.attempt: Attempt | None = None
        self.restart: str | None = None
        self._loop = loop
        self._post = mailbox_of(loop).post
        self._any = False

    def started(self, attempt: Attempt) -> None:
        """Know who is asked."""
        self.attempt = attempt

    def delta(self, delta: Delta) -> None:
        """Keep a piece."""
        self._any = True
        self.waiting.append(delta)
        self._ring()

    def restarted(self, reason: str) -> None:
        """Know that what came is void; while nothing came, that changes nothing."""
        if self._any:
            self.restart = reason
            self._ring()

    def _ring(self) -> None:
        if asyncio.get_running_loop() is self._loop:
            self.bell.set()
        else:
            self._post(self.bell.set)


async def stream_answer(service: Service, http: HttpRequest, send: Send, request: Request, *, counted: bool, model: str) -> None:
    """Send the request and its answer as it comes. counted: the last chunk before [DONE] holds the usage. model: as it was asked.

    Raises what the call raises before its first piece; afterwards that is said in the stream.
    """
    pieces = Pieces(asyncio.get_running_loop())
    call = asyncio.create_task(service.client.asend(request, pieces))
    call.add_done_callback(lambda _: pieces.bell.set())
    sending = _Sending(send, pieces, model, exchange_of(http).request_id)
    try:
        await _pump(call, pieces, sending)
        await sending.end(call.result(), counted=counted)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if not sending.began:
            raise
        problem = problem_of(error)
        exchange_of(http).noted["problem"] = problem.type
        log_failure(exchange_of(http).request_id, error, problem, say_why=service.config.log_prompts)
        await sending.broke(error_event(openai_body(problem)))
    finally:
        if not call.done():
            call.cancel()
            await asyncio.wait([call])
        if not call.cancelled():
            call.exception()  # looked at: it is told already, or nobody is there any more


async def _pump(call: asyncio.Task[Reply], pieces: Pieces, sending: _Sending) -> None:
    """Send pieces on until the call is over; all that came in one turn of the loop goes out in one piece."""
    waiting, bell = pieces.waiting, pieces.bell
    while True:
        over = call.done()
        if pieces.restart is not None:
            raise Restarted(pieces.restart)
        if waiting:
            await sending.pieces(waiting, call)
        if over:
            return
        await bell.wait()
        bell.clear()


class _Sending:
    """The response as it goes out."""

    def __init__(self, send: Send, pieces: Pieces, model: str, request_id: str) -> None:
        self._send = send
        self._named = model, request_id
        self._pieces = pieces
        self._writer: ChunkWriter | None = None

    @property
    def began(self) -> bool:
        """Whether status and headers are on their way."""
        return self._writer is not None

    async def pieces(self, waiting: deque[Delta], call: asyncio.Task[Reply]) -> None:
        """Send what waits."""
        writer = self._writer or await self._begin(call.result() if call.done() and not call.cancelled() else None)
        write: Callable[[Delta], bytes] = writer.delta
        chunks = [write(waiting.popleft()) for _ in range(len(waiting))]
        await self._body(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    async def end(self, reply: Reply, *, counted: bool) -> None:
        """Send what comes after the last piece."""
        writer = self._writer or await self._begin(reply)
        last = writer.last(reply.finish_reason, {"nbllm": told(reply)})
        await self._body(last + (writer.usage(reply.usage) if counted else b"") + DONE, more=False)

    async def broke(self, event: bytes) -> None:
        """Send the event that ends a stream that broke."""
        await self._body(event, more=False)

    async def _begin(self, reply: Reply | None) -> ChunkWriter:
        """Send status and headers. reply: a hit, or an answer that came all at once."""
        attempt = self._pieces.attempt
        if reply is not None:
            rung, model, identity, source = reply.rung, reply.model, reply.call_id, reply.source
        elif attempt is not None:
            rung, model, identity, source = attempt.rung, attempt.model, attempt.call_id, "model"
        else:  # the pieces are another call's, which was under way already
            (rung, identity), model, source = self._named, self._named[0], "model"
        said = ((b"x-model", model), (b"x-rung", rung), (b"x-source", source))
        headers = [*STREAM_HEADERS, *((name, header_text(value)) for name, value in said)]
        writer = self._writer = ChunkWriter({"id": f"chatcmpl-{identity}", "created": int(time.time()), "model": rung})
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._body(writer.first())
        return writer

    async def _body(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
