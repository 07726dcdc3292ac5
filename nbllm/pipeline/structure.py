"""structure: schema or check asked for? Validate; on failure re-ask with the error, capped, its cost added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isawaitable, iscoroutine
from typing import Any

from msgspec.structs import replace

from nbllm.core.messages import Attempt, Chat, Delta, Request, Sink
from nbllm.core.reply import Reply
from nbllm.core.schema import MAX_PROBLEM_CHARS
from nbllm.errors import InvalidRequest, SchemaError, ValidationFailed
from nbllm.pipeline.stage import Stage, show
from nbllm.pipeline.workers import Workers

_LARGE_CHARS = 64_000
"""From this size on a text is validated in a worker thread, so that it cannot stall the loop (about 1 ms here)."""


def needs_validation(request: Request) -> bool:
    """Whether an answer has to pass a schema or check."""
    content = request.content
    return isinstance(content, Chat) and (content.json_schema is not None or request.options.check is not None)


def runs_users_code(request: Request) -> bool:
    """Whether validating runs code of the user, which may take any time and raise anything: a check, or a type's validators."""
    options = request.options
    typed = options.schema_type is not None and not isinstance(options.schema_type, Mapping)  # a JSON Schema is only data
    return needs_validation(request) and (options.check is not None or typed)


def quick(reply: Reply, request: Request) -> bool:
    """Whether validating takes so little time that an event loop can do it."""
    return not runs_users_code(request) and len(reply.text) < _LARGE_CHARS


def validated(reply: Reply, request: Request) -> Reply:
    """Return the reply with `.data` built from its text, or raise ValidationFailed.

    Where it runs the user's code it belongs into a worker thread: a KeyboardInterrupt is taken for that code's own there.
    """
    from nbllm.core.schema import Invalid, parse

    options, content = request.options, request.content
    if not reply.text and reply.message.get("tool_calls"):
        return replace(reply, data=None)  # a question to the caller, not yet the answer that schema and check are about
    data: Any = None
    if isinstance(content, Chat) and content.json_schema is not None:
        theirs = BaseException if runs_users_code(request) else Exception
        try:
            data = parse(options.schema_type if options.schema_type is not None else content.json_schema, reply.text)
        except Invalid as exc:
            raise _failed(reply, exc.problem) from exc
        except SchemaError:
            raise
        except theirs as exc:
            raise _failed(reply, _described(exc)) from exc
    if options.check is not None:
        ask_check(options.check, data if content_has_schema(request) else reply.text, reply)
    return replace(reply, data=data)


def ask_check(check: Callable[[Any], object], answer: Any, reply: Reply) -> None:
    """Call a user's check; raise ValidationFailed for an answer that it does not want."""
    name = getattr(check, "__name__", "function")
    try:
        verdict = check(answer)
        awaitable, refused = isawaitable(verdict), _is_false(verdict)
    except BaseException as exc:  # sys.exit() or pytest.fail() in a user's function must not end the loop's thread
        raise _failed(reply, _described(exc)) from exc
    if awaitable:
        if iscoroutine(verdict):
            verdict.close()
        raise InvalidRequest(
            f"The check {name} returned {type(verdict).__name__!r}, which would have to be awaited; a check is called in a thread.",
            hint="Give a plain function that raises or returns False.",
        )
    if refused:
        raise _failed(reply, f"the check {name} returned False")


def _is_false(verdict: object) -> bool:
    """Whether a check said no: False, or what equals it as a single value (numpy's), but no array of such values."""
    if verdict is None or isinstance(verdict, bool):
        return verdict is False
    same: Any = verdict == False  # noqa: E712 - numpy.bool_(False) is not False
    return same is True or (getattr(same, "shape", None) == () and bool(same))


def _described(exc: BaseException) -> str:
    """Return what users' code raised as text; making it runs their code again."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except BaseException:
        return type(exc).__name__


def content_has_schema(request: Request) -> bool:
    """Whether `.data` is what a check gets, instead of `.text`."""
    return isinstance(request.content, Chat) and request.content.json_schema is not None


def _failed(reply: Reply, problem: str) -> ValidationFailed:
    # It goes back to the model, and every character of it costs.
    problem = problem if len(problem) <= MAX_PROBLEM_CHARS else problem[: MAX_PROBLEM_CHARS - 1] + "…"
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
