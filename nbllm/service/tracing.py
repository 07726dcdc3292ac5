"""Runs of flows that cost nothing and tell everything: answers come from recordings, each call leaves a trace."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from nbllm.client import Client
from nbllm.core.messages import Chat, Embed, Options, Request
from nbllm.core.ports import Recording, Wire
from nbllm.core.reply import Reply
from nbllm.current import use
from nbllm.errors import NbllmError
from nbllm.flow_context import plain
from nbllm.live import LiveCall
from nbllm.redaction import redact
from nbllm.service.parity import CallTrace, RunTrace
from nbllm.settings import Settings
from nbllm.testing import FakeProvider

_BARE = {Chat: asdict(Chat(messages=())), Embed: asdict(Embed(texts=()))}
_OPTIONS = asdict(Options())
_MOST_AROUND = 200
_NOT_OPTIONS = {"schema_type", "check", "user", "watched", "on_interrupt", "tags", "scopes"}
"""Objects of a process, and who asked and watched: they differ between a notebook and a service by their nature."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One recorded run of a flow: its arguments and its calls, as recordings keep them; result: where it is known.

    around: calls outside of any flow: a %%llm cell that was asked once for the whole notebook, a service asks in each run.
    """

    flow: str
    arguments: Mapping[str, Any]
    calls: tuple[Mapping[str, Any], ...]
    result: Any = None
    knows_result: bool = False
    around: tuple[Mapping[str, Any], ...] = ()

    def trace(self) -> RunTrace:
        """Return what is known of it, to compare with."""
        return RunTrace(
            flow=self.flow, arguments=self.arguments, calls=tuple(map(_recorded_trace, self.calls)), result=self.result,
            knows_result=self.knows_result,
        )  # fmt: skip

    def around_traces(self) -> tuple[CallTrace, ...]:
        """Return what is known of the calls outside of flows."""
        return tuple(map(_recorded_trace, self.around))


def _recorded_trace(call: Mapping[str, Any]) -> CallTrace:
    asked = dict(call.get("prompt") or {"messages": call.get("messages", [])})
    rung = call.get("rung") or call.get("model")
    return CallTrace(models=None, asked=asked, answer={"text": call.get("text", "")}, books={"rung": rung} if rung else {})


def recorded_runs(recordings: Iterable[Recording], flows: Iterable[str]) -> list[RecordedRun]:
    """Return the recorded runs of these flows, oldest first, each set of arguments once (its newest run).

    A call within a flow within a flow belongs to the inner one: only runs of whole calls are replayed.
    """
    wanted = set(flows)
    around: dict[str, Mapping[str, Any]] = {}
    runs: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for one in sorted(recordings, key=lambda r: r.started_at):
        if one.flow is not None and one.flow.get("name") in wanted:
            runs[one.flow["name"], str(one.flow.get("run"))].append(one)
        elif one.flow is None and "messages" in one.prompt:
            around[json.dumps(one.prompt["messages"], sort_keys=True, default=str)] = _told(one)
    by_arguments: dict[str, RecordedRun] = {}
    for (name, _), calls in runs.items():
        arguments = (calls[0].flow or {}).get("arguments", {})
        known = json.dumps([name, arguments], sort_keys=True, default=str)
        by_arguments[known] = RecordedRun(name, arguments, tuple(map(_told, calls)), around=tuple(around.values())[-_MOST_AROUND:])
    return list(by_arguments.values())


def _told(one: Recording) -> Mapping[str, Any]:
    return {"prompt": one.prompt, "rung": one.model, "text": one.answer.get("text", "")}


class RecordedAnswers(FakeProvider):
    """Answers what was recorded for the same messages, else for the call of that number in the run, else "ok"; costs nothing."""

    def __init__(self) -> None:
        super().__init__(default=self._answer)
        self._run: RecordedRun | None = None
        self._at = 0

    def begin(self, run: RecordedRun) -> None:
        """From here on answer for this run."""
        self._run, self._at = run, 0

    def _answer(self, wire: Wire) -> str:
        messages = _plain_json(wire.content.messages if isinstance(wire.content, Chat) else ())
        calls, around = (self._run.calls, self._run.around) if self._run else ((), ())
        beside = _same_messages(around, messages)
        if beside is not None and _same_messages(calls, messages) is None:
            return beside or "ok"
        number, self._at = self._at, self._at + 1
        same = _same_messages(calls, messages)
        return (same if same is not None else str(calls[number].get("text", "")) if number < len(calls) else "") or "ok"


def _same_messages(calls: Sequence[Mapping[str, Any]], messages: Any) -> str | None:
    """Return the recorded text of the call with the same messages, None without one."""
    wanted = redact(json.dumps(messages))
    return next((str(c.get("text", "")) for c in calls if redact(json.dumps(_plain_json(_messages_of(c)))) == wanted), None)


def _messages_of(call: Mapping[str, Any]) -> Any:
    return (call.get("prompt") or call).get("messages", [])


def _plain_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@dataclass(slots=True)
class _Entry:
    request: Request
    reply: Reply | None = None
    live: LiveCall | None = None
    error: str = ""


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

    def take(self) -> tuple[CallTrace, ...]:
        """Return what was noted, and begin anew."""
        with self.lock:
            entries, self.entries = self.entries, []
        return tuple(map(_call_trace, entries))


class TracingClient(Client):
    """A client on a home of its own whose models are recorded answers, and which notes each call.

    settings: those to try; what they say of models, routes, parameters and budgets holds, their keys are not needed.
    """

    def __init__(self, settings: Settings, home: Path, answers: RecordedAnswers) -> None:
        kinds = ("openai_compatible", "litellm", "simulated")
        values: dict[str, Any] = {"home": home, "recordings": False, "discover": False}
        if settings.model is None and not settings.ladder:
            values["model"] = "sim/small"  # a model that would have been looked for is no setting that can be compared
        super().__init__(settings=settings, providers=dict.fromkeys(kinds, answers), **values)
        self.traces = Traces()

    def _wait(self, request: Request) -> Reply:
        entry = self.traces.begin(request)
        try:
            entry.reply = super()._wait(request)
        except BaseException as error:
            entry.error = type(error).__name__
            raise
        return entry.reply

    async def _await(self, request: Request) -> Reply:
        entry = self.traces.begin(request)
        try:
            entry.reply = await super()._await(request)
        except BaseException as error:
            entry.error = type(error).__name__
            raise
        return entry.reply

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        entry = self.traces.begin(request)
        entry.live = super()._live(request, own_thread=own_thread)
        return entry.live


def _call_trace(entry: _Entry) -> CallTrace:
    request = entry.request
    bare = _BARE[type(request.content)]
    asked = {name: _plain_json(value) for name, value in asdict(request.content).items() if value != bare[name]}
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
        answer = {"text": reply.text, "data": _data(reply.data), "finish_reason": reply.finish_reason}
        books = {
            "rung": reply.rung, "source": reply.source, "cost_usd": _usd(reply.cost_usd), "saved_usd": _usd(reply.saved_usd),
            "requests": sum(attempt.sent is not False for attempt in reply.attempts),
        }  # fmt: skip
    return CallTrace(models=request.models, asked=asked, options=_every(options), answer=answer, books=books, error=entry.error)


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
    answers.begin(run)
    result: Any = None
    error = ""
    try:
        arguments = spec.arguments.model_validate(dict(run.arguments))
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

    thread = threading.Thread(target=run, name="nbllm-parity")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return found[0]
