"""The way to Redis: one connection per event loop, on which all that is asked at the same time goes out together.

A command waits for at most OP_S seconds. After a failure Redis is left alone for REST_S seconds, in which everything that is asked
of it fails at once; then one caller tries it, while the others still fail at once. So a Redis that is gone costs a call one short
wait at most, and is used again a moment after it is back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from hashlib import sha1
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import redis

from nbllm.errors import ConfigurationError, StorageError
from nbllm.redaction import register_secret
from nbllm.storage.redis_runner import Arg, NoScript, Runner

OP_S = 0.5
REST_S = 1.0
_SCHEMES = ("redis", "rediss", "unix")
_of_the_parent: list[object] = []
"""In a forked child: connections of the parent's, never to be closed here, since that would end the parent's use of them."""


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
        self._runners: WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = WeakKeyDictionary()

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
        except NoScript:
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

    def _runner(self) -> Runner:
        if self._pid != os.getpid():
            _of_the_parent.append(self._runners)
            self._pid, self._runners = os.getpid(), WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        runner = self._runners.get(loop)
        if runner is None or runner.closed:
            runner = self._runners[loop] = Runner(self, self._url)
        return runner


def _port(port: int | None) -> int:
    return 6379 if port is None else port


__all__ = ["NOW", "Link", "RedisGone", "Script"]
