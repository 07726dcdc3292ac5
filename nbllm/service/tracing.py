"""Runs of flows that cost nothing and tell everything: answers come from recordings, each call leaves a trace."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from nbllm.core.messages import Chat, Embed, Options, Request
from nbllm.core.reply import Reply
from nbllm.current import use
from nbllm.errors import NbllmError
from nbllm.flow_arguments import plain
from nbllm.following import Following
from nbllm.live import LiveCall
from nbllm.replayed import RecordedAnswers, plain_json
from nbllm.service.parity import CallTrace, RunTrace
from nbllm.service.recorded import RecordedRun
from nbllm.settings import Settings

_BARE = {Chat: asdict(Chat(messages=())), Embed: asdict(Embed(texts=()))}
_OPTIONS = asdict(Options())
_NOT_OPTIONS = {"schema_type", "check", "user", "watched", "on_interrupt", "tags", "scopes"}
"""Objects of a process, and who asked and watched: they differ between a notebook and a service by their nature."""


@dataclass(slots=True)
class _Entry:
    request: Request
    reply: Reply | None = None
    live: LiveCall | None = None
    error: str = ""
    followed: str = ""


@dataclass(slots=True)
class Traces:
    """The calls of the run that is under way, in the order in which they began. Filled from any thread."""

    entries: list[_Entry] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, request: Request) -> _Entry:
        """Note a call."""
        entry = _Entry(request)
        with self.lock:
            self.entries.append(entry)
        return entry

    def times(self, request: Request) -> int:
        """Return how often the run that is under way has asked the same question."""
        asked = _question(request)
        with self.lock:
            return sum(_question(entry.request) == asked for entry in self.entries)

    def take(self) -> tuple[CallTrace, ...]:
        """Return what was noted, and begin anew."""
        with self.lock:
            entries, self.entries = self.entries, []
        return tuple(map(_call_trace, entries))


def _question(request: Request) -> tuple[Any, ...]:
    content = request.content
    return content.messages if isinstance(content, Chat) else content.texts


class TracingClient(Following):
    """A client on a home of its own whose models are recorded answers, and which notes each call.

    settings: those to try; what they say of models, routes, parameters and budgets holds, their keys are not needed. The semantic
    cache is off: whom it serves hangs on what was asked before, and on chance (audits).
    """

    def __init__(self, settings: Settings, home: Path, answers: RecordedAnswers) -> None:
        kinds = ("openai_compatible", "litellm", "simulated")
        values: dict[str, Any] = {"home": home, "recordings": False, "discover": False}
        if settings.model is None and not settings.ladder:
            values["model"] = "sim/small"  # a model that would have been looked for is no setting that can be compared
        values["semantic_cache.mode"] = "off"
        super().__init__(settings=settings, providers=dict.fromkeys(kinds, answers), **values)
        self.traces = Traces()
        self._answers = answers

    def _recorded_rung(self, request: Request) -> str | None:
        return self._answers.rung_of(request, max(0, self.traces.times(request) - 1))

    def _noted(self, request: Request) -> _Entry:
        entry = self.traces.begin(request)
        entry.followed = self._followed(request)[1]
        return entry

    def _wait(self, request: Request) -> Reply:
        entry = self._noted(request)
        try:
            entry.reply = super()._wait(request)
        except BaseException as error:
            entry.error = type(error).__name__
            raise
        return entry.reply

    async def _await(self, request: Request) -> Reply:
        entry = self._noted(request)
        try:
            entry.reply = await super()._await(request)
        except BaseException as error:
            entry.error = type(error).__name__
            raise
        return entry.reply

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        entry = self._noted(request)
        entry.live = super()._live(request, own_thread=own_thread)
        return entry.live


def _call_trace(entry: _Entry) -> CallTrace:
    request = entry.request
    bare = _BARE[type(request.content)]
    asked = {name: plain_json(value) for name, value in asdict(request.content).items() if value != bare[name]}
    options = {
        name: str(value) if isinstance(value, Decimal) else value
        for name, value in asdict(request.options).items()
        if name not in _NOT_OPTIONS and value != _OPTIONS[name]
    }
    if entry.live is not None and entry.reply is None and entry.live.over:
        try:
            entry.reply = entry.live.reply
        except NbllmError as error:
            entry.error = type(error).__name__
    reply = entry.reply
    answer: dict[str, Any] = {}
    books: dict[str, Any] = {}
    if reply is not None:
        answer = {
            "text": reply.text, "data": _data(reply.data), "tool_calls": reply.message.get("tool_calls"),
            "finish_reason": reply.finish_reason,
        }  # fmt: skip
        books = {
            "rung": reply.rung, "source": reply.source, "cost_usd": _usd(reply.cost_usd), "saved_usd": _usd(reply.saved_usd),
            "requests": sum(attempt.sent is not False for attempt in reply.attempts),
        }  # fmt: skip
    return CallTrace(
        models=request.models, asked=asked, options=_every(options), answer=answer, books=books, error=entry.error,
        followed=entry.followed,
    )  # fmt: skip


def _every(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options, those that were not set too: a side that does not set one differs from a side that does."""
    return {name: options.get(name) for name in _OPTIONS if name not in _NOT_OPTIONS}


def _usd(value: Decimal | None) -> str | None:
    return None if value is None else str(value.normalize())


def _data(value: Any) -> Any:
    """Return parsed data as plain values, without the identity of its class: a notebook's and a module's are two classes."""
    if value is None:
        return None
    from pydantic import TypeAdapter

    with suppress(Exception):  # what has no schema is shown as it shows itself
        return TypeAdapter(type(value)).dump_python(value, mode="json")
    return plain(value)


def run_here(spec: Any, run: RecordedRun, client: TracingClient, answers: RecordedAnswers) -> RunTrace:
    """Run a flow (a FlowSpec) with recorded arguments on this process's road and return what it did. Not on an event loop.

    An async flow gets a loop of its own, on a thread of its own where one runs already.
    """
    answers.begin(run.calls, run.around)
    result: Any = None
    error = ""
    try:
        arguments = spec.parse(dict(run.arguments))
        with use(client):
            value = spec.call(arguments)
            if spec.is_async:
                value = _awaited(value, client)
        result = json.loads(spec.result_json(value))
    except Exception as exc:  # a flow may raise anything; the service is to do the same
        error = type(exc).__name__
    return RunTrace(flow=spec.name, arguments=run.arguments, calls=client.traces.take(), result=result, error=error)


def _awaited(awaitable: Any, client: TracingClient) -> Any:
    """Await on a loop of a new thread: the caller's may be busy, as a notebook's is."""
    found: list[Any] = []

    async def main() -> None:
        with use(client):
            found.append(await awaitable)

    problem: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # raised again by who waits
            problem.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="nbllm-parity")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return found[0]
