"""One run of a flow beside the service's own loop: plain flows in worker threads, async ones on a loop of their own.

A flow is the user's code: it may print, block, raise anything or never come back. Whatever it does, its caller has an answer when
the time is over, and its calls end upstream when nobody waits for them any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import Future
from contextvars import copy_context
from typing import NoReturn

from pydantic import BaseModel

from nbllm import current
from nbllm.client import Client
from nbllm.crew import Crew
from nbllm.errors import BadParameter, InvalidRequest, NbllmError, Truncated, UnknownModel, UnusableText
from nbllm.flow_context import WATCHER, FlowStopped
from nbllm.redaction import redact
from nbllm.service.context import ASKING, REQUEST_ID
from nbllm.service.failures import place_of
from nbllm.service.flow_loop import FlowLoop
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_watch import Follower
from nbllm.service.problems import ServiceProblem

MOST_STUCK = 128
"""Runs that do not come back although their time is over: this many threads may be lost to them."""
MOST_STUCK_OF_ONE = 16
"""The same of one key: beyond that its runs are refused, and everybody else's go on."""
_COMES_BACK_S = 1.0
_log = logging.getLogger("nbllm.service")


class FlowRunner:
    """Runs flows with one client.

    running: how many at once at most; more than that is the gate's to refuse. timeout_s: how long one may take. say_why: whether
    the log gets the text of exceptions that flows raise, which may hold what callers sent.
    """

    def __init__(self, client: Client, *, running: int, timeout_s: float, say_why: bool = False) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._say_why = say_why
        self._crew = Crew(running + MOST_STUCK, "nbllm-flow")
        self._loop = FlowLoop()
        self._watches: set[asyncio.Task[None]] = set()
        self._stuck_of: Counter[str] = Counter()
        self._in_doubt = 0
        """Async runs that were given up and have not come back: the loop that they share may be blocked."""

    @property
    def stuck(self) -> int:
        """Runs that were given up and have not come back yet."""
        return self._stuck_of.total()

    async def run(
        self,
        spec: FlowSpec,
        arguments: BaseModel,
        follower: Follower,
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the result as JSON. The flow's calls are those of whoever pays in the context of this call (Service.paying).

        Raises what the flow raises of nbllm's errors, and a ServiceProblem for all else: another exception, a wrong result, a flow
        whose time is over, too many that have not come back. A caller that is cancelled ends the flow's calls.
        """
        if self.stuck >= MOST_STUCK or self._stuck_of[_asking()] >= MOST_STUCK_OF_ONE:
            title = "Too many runs of flows have not come back after their time was over, or after who asked had left."
            raise ServiceProblem(503, "flows-stuck", title, retry_after_s=30.0)
        at_most_s = self._timeout_s if timeout_s is None else timeout_s
        start = self._in_loop if spec.is_async else self._in_thread
        run = asyncio.ensure_future(start(spec, arguments, follower))
        try:
            done, _ = await asyncio.wait([run], timeout=at_most_s)
        except BaseException:
            self._give_up(spec, run, follower)
            raise
        if done:
            return run.result()
        self._give_up(spec, run, follower)
        detail = f"{spec.name} did not end in {at_most_s:g} s and was stopped."
        raise ServiceProblem(504, "flow-timeout", "The flow took too long.", detail)

    def _give_up(self, spec: FlowSpec, run: asyncio.Future[bytes], follower: Follower) -> None:
        """End a run's calls, and see whether its code comes back."""
        follower.stop()
        run.add_done_callback(_looked_at)  # nobody waits for it any more, and the watch below may end first
        watch = asyncio.get_running_loop().create_task(self._watch(spec, run))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, spec: FlowSpec, run: asyncio.Future[bytes]) -> None:
        self._in_doubt += spec.is_async
        try:
            done, _ = await asyncio.wait([run], timeout=_COMES_BACK_S)
            if not done:
                await self._lost(spec, run)
        finally:
            self._in_doubt -= spec.is_async

    async def _lost(self, spec: FlowSpec, run: asyncio.Future[bytes]) -> None:
        key_id = _asking()
        self._stuck_of[key_id] += 1
        _log.warning("The flow %s was given up and does not come back; its thread is lost until it does.", spec.name)
        try:
            if spec.is_async:
                await self._loop.answers(_COMES_BACK_S)
            await asyncio.wait([run])
        finally:
            self._stuck_of[key_id] -= 1

    # ------------------------------------------------------------------ the two kinds of flows

    async def _in_thread(self, spec: FlowSpec, arguments: BaseModel, follower: Follower) -> bytes:
        def work() -> bytes:
            WATCHER.set(follower)
            try:
                with current.use(self._client):
                    return spec.result_json(spec.call(arguments))
            except BaseException as exc:
                self._raise(spec, exc)

        submitted: Future[bytes] = self._crew.submit(copy_context().run, work)
        return await asyncio.wrap_future(submitted)

    async def _in_loop(self, spec: FlowSpec, arguments: BaseModel, follower: Follower) -> bytes:
        async def work() -> bytes:
            WATCHER.set(follower)
            try:
                with current.use(self._client):
                    return spec.result_json(await spec.call(arguments))
            except asyncio.CancelledError as exc:
                if follower.stopped:
                    raise
                self._raise(spec, exc)
            except BaseException as exc:
                self._raise(spec, exc)

        if self._in_doubt:  # what is handed to a loop that is blocked would wait there for ever
            await self._loop.answers(_COMES_BACK_S)
        return await self._loop.run(work, follower.hold)

    def _raise(self, spec: FlowSpec, exc: BaseException) -> NoReturn:
        """Raise what a caller gets for what a flow raised: never a SystemExit, which would end the service."""
        if isinstance(exc, UnknownModel):  # the flow named it, not its caller
            self._log(spec, exc)
            raise ServiceProblem(500, "unknown-model", "The flow asks a model that is not there.", exc.summary) from None
        if isinstance(exc, Truncated):  # the flow set the limit
            self._log(spec, exc)
            raise ServiceProblem(502, "upstream-failed", "The model gave no answer.") from None
        if isinstance(exc, NbllmError) and not _is_its_own(exc):
            raise exc
        kind = type(exc).__name__
        if not isinstance(exc, FlowStopped):
            self._log(spec, exc)
        raise ServiceProblem(
            500, "flow-failed", "The flow failed.", f"{spec.name} raised {kind}; the service's log says where."
        ) from None

    def _log(self, spec: FlowSpec, exc: BaseException) -> None:
        kind, why = type(exc).__name__, f": {redact(str(exc))}" if self._say_why else ""
        _log.error("Request %s: the flow %s raised %s in %s%s", REQUEST_ID.get(), spec.name, kind, place_of(exc), why)

    async def aclose(self) -> None:
        """End what is idle; what is stuck is left behind and does not keep the process."""
        self._crew.shutdown(wait=False, cancel_futures=True)
        await self._loop.aclose()
        watches = tuple(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def _is_its_own(error: NbllmError) -> bool:
    """Whether an error is the mistake of the flow's code, which no caller could have made: an option, a template, a schema.

    A text that no model can be sent may be the caller's; so may one that is too long, or that a filter refuses.
    """
    return isinstance(error, (InvalidRequest, BadParameter)) and not isinstance(error, UnusableText)


def _looked_at(run: asyncio.Future[bytes]) -> None:
    if not run.cancelled():
        run.exception()


def _asking() -> str:
    """Return the id of the key that asks, "" where nobody does."""
    caller = ASKING.get()
    return "" if caller is None else caller.key_id
