"""Client: assembles the road, and its doors, sync and async.

All calls run on one background loop per process. A sync door submits and waits; an async door submits and awaits; a hit is
answered on the caller's own thread. A service may lend its own loop with `adopt_loop`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, Self, Unpack, get_args

from nbllm.asking import Prompt, embed_request
from nbllm.background import BACKGROUND, LoopHost
from nbllm.books import BudgetLine
from nbllm.closing import in_thread, keep_for_parent, shut, watch
from nbllm.core.messages import CallRecord, ProviderKind
from nbllm.core.ports import Provider
from nbllm.core.reply import Reply
from nbllm.crew import Crew
from nbllm.doors import door
from nbllm.errors import ConfigurationError
from nbllm.flow_context import tell_changed
from nbllm.live import LiveCall
from nbllm.notices import News, say
from nbllm.route_checks import check_routes
from nbllm.sending import Sending
from nbllm.session import process_session
from nbllm.settings import CallOptions, EmbedOptions, Endpoint, Settings
from nbllm.streams import AsyncStream, Stream
from nbllm.watched import streams

if TYPE_CHECKING:
    from nbllm.house import House
    from nbllm.semantic_book import SemanticBook
    from nbllm.storage.redis_shared import Shared

__all__ = ["BudgetLine", "Client"]


class Client(Sending):
    """One resilient, cached, metered way to every model. A context manager, sync and async; `close()` leaves nothing behind.

    endpoints: name -> Endpoint. ladder: model ids to try in order when a call names none. routes: name -> model ids, or the table
    of a strategy (docs/routes.md). home: folder of cache, ledger and recordings. settings: a Settings of your own instead of files
    and variables. providers: replaces how a kind of endpoint is reached ("openai_compatible", "litellm", "simulated"), for tests.
    on_call: called with a CallRecord after every call, in a worker thread. shared: a Redis by its URL, or what open_shared(url)
    returned: all replicas share cache, single flight, budgets, breakers and limits. Further keywords are settings by name.

    Raises ConfigurationError for settings that cannot work; nothing is opened or sent before the first call.
    """

    def __init__(
        self,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        ladder: Sequence[str] | str | None = None,
        routes: Mapping[str, Any] | None = None,
        home: str | Path | None = None,
        settings: Settings | None = None,
        providers: Mapping[str, Provider] | None = None,
        on_call: Callable[[CallRecord], object] | None = None,
        shared: Shared | str | None = None,
        **values: Any,
    ) -> None:
        base = Settings.load() if settings is None else settings
        named = {"endpoints": endpoints, "ladder": ladder, "routes": routes, "home": home}
        values |= {name: value for name, value in named.items() if value is not None}
        self._settings = base.with_values("Client(...)", values) if values else base
        check_routes(self._settings, values, "Client(...)")
        self.session = self._settings.session or process_session()
        self._providers = dict(providers or {})
        if unknown := self._providers.keys() - set(get_args(ProviderKind)):
            raise ConfigurationError(
                f"providers= names {', '.join(sorted(unknown))}, which is no kind of endpoint.",
                hint=f"Kinds are {', '.join(get_args(ProviderKind))}.",
            )
        self._hooks = [on_call] if on_call is not None else []
        self._listeners: list[Callable[[CallRecord], object]] = []
        self._shared = _opened(shared, self._settings) if isinstance(shared, str) else shared
        self._lock = threading.Lock()
        self._house: House | None = None
        self._lent: LoopHost | None = None
        self._closed = False
        self._news = News(self._settings.notes)
        self._user = object()
        watch(self)

    def __repr__(self) -> str:
        """Return where the client keeps things and what it asks by default."""
        asks = ", ".join(self._settings.ladder) or self._settings.model or "found on first call"
        return f"Client(model={asks!r}, home={str(self._settings.home)!r}, session={self.session!r})"

    @door()
    def ask(self, prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Reply:
        """Ask and wait for the whole answer.

        prompt: a string, or messages in OpenAI's shape. Raises InvalidRequest before anything is sent, and the errors of
        nbllm.errors after.
        """
        request = self._asked(prompt, options, more, watched=streams())
        return self._said(self._wait(request))

    @door()
    async def aask(self, prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Reply:
        """Async twin of `ask`. Cancelling it ends the call upstream."""
        request = self._asked(prompt, options, more, watched=streams())
        return self._said(await self._await(request))

    @door()
    def stream(self, prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Stream:
        """Ask and return the answer piece by piece; `.reply` when it is done. A stream that breaks raises StreamInterrupted."""
        return Stream(self._live(self._asked(prompt, options, more, watched=True, on_interrupt="raise")))

    @door()
    def astream(self, prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> AsyncStream:
        """Async twin of `stream`: `async for piece in client.astream(...)`."""
        request = self._asked(prompt, options, more, watched=True, on_interrupt="raise")
        return AsyncStream(self._live(request, own_thread=False))

    @door()
    def start(self, prompt: Prompt, *, watched: bool = True, **options: Unpack[CallOptions]) -> LiveCall:
        """Start a call and return it as a LiveCall, whose events a face can show as they come."""
        return self._live(self._asked(prompt, options, watched=watched))

    @door("embed")
    def embed(self, texts: Sequence[str], *more: Never, **options: Unpack[EmbedOptions]) -> Any:
        """Embed texts; return a float32 array of shape (texts, dimensions)."""
        return self._said(self._wait(embed_request(texts, self._as_here(options), self._settings, more))).vectors

    @door("embed")
    async def aembed(self, texts: Sequence[str], *more: Never, **options: Unpack[EmbedOptions]) -> Any:
        """Async twin of `embed`."""
        return self._said(await self._await(embed_request(texts, self._as_here(options), self._settings, more))).vectors

    # ------------------------------------------------------------------ settings

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, origin: str = "client.configure", **values: Any) -> None:
        """Change settings for the calls that follow; keys and models that were switched off are tried again.

        Raises ConfigurationError; then nothing is changed. The home and the session of a client cannot be changed.
        """
        for fixed in ("home", "session"):
            if fixed in values:
                raise ConfigurationError(
                    f"{fixed} is fixed for the life of a client.",
                    hint=f"Make another: Client({fixed}=...), or set NBLLM_{fixed.upper()}.",
                )
        with self._lock:
            changed = self._settings.with_values(origin, values)
            check_routes(changed, values, origin)
            self._settings = changed
            if self._house is not None:
                self._house.settings_changed(changed)
        tell_changed()

    def reset_breakers(self) -> None:
        """Let the next call try what rests because it failed too often, and keys and models that were switched off.

        For when you know that a server is well again; without it one call tries after 15 to 120 s (docs/when-things-fail.md).
        """
        if self._house is not None:
            self._run(lambda house: house.road.breakers.reset())
            tell_changed()

    async def areset_breakers(self) -> None:
        """Async twin of `reset_breakers`."""
        if self._house is not None:
            await self._arun(lambda house: house.road.breakers.reset())
            tell_changed()

    def on_call(self, hook: Callable[[CallRecord], object], *, at_once: bool = False) -> None:
        """Call a function with a CallRecord after every call, in a worker thread. What it raises is logged and nothing else.

        at_once: call it where the call ends, the loop as a rule: for one that takes microseconds. The context is the call's.
        """
        (self._listeners if at_once else self._hooks).append(hook)
        if self._house is not None:
            recorder = self._house.road.recorder
            (recorder.listeners if at_once else recorder.hooks).append(hook)

    def off_call(self, hook: Callable[[CallRecord], object]) -> None:
        """Call a function of on_call no more."""
        recorder = self._house.road.recorder if self._house is not None else None
        for hooks in (self._hooks, self._listeners, *((recorder.hooks, recorder.listeners) if recorder else ())):
            if hook in hooks:
                hooks.remove(hook)

    @property
    def semantic(self) -> SemanticBook:
        """The semantic cache: what it met, labels, plans, wrong answers (docs/semantic-cache.md)."""
        from nbllm.semantic_book import SemanticBook

        return SemanticBook(self)

    # ------------------------------------------------------------------ life

    def adopt_loop(self) -> None:
        """Run this client's calls on the running loop (a service's own) instead of the background thread. Before the first call."""
        if self._house is not None:
            raise RuntimeError("adopt_loop() comes before the first call.")
        self._lent = LoopHost(asyncio.get_running_loop())

    def _open_house(self) -> House:
        house = self._house
        if house is not None:
            if house.storage.home.is_gone() and (said := house.storage.begin_anew()):
                say((said,))  # now: what looks back has no reply to take it along
            return house
        with self._lock:
            if self._house is None:
                if self._closed:
                    raise RuntimeError("This client is closed. Make another one.")
                self._house = self._new_house()
            return self._house

    def _new_house(self) -> House:
        from nbllm.house import House

        try:
            house = House(
                lambda: self._settings,
                session=self.session,
                host=self._lent or BACKGROUND.acquire(self._user),
                lent=self._lent is not None,
                providers=self._providers,
                on_trouble=self._news.heard,
                executor=lambda: Crew(8, "nbllm-check"),
                shared=self._shared,
            )
            house.storage.prepare()  # a home that cannot be used is said before anything is sent, whatever the call wants from it
        except BaseException:
            BACKGROUND.release(self._user)
            raise
        house.road.recorder.hooks.extend(self._hooks)
        house.road.recorder.listeners.extend(self._listeners)
        return house

    def close(self) -> None:
        """End calls in flight, close sockets, write what waits. The client cannot be used afterwards; closing twice is fine."""
        if self._house is not None and self._house.host.is_here:
            raise RuntimeError("close() would wait for the loop that it was called on. Use `await client.aclose()`.")
        with self._lock:
            house, self._house, self._closed = self._house, None, True
        if house is not None:
            shut(house, self._user)

    async def aclose(self) -> None:
        """Async twin of `close`."""
        with self._lock:
            house, self._house, self._closed = self._house, None, True
        if house is None:
            return
        if house.host.is_here:
            try:
                await house.aclose()
            finally:
                await in_thread(house.storage.close)
        else:
            await in_thread(lambda: shut(house, self._user))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """Close what was never closed, on a thread of its own: the collector may run on any, the loop's too."""
        house = getattr(self, "_house", None)
        if house is not None and not house.lent:
            with suppress(RuntimeError):  # no new threads at the interpreter's end, where nothing is left to close either
                threading.Thread(target=shut, args=(house, self._user), name="nbllm-close", daemon=True).start()

    def _after_fork(self) -> None:
        """In a forked child: the loop, the sockets and the calls in flight are the parent's; start fresh on the same home."""
        self._lock = threading.Lock()
        if self._lent is not None:
            self._lent.of_parent = True
            self._lent = None
        if self._house is not None:
            keep_for_parent(self._house)
            self._house = None


def _opened(url: str, settings: Settings) -> Shared:
    from nbllm.storage.open import shared_at

    return shared_at(url, cache_size_bytes=int(settings.cache_size_mb * 1_000_000))
