"""structure: schema or check asked for? Validate; on failure re-ask with the error, capped, its cost added."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar

from nbllm.core.messages import Attempt, Chat, Delta, Request, Sink
from nbllm.core.reply import Reply
from nbllm.errors import SchemaError, ValidationFailed
from nbllm.pipeline.stage import Stage, show

T = TypeVar("T")
_LARGE_CHARS = 64_000
"""From this size on a text is validated in a worker thread, so that it cannot stall the loop (about 1 ms here)."""


class Workers:
    """The threads in which users' code runs, made on first use."""

    def __init__(self, executor: Callable[[], Executor]) -> None:
        self._make = executor
        self._executor: Executor | None = None
        self._lock = Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Start work in a thread, in the caller's context. Any thread may ask."""
        with self._lock:
            if self._executor is None:
                self._executor = self._make()
            return self._executor.submit(copy_context().run, work)

    async def run(self, work: Callable[[], T]) -> T:
        """Run work in a thread and wait for it."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Let go of the threads; what a user's function still does is not waited for."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
                self._executor = None


def needs_validation(request: Request) -> bool:
    """Whether an answer has to pass a schema or check."""
    content = request.content
    return isinstance(content, Chat) and (content.json_schema is not None or request.options.check is not None)


def validated(reply: Reply, request: Request) -> Reply:
    """Return the reply with `.data` built from its text, or raise ValidationFailed. Runs the user's check: not on the loop."""
    from nbllm.core.schema import Invalid, parse

    options, content = request.options, request.content
    if not reply.text and reply.message.get("tool_calls"):
        return replace(reply, data=None)  # a question to the caller, not yet the answer that schema and check are about
    data: Any = None
    try:
        if isinstance(content, Chat) and content.json_schema is not None:
            data = parse(options.schema_type if options.schema_type is not None else content.json_schema, reply.text)
    except Invalid as exc:
        raise _failed(reply, exc.problem) from exc
    except SchemaError:
        raise
    except (Exception, SystemExit) as exc:  # a type's own code may raise anything
        raise _failed(reply, f"{type(exc).__name__}: {exc}") from exc
    if options.check is not None:
        try:
            verdict = options.check(data if content_has_schema(request) else reply.text)
        except (Exception, SystemExit) as exc:  # sys.exit() in a user's function must not end the loop's thread
            raise _failed(reply, f"{type(exc).__name__}: {exc}") from exc
        if verdict is False:
            raise _failed(reply, f"the check {getattr(options.check, '__name__', 'function')} returned False")
    return replace(reply, data=data)


def quick(reply: Reply, request: Request) -> bool:
    """Whether validating takes so little time that an event loop can do it; users' code can take any."""
    options = request.options
    # A type may bring validators of its own, which are the user's code as well; a JSON Schema is only data.
    only_data = options.check is None and (options.schema_type is None or isinstance(options.schema_type, Mapping))
    return only_data and len(reply.text) < _LARGE_CHARS


def content_has_schema(request: Request) -> bool:
    """Whether `.data` is what a check gets, instead of `.text`."""
    return isinstance(request.content, Chat) and request.content.json_schema is not None


def _failed(reply: Reply, problem: str) -> ValidationFailed:
    return ValidationFailed(f"The answer of {reply.rung} did not pass: {problem}", text=reply.text, problem=problem)


class HoldingSink:
    """Passes starts and restarts on, and holds pieces back until the answer is known to be valid."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def started(self, attempt: Attempt) -> None:
        """Pass it on."""
        self._sink.started(attempt)

    def delta(self, delta: Delta) -> None:
        """Hold the text; reasoning may be seen, nothing is built on it."""
        if delta.reasoning:
            self._sink.delta(Delta(reasoning=delta.reasoning))

    def restarted(self, reason: str) -> None:
        """Pass it on."""
        self._sink.restarted(reason)


class StructureStage:
    """Nothing leaves here with unvalidated data."""

    def __init__(self, inner: Stage, workers: Workers) -> None:
        self._inner = inner
        self._workers = workers

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Ask, validate, and ask again at most `repairs` times."""
        if not needs_validation(request):
            return await self._inner(request, sink)
        holding = HoldingSink(sink)
        asked = request
        for repairs in range(request.options.repairs + 1):
            reply = await self._inner(asked, holding)
            try:
                reply = await self.validate(reply, request)
            except ValidationFailed as exc:
                if reply.truncated or repairs == request.options.repairs:
                    raise _given_up(exc, reply, repairs) from exc
                sink.restarted("repair")
                asked = _again(asked, reply, exc.problem)
                continue
            show(replace(reply, reasoning=""), sink)
            return replace(reply, repairs=repairs)
        raise AssertionError("unreachable: the last try returns or raises")  # pragma: no cover

    async def validate(self, reply: Reply, request: Request) -> Reply:
        """Validate in place when it is quick and only our own code runs, else in a worker thread."""
        if quick(reply, request):
            return validated(reply, request)
        return await self._workers.run(lambda: validated(reply, request))


def _again(asked: Request, reply: Reply, problem: str) -> Request:
    """Return the request that shows the model its answer and what was wrong with it."""
    assert isinstance(asked.content, Chat)  # noqa: S101 - needs_validation saw to it
    messages = (
        *asked.content.messages,
        {"role": "assistant", "content": reply.text},
        {
            "role": "user",
            "content": f"That answer did not pass validation: {problem}\nAnswer the original request again, corrected. "
            "Reply with the corrected answer only.",
        },
    )
    return replace(asked, content=replace(asked.content, messages=messages), purpose="repair")


def _given_up(exc: ValidationFailed, reply: Reply, repairs: int) -> ValidationFailed:
    if reply.truncated:
        return ValidationFailed(
            f"The answer of {reply.rung} was cut by the limit on tokens and does not pass: {exc.problem}",
            text=reply.text,
            problem=exc.problem,
            hint="Raise max_tokens=.",
        )
    return ValidationFailed(
        f"No answer of {reply.rung} passed after {repairs} repair{'' if repairs == 1 else 's'}. Last problem: {exc.problem}",
        text=reply.text,
        problem=exc.problem,
        hint="The last answer is in .text of this error. Loosen the schema or check, raise repairs=, or use a stronger model.",
    )
