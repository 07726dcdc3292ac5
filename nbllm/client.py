"""Client: assembles the road, and its doors, sync and async.

All calls run on one background loop per process. A sync door submits and waits; an async door submits and awaits; a hit is
answered on the caller's own thread. A service may lend its own loop with `adopt_loop`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from nbllm.asking import Prompt, chat_request, embed_request
from nbllm.background import BACKGROUND, Job, LoopHost, awaited
from nbllm.core.messages import CallRecord, NullSink, Request, Sink
from nbllm.core.ports import Filter, Provider
from nbllm.core.reply import Reply
from nbllm.errors import NbllmWarning
from nbllm.live import AsyncStream, LiveCall, Stream
from nbllm.settings import Endpoint, Settings

if TYPE_CHECKING:
    from nbllm.core.usage_table import UsageTable
    from nbllm.house import House

T = TypeVar("T")
_CLOSE_S = 5.0
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget as it stands. hard_usd None: no limit."""

    scope: str
    spent_usd: Decimal
    reserved_usd: Decimal
    hard_usd: Decimal | None
    soft_usd: Decimal | None


class Client:
    """One resilient, cached, metered way to every model. A context manager, sync and async; `close()` leaves nothing behind.

    endpoints: name -> Endpoint. ladder: model ids to try in order when a call names no model. home: folder of cache, ledger and
    recordings. settings: a Settings of your own instead of files and variables. providers: replaces how a kind of endpoint is
    reached ("openai_compatible", "litellm", "simulated"), for tests. on_call: called with a CallRecord after every call, in a
    worker thread. Further keywords are settings by name (deadline_s=30, budget_session_usd="5.00").

    Raises ConfigurationError for settings that cannot work; nothing is opened or sent before the first call.
    """

    def __init__(
        self,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        ladder: Sequence[str] | None = None,
        home: str | Path | None = None,
        settings: Settings | None = None,
        providers: Mapping[str, Provider] | None = None,
        on_call: Callable[[CallRecord], object] | None = None,
        **values: Any,
    ) -> None:
        base = Settings.load() if settings is None else settings
        named = {"endpoints": endpoints, "ladder": tuple(ladder) if ladder is not None else None, "home": home}
        values.update({name: value for name, value in named.items() if value is not None})
        self._settings = base.replace_values("Client(...)", **values) if values else base
        self.session = self._settings.session or uuid4().hex[:12]
        self._providers = dict(providers or {})
        self._hooks = [on_call] if on_call is not None else []
        self._lock = threading.Lock()
        self._house: House | None = None
        self._lent: LoopHost | None = None
        self._closed = False
        self._trouble: list[str] = list(self._settings.notes)
        _clients.add(self)

    def __repr__(self) -> str:
        """Return where the client keeps things and what it asks by default."""
        asks = ", ".join(self._settings.ladder) or self._settings.model or "found on first call"
        return f"Client(model={asks!r}, home={str(self._settings.home)!r}, session={self.session!r})"

    # ------------------------------------------------------------------ asking

    def ask(self, prompt: Prompt, **options: Any) -> Reply:
        """Ask and wait for the whole answer.

        prompt: a string, or messages in OpenAI's shape. options: see nbllm.settings.CALL_OPTIONS (model, system, temperature,
        schema, check, cache, deadline_s ...). Raises InvalidRequest before anything is sent, and the errors of nbllm.errors after.
        """
        request = chat_request(prompt, options, self._settings, watched=False, on_interrupt="restart")
        return self._said(self._wait(request))

    async def aask(self, prompt: Prompt, **options: Any) -> Reply:
        """Async twin of `ask`. Cancelling it ends the call upstream."""
        request = chat_request(prompt, options, self._settings, watched=False, on_interrupt="restart")
        return self._said(await self._await(request))

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Ask and return the answer piece by piece; `.reply` when it is done. A stream that breaks raises StreamInterrupted."""
        return Stream(self._live(chat_request(prompt, options, self._settings, watched=True, on_interrupt="raise")))

    def astream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """Async twin of `stream`: `async for piece in client.astream(...)`."""
        request = chat_request(prompt, options, self._settings, watched=True, on_interrupt="raise")
        return AsyncStream(self._live(request, own_thread=False))

    def start(self, prompt: Prompt, *, watched: bool = True, **options: Any) -> LiveCall:
        """Start a call and return it as a LiveCall, whose events a face can show as they come."""
        return self._live(chat_request(prompt, options, self._settings, watched=watched, on_interrupt="restart"))

    def embed(self, texts: Sequence[str], **options: Any) -> Any:
        """Embed texts; return a float32 array of shape (texts, dimensions)."""
        return self._said(self._wait(embed_request(texts, options, self._settings))).vectors

    async def aembed(self, texts: Sequence[str], **options: Any) -> Any:
        """Async twin of `embed`."""
        return self._said(await self._await(embed_request(texts, options, self._settings))).vectors

    # ------------------------------------------------------------------ the ways in

    def _wait(self, request: Request) -> Reply:
        house = self._open_house()
        self._refuse_on_loop(house.host, "ask")
        opened = house.road.try_hit(request)
        if not isinstance(opened, Request):
            house.settle(opened.written)
            return opened.reply
        self._tell(opened)
        job = Job(house.host, lambda: house.road(opened, NullSink()))
        try:
            while True:
                # In slices, so that Ctrl-C gets through on every system.
                with suppress(TimeoutError):
                    return job.done.result(0.1 if not job.done.done() else None)
        except BaseException:
            if not job.done.done():
                job.cancel()
                with suppress(BaseException):
                    job.done.exception(1.0)
            raise

    async def _await(self, request: Request) -> Reply:
        house = self._open_house()
        opened = house.road.try_hit(request, own_thread=False)
        if not isinstance(opened, Request):
            if opened.written is not None:
                await asyncio.wrap_future(opened.written)
            return opened.reply
        self._tell(opened)
        if house.host.is_here:
            return await house.road(opened, NullSink())
        return await awaited(Job(house.host, lambda: house.road(opened, NullSink())))

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        house = self._open_house()
        if own_thread:
            self._refuse_on_loop(house.host, "stream")
        opened = house.road.try_hit(request, own_thread=own_thread)
        if not isinstance(opened, Request):
            if own_thread:
                house.settle(opened.written)
            return LiveCall(None, request, house.road.__call__, hit=opened.reply)
        self._tell(opened)
        return LiveCall(house.host, opened, house.road.__call__)

    def _run(self, work: Callable[[House], Coroutine[Any, Any, T]]) -> T:
        """Run something of our own on the loop and wait for it."""
        house = self._open_house()
        self._refuse_on_loop(house.host, "this method")
        return Job(house.host, lambda: work(house)).done.result()

    @staticmethod
    def _refuse_on_loop(host: LoopHost, what: str) -> None:
        if host.is_here:
            raise RuntimeError(f"{what} would wait for the loop that it was called on. Use its async twin (aask, astream, aembed).")

    def _tell(self, request: Request) -> None:
        """Pass on what storage or settings had to say since the last call."""
        if self._trouble and request.call is not None:
            said, self._trouble = self._trouble, []
            for text in said:
                request.call.note(text)

    @staticmethod
    def _said(reply: Reply) -> Reply:
        for note in reply.notes:
            warnings.warn(note, NbllmWarning, stacklevel=3)
        return reply

    # ------------------------------------------------------------------ settings, money, ledger

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, origin: str = "client.configure", **values: Any) -> None:
        """Change settings for the calls that follow; keys and models that were switched off are tried again.

        Raises ConfigurationError; then nothing is changed. The home and the session of a client cannot be changed.
        """
        from nbllm.errors import ConfigurationError

        for fixed in ("home", "session"):
            if fixed in values:
                raise ConfigurationError(
                    f"{fixed} is fixed for the life of a client.",
                    hint=f"Make another: Client({fixed}=...), or set NBLLM_{fixed.upper()}.",
                )
        changed = self._settings.replace_values(origin, **values)
        with self._lock:
            self._settings = changed
            if self._house is not None:
                self._house.settings_changed(changed)

    def on_call(self, hook: Callable[[CallRecord], object]) -> None:
        """Call a function with a CallRecord after every call, in a worker thread. What it raises is logged and nothing else."""
        self._hooks.append(hook)
        if self._house is not None:
            self._house.road.recorder.hooks.append(hook)

    @property
    def ledger(self) -> Any:
        """The Ledger (core/ports.py)."""
        return self._open_house().storage.ledger

    @property
    def store(self) -> Any:
        """The ResponseStore (core/ports.py)."""
        return self._open_house().storage.store

    @property
    def recordings(self) -> Any:
        """The Recordings (core/ports.py)."""
        return self._open_house().storage.recordings

    def models(self) -> list[Any]:
        """Return what is known of models that can be named, for completion and %llm_models."""
        return list(self._open_house().catalog.models())

    def usage(self, by: str = "model", **where: Any) -> UsageTable:
        """Return sums by "model", "feature", "user", "day", "session", "source", "status" or "total".

        where: session, model, feature, user, since, until (Unix seconds); nothing given: this session. Raises InvalidRequest.
        """
        from nbllm.core.usage_table import UsageTable

        return UsageTable(by, self.ledger.usage(by, self._filter(where)))

    def check_slo(
        self, *, session: str | None = None, since: float | None = None, model: str | None = None, **limits: float
    ) -> Any:
        """Hold this session's calls against limits (p50_s, p95_s, p99_s, ttft_p95_s, error_rate ...).

        Returns the report; raises SloViolated with the measured numbers when one does not hold. Cache hits are not counted.
        """
        from nbllm.core.statistics import check_slo, require

        where = {"session": session, "since": since, "model": model}
        series = self.ledger.series(self._filter({k: v for k, v in where.items() if v is not None}))
        report = check_slo(series, **limits)
        require(report)
        return report

    def _filter(self, where: Mapping[str, Any]) -> Filter:
        return Filter(**where) if "session" in where or "since" in where else Filter(session=self.session, **where)

    def spent_session_usd(self) -> Decimal:
        """Return what this session has spent, in USD."""
        name = f"session:{self.session}"
        spent: Decimal = self._run(lambda house: house.storage.budgets.balance([name]))[name].spent_usd
        return spent

    def budget_lines(self) -> list[BudgetLine]:
        """Return every budget that is limited, and the session and the day in any case."""
        from nbllm.core.budget import scope_lines, utc_day

        scopes = scope_lines(self._settings.budgets, session=self.session, day_utc=utc_day(time.time()))
        balances = self._run(lambda house: house.storage.budgets.balance([scope.name for scope in scopes]))
        return [
            BudgetLine(s.name, balances[s.name].spent_usd, balances[s.name].reserved_usd, s.hard_usd, s.soft_usd) for s in scopes
        ]

    def set_budget(
        self, kind: str, amount_usd: Decimal | None, *, name: str | None = None, soft: Decimal | float | None = None
    ) -> None:
        """Set or lift (None) a hard budget. kind: request, session, day, feature or user (these two with a name); soft: a share."""
        from nbllm.errors import InvalidRequest

        if kind in ("feature", "user"):
            if not name:
                raise InvalidRequest(f"A {kind} budget needs the {kind}'s name.", hint=f"For example: %llm_budget {kind} NAME 5.00")
            key = f"budget.{kind}s.{name}"
        elif kind in ("request", "session", "day"):
            key = f"budget.{kind}_usd"
        else:
            raise InvalidRequest(f"There is no budget of kind {kind!r}.", hint="Use request, session, day, feature or user.")
        values: dict[str, Any] = {key: amount_usd}
        if soft is not None:
            values["budget.soft"] = soft
        self.configure("%llm_budget", **values)

    # ------------------------------------------------------------------ life

    def adopt_loop(self) -> None:
        """Run this client's calls on the running loop (a service's own) instead of the background thread. Before the first call."""
        if self._house is not None:
            raise RuntimeError("adopt_loop() comes before the first call.")
        self._lent = LoopHost(asyncio.get_running_loop(), threading.get_ident())

    def _open_house(self) -> House:
        house = self._house
        if house is not None:
            return house
        with self._lock:
            if self._house is None:
                if self._closed:
                    raise RuntimeError("This client is closed. Make another one.")
                from nbllm.house import House

                self._house = House(
                    lambda: self._settings,
                    session=self.session,
                    host=self._lent or BACKGROUND.acquire(),
                    lent=self._lent is not None,
                    providers=self._providers,
                    on_trouble=self._trouble.append,
                    executor=lambda: ThreadPoolExecutor(8, thread_name_prefix="nbllm-check"),
                )
                self._house.road.recorder.hooks.extend(self._hooks)
            return self._house

    def close(self) -> None:
        """End calls in flight, close sockets, write what waits. The client cannot be used afterwards; closing twice is fine."""
        with self._lock:
            house, self._house, self._closed = self._house, None, True
        if house is None:
            return
        if house.host.is_here:
            raise RuntimeError("close() would wait for the loop that it was called on. Use `await client.aclose()`.")
        with suppress(TimeoutError):
            Job(house.host, house.aclose).done.result(_CLOSE_S)
        house.storage.close()
        if not house.lent:
            BACKGROUND.release()

    async def aclose(self) -> None:
        """Async twin of `close`."""
        with self._lock:
            house, self._house, self._closed = self._house, None, True
        if house is None:
            return
        if house.host.is_here:
            await house.aclose()
        else:
            await awaited(Job(house.host, house.aclose))
        await asyncio.to_thread(house.storage.close)
        if not house.lent:
            await asyncio.to_thread(BACKGROUND.release)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    def _after_fork(self) -> None:
        """In a forked child: the loop, the sockets and the calls in flight are the parent's; start fresh on the same home."""
        self._lock = threading.Lock()
        if self._house is not None:
            # Kept, not closed: closing would end the parent's connections.
            _parents.append(self._house)
            self._house = None


_parents: list[House] = []


@atexit.register
def _close_all() -> None:
    for client in list(_clients):
        with suppress(Exception):
            client.close()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - the hook is the class's own; the system calls functions only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["BudgetLine", "Client", "Sink"]
