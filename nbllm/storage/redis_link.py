"""The way to Redis: one connection per event loop, on which all that is asked at the same time goes out together.

A command waits for at most OP_S seconds. After a failure Redis is left alone for REST_S seconds, in which everything that is asked
of it fails at once; then one caller tries it, while the others still fail at once. So a Redis that is gone costs a call one short
wait at most, and is used again a moment after it is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from hashlib import sha1
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError

from nbllm.errors import ConfigurationError, StorageError
from nbllm.redaction import register_secret

OP_S = 0.5
REST_S = 1.0
_MOST_TOGETHER = 128
_ELSEWHERE = (ReadOnlyError, MasterDownError)
"""A replica's answers: the primary is somewhere else now."""
_log = logging.getLogger("nbllm.redis")
_SCHEMES = ("redis", "rediss", "unix")
_of_the_parent: list[object] = []
"""In a forked child: connections of the parent's, never to be closed here, since that would end the parent's use of them."""

Arg = str | bytes | int | float


class RedisGone(StorageError):
    """Redis does not answer just now."""


class Script:
    """A Lua script. Every one may be sent twice: the second time changes nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


NOW = """
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] + t[2] / 1000000
end
local function fence(key)
  local t = redis.call('TIME')
  local last = tonumber(redis.call('GET', key) or '0')
  local next = math.max(last + 1, t[1] * 1000000 + t[2])
  redis.call('SET', key, string.format('%.0f', next))
  return string.format('%.0f', next)
end
"""
"""clock: Unix time, Redis's own unless a test gives one. fence: a number below 2^53 that grows even when Redis lost everything."""


class Link:
    """Redis, for any event loop of this process and its forked children, each of which gets connections of its own.

    url: redis://, rediss:// or unix://. namespace: what all keys begin with. Raises ConfigurationError for another URL.
    """

    def __init__(self, url: str, *, namespace: str = "nbllm", op_s: float = OP_S, rest_s: float = REST_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not (parts.hostname or parts.path.strip("/")):
            raise ConfigurationError(
                "That is no address of a Redis server.", hint="Give redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix:///PATH."
            )
        if parts.password:
            register_secret(parts.password)
            register_secret(unquote(parts.password))
        self._url = url
        self.where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{_port(parts.port)}"
        self.namespace = namespace
        self.op_s = op_s
        self.rest_s = rest_s
        self._pid = os.getpid()
        self._runners: WeakKeyDictionary[asyncio.AbstractEventLoop, _Runner] = WeakKeyDictionary()

    def __repr__(self) -> str:
        """Return where it leads, without the password."""
        return f"Link({self.where!r}, namespace={self.namespace!r})"

    def key(self, name: str) -> str:
        """Return a key of this namespace."""
        return f"{self.namespace}:{name}"

    async def call(self, *args: Arg) -> Any:
        """Send one command and return its answer. Raises RedisGone, or StorageError when Redis refuses."""
        return await self.submit(*args)

    def submit(self, *args: Arg) -> asyncio.Future[Any]:
        """Send one command; the future holds its answer. Raises RedisGone at once while Redis is left alone."""
        return self._runner().submit(args)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a script and return its answer. Raises as `call` does."""
        try:
            return await self.submit("EVALSHA", script.sha, len(keys), *keys, *args)
        except _NoScript:
            return await self.submit("EVAL", script.text, len(keys), *keys, *args)

    def up_for_s(self) -> float:
        """Return for how many seconds Redis has answered everything on this loop; 0 when it does not."""
        since_s = self._runner().up_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self.call("PING"))
        except StorageError:
            return False

    def own_client(self) -> redis.Redis:
        """Return a client for a thread that may wait; close it after use."""
        from redis.backoff import NoBackoff as Never
        from redis.retry import Retry as Again

        return redis.Redis.from_url(self._url, socket_timeout=5.0, socket_connect_timeout=2.0, protocol=2, retry=Again(Never(), 0))

    def gone(self, why: BaseException) -> RedisGone:
        """Return the error that says that Redis does not answer, or that it answers nobody like us."""
        # On a Unix socket redis-py makes a plain ConnectionError of it.
        if isinstance(why, redis.AuthenticationError) or "username-password" in str(why):
            return RedisGone(f"Redis at {self.where} refuses the user or the password.", hint="They are in its URL.")
        return RedisGone(
            f"Redis at {self.where} does not answer ({type(why).__name__}).", hint="It is tried again about once a second."
        )

    async def aclose(self) -> None:
        """Close this loop's connection. What is asked later opens another."""
        runner = self._runners.pop(asyncio.get_running_loop(), None) if self._pid == os.getpid() else None
        if runner is not None:
            await runner.aclose()

    def _runner(self) -> _Runner:
        if self._pid != os.getpid():
            _of_the_parent.append(self._runners)
            self._pid, self._runners = os.getpid(), WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        runner = self._runners.get(loop)
        if runner is None or runner.closed:
            runner = self._runners[loop] = _Runner(self, self._url)
        return runner


class _NoScript(StorageError):
    """Redis does not know the script yet, or forgot it in a restart."""


class _Runner:
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
                future.set_exception(_NoScript("Redis does not know a script."))
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
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # it is broken already
                await client.aclose()


async def _life_of(runner: _Runner) -> AsyncGenerator[None, None]:
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


def _port(port: int | None) -> int:
    return 6379 if port is None else port


__all__ = ["NOW", "Link", "RedisGone", "ResponseError", "Script"]
