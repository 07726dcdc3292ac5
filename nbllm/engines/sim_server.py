"""A server for machines without an engine: the simulated models behind real HTTP, with vLLM's paths and names of metrics.

`python -m nbllm.engines.sim_server --model large --name large --port 8000`, on the loopback only. It says that it is simulated in
its list of models and in each answer's fingerprint. A key in NBLLM_SIM_SERVER_KEY guards /v1, as vLLM's does.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from nbllm.core.messages import Delta, Ending, Rung, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.engines.sim_wire import chat_of, whole
from nbllm.errors import AttemptFailed, InvalidRequest, NbllmError
from nbllm.providers.served_answer import DONE, ChunkWriter, model_row
from nbllm.providers.served_body import BadBody, ChatBody, body_of, chat_body
from nbllm.providers.sim_answer import input_tokens
from nbllm.providers.sim_options import parse
from nbllm.providers.simulated import IDENTITY, Simulated, speed_from
from nbllm.settings import Endpoint

MAX_BODY_BYTES = 8_000_000
FINGERPRINT = "simulated"
_DEADLINE_S = 600.0
_KV_BLOCKS_TOKENS = 65_536
"""Tokens that the KV cache of the simulated GPU holds, for its gauge."""


class _Answering:
    """Takes in what the provider tells, as chunks for whoever reads them."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self.deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._numbers = numbers

    def sent(self) -> None:
        """It began."""

    def limits(self, limits: RateLimits) -> None:
        """It has none."""

    def usage(self, usage: Usage) -> None:
        """Counts come with the end."""

    def delta(self, delta: Delta) -> None:
        """A piece came."""
        self._numbers["steps"] += 1
        self.deltas.put_nowait(delta)


class SimServer:
    """The application. model: what stands behind `sim/`; names: what it is called here; key: None for none."""

    def __init__(self, model: str, names: tuple[str, ...], *, key: str | None, max_num_seqs: int, speed: float) -> None:
        parse(model)
        self._names = names
        self._key = key
        self._provider = Simulated(speed=speed)
        self._seats = asyncio.Semaphore(max_num_seqs)
        self._rung = Rung(
            id=f"sim/{model}",
            model=model,
            endpoint_name="sim",
            endpoint=Endpoint(),
            provider="simulated",
            identity=IDENTITY,
            price=None,
        )
        self._numbers = {"running": 0, "waiting": 0, "input": 0, "output": 0, "kv_tokens": 0, "steps": 0}
        self._ended: dict[str, int] = {"stop": 0, "length": 0, "abort": 0, "error": 0}

    def app(self) -> web.Application:
        """Return the application, its routes set."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if self._key and request.path.startswith("/v1") and not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            return _error(401, "Unauthorized", "authentication_error")
        response: web.StreamResponse = await handler(request)
        return response

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        rows = [model_row(name, "nbllm (simulated)") for name in self._names]
        return web.json_response({"object": "list", "data": rows})

    async def _metrics(self, _: web.Request) -> web.Response:
        n, label = self._numbers, f'engine="0",model_name="{self._names[0]}"'
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{label}}} {n['running']}",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{{{label}}} {n['waiting']}",
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{{{label}}} {min(1.0, n['kv_tokens'] / _KV_BLOCKS_TOKENS):.6f}",
            "# TYPE vllm:prompt_tokens_total counter",
            f"vllm:prompt_tokens_total{{{label}}} {n['input']}",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{{{label}}} {n['output']}",
            "# TYPE vllm:iteration_tokens_total histogram",
            f"vllm:iteration_tokens_total_count{{{label}}} {n['steps']}",
            "# TYPE vllm:request_success_total counter",
            *(f'vllm:request_success_total{{{label},finished_reason="{why}"}} {count}' for why, count in self._ended.items()),
        ]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    # ------------------------------------------------------------------ chat

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = body_of(await request.read())
            if body.get("model") not in self._names:
                return _error(404, f"The model `{body.get('model')!s:.80}` does not exist.", "NotFoundError")
            asked = chat_body(body)
        except BadBody as error:
            return _error(400, str(error), "BadRequestError", error.field)
        self._numbers["waiting"] += 1
        try:
            await self._seats.acquire()
        finally:
            self._numbers["waiting"] -= 1
        try:
            return await self._answer(request, asked)
        finally:
            self._seats.release()

    async def _answer(self, request: web.Request, asked: ChatBody) -> web.StreamResponse:
        answering, chat = _Answering(self._numbers), chat_of(asked)
        wire = Wire(rung=self._rung, content=chat, streamed=asked.streamed, deadline_s=_DEADLINE_S)
        head = {"id": f"chatcmpl-{time.time_ns():x}", "created": int(time.time()), "model": asked.model}
        head["system_fingerprint"] = FINGERPRINT
        held = input_tokens(chat)
        self._numbers["running"] += 1
        self._numbers["kv_tokens"] += held
        work = asyncio.create_task(self._provider.send(wire, answering))
        try:
            if not asked.streamed:
                return web.json_response(whole(head, [d async for d in _pieces(work, answering)], self._done(await work)))
            return await self._stream(request, head, work, answering, usage=asked.counted)
        except AttemptFailed as error:
            self._ended["error"] += 1
            return _failed(request, error)
        except (NbllmError, InvalidRequest) as error:
            self._ended["error"] += 1
            return _error(400, str(error), "BadRequestError")
        except asyncio.CancelledError:  # the caller left
            self._ended["abort"] += 1
            raise
        finally:
            work.cancel()
            self._numbers["running"] -= 1
            self._numbers["kv_tokens"] -= held

    async def _stream(
        self, request: web.Request, head: dict[str, Any], work: asyncio.Task[Ending], answering: _Answering, *, usage: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        writer, began = ChunkWriter(head), False
        async for delta in _pieces(work, answering):
            if not began:
                await response.prepare(request)
                began = True
                await response.write(writer.first())
            await response.write(writer.delta(delta))
        if work.exception() is not None and began:
            if request.transport is not None:
                request.transport.close()  # broken off in mid-answer, as the fault wants it
            return response
        ending = self._done(await work)
        if not began:
            await response.prepare(request)
        await response.write(writer.last(ending.finish_reason))
        if usage:
            await response.write(writer.usage(ending.usage))
        await response.write(DONE)
        return response

    def _done(self, ending: Ending) -> Ending:
        self._numbers["input"] += ending.usage.input_tokens or 0
        self._numbers["output"] += ending.usage.output_tokens or 0
        why = ending.finish_reason or "stop"
        self._ended[why] = self._ended.get(why, 0) + 1
        return ending


async def _pieces(work: asyncio.Task[Ending], answering: _Answering) -> AsyncIterator[Delta]:
    """Yield the pieces as they come until the work is done; its failure is left to whoever looks at it."""
    while True:
        piece = asyncio.ensure_future(answering.deltas.get())
        await asyncio.wait({piece, work}, return_when=asyncio.FIRST_COMPLETED)
        if piece.done():
            yield piece.result()
            continue
        piece.cancel()
        while not answering.deltas.empty():
            yield answering.deltas.get_nowait()
        return


def _failed(request: web.Request, error: AttemptFailed) -> web.StreamResponse:
    """Answer as the provider that is played would have; a connection that breaks is broken."""
    if error.status is None and request.transport is not None:
        request.transport.close()
    response = _error(error.status or 500, error.summary, "SimulatedFault", getattr(error, "parameter", None))
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = f"{error.retry_after_s:g}"
    return response


def _error(status: int, message: str, kind: str, parameter: str | None = None) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": parameter, "code": status}}
    return web.json_response(body, status=status)


def main(arguments: list[str]) -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="nbllm.engines.sim_server", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, help="large or small, with options as behind sim/")
    parser.add_argument("--name", required=True, help="what the model is called")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    given = parser.parse_args(arguments)
    names = tuple(dict.fromkeys((given.name, given.model)))
    server = SimServer(
        given.model,
        names,
        key=os.environ.get("NBLLM_SIM_SERVER_KEY") or None,
        max_num_seqs=given.max_num_seqs,
        speed=speed_from(os.environ),
    )
    web.run_app(server.app(), host="127.0.0.1", port=given.port, print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main(sys.argv[1:])
