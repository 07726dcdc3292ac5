"""The connection to Redis of one event loop, and what its failures and refusals mean. Used by redis_link.py alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError

from nbllm.errors import StorageError

if TYPE_CHECKING:
    from nbllm.storage.redis_link import Link

Arg = str | bytes | int | float
_MOST_TOGETHER = 128
_ELSEWHERE = (ReadOnlyError, MasterDownError)
"""A replica's answers: the primary is somewhere else now."""
_log = logging.getLogger("nbllm.redis")


class NoScript(StorageError):
    """Redis does not know the script yet, or forgot it in a restart."""


class Runner:
    """The connection of one loop: sends what waits, waits for the answers, sends what came meanwhile."""

    def __init__(self, link: Link, url: str) -> None:
        self._link = link
        self._url = url
        self._client: redis.asyncio.Redis | None = None
        self._waiting: list[tuple[Sequence[Arg], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None
        self._down: BaseException | None = None
        """Why Redis is left alone, until when."""
        self._down_until_s = 0.0
        self._life: AsyncGenerator[None, None] | None = None
        self.up_since_s: float | None = None
        self.closed = False

    def submit(self, args: Sequence[Arg]) -> asyncio.Future[Any]:
        """Send one command with what else waits; the future holds its answer. Raises RedisGone while Redis is left alone."""
        if self._down is not None and (time.monotonic() < self._down_until_s or self._task is not None):
            raise self._link.gone(self._down)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(_looked_at)
        self._waiting.append((args, future))
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return future

    async def _drain(self) -> None:
        try:
            if self._life is None:
                self._life = _life_of(self)
                await anext(self._life)
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
                await self._exchange(batch)
        finally:
            self._task = None
            for _, future in self._waiting:  # only when this task was cancelled
                future.cancel()
            self._waiting = []

    async def _exchange(self, batch: list[tuple[Sequence[Arg], asyncio.Future[Any]]]) -> None:
        try:
            answers = await self._send([args for args, _ in batch])
        except Exception as exc:  # also what its client, or the loop's transports, make of a connection that broke
            if not isinstance(exc, RedisError | OSError | TimeoutError):
                _log.error("The connection to Redis ended with an error that nobody expected.", exc_info=exc)
                await self.disconnect()
            self._leave_alone(exc, batch)
            return
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        if any(isinstance(answer, _ELSEWHERE) for answer in answers):
            # Only a new connection leads to where the primary is now.
            await self.disconnect()
            self._leave_alone(next(answer for answer in answers if isinstance(answer, _ELSEWHERE)), batch)
            return
        self._down = None
        self.up_since_s = None if any(map(_cannot, answers)) else self.up_since_s or time.monotonic()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, NoScriptError):
                future.set_exception(NoScript("Redis does not know a script."))
            elif isinstance(answer, Exception):
                future.set_exception(StorageError(f"Redis at {self._link.where} refuses: {answer}"))
            else:
                future.set_result(answer)

    def _leave_alone(self, why: BaseException, batch: list[tuple[Sequence[Arg], asyncio.Future[Any]]]) -> None:
        """Fail all that is asked, and what will be asked for a while."""
        self.up_since_s, self._down, self._down_until_s = None, why, time.monotonic() + self._link.rest_s
        waiting, self._waiting = self._waiting, []
        for _, future in (*batch, *waiting):
            if not future.done():
                future.set_exception(self._link.gone(why))

    async def _send(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        began_s = time.monotonic()
        try:
            return await self._send_in_time(commands)
        except TimeoutError:
            if time.monotonic() - began_s < 1.5 * self._link.op_s:
                raise
            # The loop itself stood still, and Redis may have answered long ago.
            return await self._send_in_time(commands)

    async def _send_in_time(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        was_up = self.up_since_s is not None
        async with asyncio.timeout(self._link.op_s):
            try:
                return await self._send_once(commands)
            except (redis.ConnectionError, OSError):
                # The server may have closed an idle connection, or have been started anew: a new one tells.
                if not was_up:
                    raise
                return await self._send_once(commands)

    async def _send_once(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        if self._client is None:
            self._client = redis.asyncio.Redis.from_url(
                self._url, socket_timeout=None, socket_connect_timeout=self._link.op_s, protocol=2, retry=Retry(NoBackoff(), 0)
            )
        async with self._client.pipeline(transaction=False) as pipe:
            for args in commands:
                pipe.execute_command(*args)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    async def aclose(self) -> None:
        """Send what waits, then close the connection."""
        self.closed = True
        task, self._task = self._task, None
        if task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=self._link.op_s)
                task.cancel()
        life, self._life = self._life, None
        if life is not None:
            await life.aclose()

    async def disconnect(self) -> None:
        """Close the connection; what is asked next opens another."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # it is broken already
                await client.aclose()


async def _life_of(runner: Runner) -> AsyncGenerator[None, None]:
    """Close a runner's connection when its loop ends: loops end their asynchronous generators."""
    try:
        yield
    finally:
        runner.closed = True
        await runner.disconnect()


def _cannot(answer: Any) -> bool:
    """Whether an answer says that Redis takes no writes, or nothing at all, just now: its disk or memory is full, or it is busy."""
    return isinstance(answer, ResponseError) and (
        isinstance(answer, redis.OutOfMemoryError) or str(answer).startswith(("MISCONF", "BUSY", "NOREPLICAS"))
    )


def _looked_at(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()
