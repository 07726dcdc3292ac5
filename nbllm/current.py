"""The doors on the current client: ask, stream, embed, flow, use, render, usage, check_slo.

The current client is that of `use(...)` in this context, else the one that the notebook extension or a service set for the
process, else a default one, made on first use. Threads see the process's client, those that a flow starts the flow's.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, Unpack, cast

from nbllm.asking import Prompt
from nbllm.client import Client
from nbllm.core.reply import Reply
from nbllm.core.usage_table import UsageTable
from nbllm.doors import door
from nbllm.errors import InvalidRequest
from nbllm.flow_arguments import Parameters
from nbllm.flow_context import FLOW, Flow
from nbllm.notices import say
from nbllm.preparing import PREPARE
from nbllm.settings import CallOptions, EmbedOptions
from nbllm.streams import AsyncStream, Stream

if TYPE_CHECKING:
    from nbllm.labelling import Marked

P = ParamSpec("P")
R = TypeVar("R")
_here: ContextVar[Client | None] = ContextVar("nbllm_client", default=None)
_lock = threading.Lock()
_process: Client | None = None


def get_client() -> Client:
    """Return the current client."""
    client = _here.get()
    return client if client is not None else _process or _default()


def client_if_any() -> Client | None:
    """Return the current client; None where nobody has needed one yet."""
    return _here.get() or _process


def _default() -> Client:
    global _process  # noqa: PLW0603 - one default client a process is the point
    with _lock:
        if _process is None:
            made = Client()
            for prepare in PREPARE:
                prepare(made)
            _process = made
        return _process


def set_process_client(client: Client | None) -> None:
    """Make a client the current one for the whole process, pool threads included; None: a default one on next use."""
    global _process  # noqa: PLW0603 - see _default
    with _lock:
        _process = client


class _Use:
    """What `use` returns: the client is the current one while a with block of it runs; blocks of one context may nest."""

    _unused = False
    """Whether nobody entered it; a half-made one has nothing to say."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tokens: list[Token[Client | None]] = []
        self._unused = True

    def __enter__(self) -> Client:
        self._tokens.append(_here.set(self._client))
        self._unused = False
        return self._client

    def __exit__(self, *_: object) -> None:
        _here.reset(self._tokens.pop())

    def __repr__(self) -> str:
        """Return what it is, and how to enter it: a notebook shows and keeps what a cell ends with, so that it is never dropped."""
        return f"use({self._client!r})" + (f": not in use yet. {_HOW_TO_USE}" if self._unused else "")

    def __del__(self) -> None:
        if self._unused and not sys.is_finalizing():
            say((f"nbllm.use({self._client!r}) was dropped without a with block, so it changed nothing.\n{_HOW_TO_USE}",))


_HOW_TO_USE = (
    "Write `with nbllm.use(client): ...` around the calls that it is for, or `nbllm.set_process_client(client)` to make it the "
    "current client from here on."
)


def use(client: Client) -> AbstractContextManager[Client]:
    """Make a client the current one for a with block, in this context only: `with nbllm.use(client): ...`.

    Alone it does nothing and warns (NbllmWarning): `nbllm.set_process_client(client)` is for the whole process, without a block.
    """
    return _Use(client)


@door()
def ask(prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Reply:
    """Ask the current client and wait for the whole answer. See Client.ask."""
    return get_client().ask(prompt, *more, **options)


@door()
async def aask(prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Reply:
    """Async twin of `ask`."""
    return await get_client().aask(prompt, *more, **options)


@door()
def stream(prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Stream:
    """Ask the current client and return the answer piece by piece. See Client.stream."""
    return get_client().stream(prompt, *more, **options)


@door()
def astream(prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> AsyncStream:
    """Async twin of `stream`."""
    return get_client().astream(prompt, *more, **options)


@door("embed")
def embed(texts: Sequence[str], *more: Never, **options: Unpack[EmbedOptions]) -> Any:
    """Embed texts with the current client; a float32 array of shape (texts, dimensions)."""
    return get_client().embed(texts, *more, **options)


@door("embed")
async def aembed(texts: Sequence[str], *more: Never, **options: Unpack[EmbedOptions]) -> Any:
    """Async twin of `embed`."""
    return await get_client().aembed(texts, *more, **options)


def mark(reply_or_call_id: Reply | str, *, wrong: bool = True) -> Marked:
    """Say that an answer was wrong: it leaves the cache, and a pair of questions it was shared by never matches again.

    wrong=False says that it was right. Raises InvalidRequest for a call that is not known. See SemanticBook.mark.
    """
    return get_client().semantic.mark(reply_or_call_id, wrong=wrong)


def usage(by: str = "model", **where: Any) -> UsageTable:
    """Return sums over this session's calls by "model", "feature", "user", "day" ... See Client.usage."""
    return get_client().usage(by, **where)


def check_slo(**limits: Any) -> Any:
    """Hold this session's calls against limits; raises SloViolated with the numbers. See Client.check_slo."""
    return get_client().check_slo(**limits)


def render(template: str, /, **values: Any) -> str:
    """Fill a prompt template as %%llm does: Jinja2 in a sandbox, undefined names refused by name (TemplateError)."""
    from nbllm.core.templates import render as render_template

    return render_template(template, values)


def flow(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function as a flow: its calls are recorded as one unit, with its name and arguments. Plain and async functions.

    Calls of threads that it starts are its own, too (nbllm.flow_threads).

    Raises InvalidRequest for what is no such function.
    """
    given: Any = function  # what is refused here may be anything
    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given) or not inspect.isroutine(given):
        raise InvalidRequest(
            f"@flow is on {function!r:.80}, which is no plain or async function.", hint="Let it return its answer in one piece."
        )
    from nbllm.flow_threads import follow_threads  # who has no flow needs no pool of threads

    name = function.__name__
    signature = inspect.signature(function)
    follow_threads()
    parameters = Parameters(function, signature)

    def entered(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flow:
        bound = signature.bind(*args, **kwargs)
        given = frozenset(bound.arguments)
        bound.apply_defaults()
        made = Flow(name, lambda: parameters.recorded(bound.arguments, given))
        client = client_if_any()
        if client is not None and client.settings.recordings:
            made.shown  # noqa: B018 - worked out here: the flow may change what it was given before it asks
        return made

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with _running(entered(args, kwargs)):
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def async_wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        with _running(entered(args, kwargs)):
            return await cast("Awaitable[Any]", function(*args, **kwargs))

    chosen: Any = async_wrapper if inspect.iscoroutinefunction(function) else wrapper
    chosen.__nbllm_flow__ = name
    return chosen  # type: ignore[no-any-return]  # one of the two wrappers of P -> R


@contextmanager
def _running(run: Flow) -> Iterator[None]:
    """Have the code of a with block be a run of a flow, and say in the end how it ended."""
    token, status = FLOW.set(run), "failed"
    try:
        yield
        status = "done"
    finally:
        FLOW.reset(token)
        run.over(status)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
