"""The messages between the kernel and the JupyterLab extension: JSON objects in the data of a comm, typed and versioned.

The other half of this file is labextension/src/protocol.ts; both are tested against tests/data/lab_protocol.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from nbllm.notebook.lab.shapes import CacheMode, Change, Count, Id, Money, Name, Pace, Path, Report, State, Tag, Text, Time, Version

TARGET = "nbllm"
"""The comm target, on both sides."""


class Announce(TypedDict):
    """The kernel has loaded the nbllm extension: the data of the comm that it opens."""

    v: Version
    type: Literal["announce"]
    nbllm: Name


class KernelFacts(TypedDict):
    """Which kernel process speaks. started_at: when nbllm was loaded in it."""

    nbllm: Name
    session: Name
    started_at: Time
    pid: Count


class Snapshot(TypedDict):
    """The whole state. seq: the number of the last delta that it contains, 0 for none."""

    v: Version
    type: Literal["snapshot"]
    seq: Count
    kernel: KernelFacts
    notebook: Tag | None
    state: State


class Delta(TypedDict):
    """What has changed since the message before; seq is one more than that message's."""

    v: Version
    type: Literal["delta"]
    seq: Annotated[int, Field(ge=1, le=2**53 - 1)]
    state: Change


class ResultData(TypedDict):
    """What a command brings: report the Markdown, why the text, clear_cache and count_cache the entries, and so on."""

    markdown: NotRequired[Report]
    text: NotRequired[Report]
    entries: NotRequired[Count]
    hard_usd: NotRequired[Money | None]
    mode: NotRequired[CacheMode | None]


class Result(TypedDict):
    """The answer to one command: a sentence for the user, and what it brings."""

    v: Version
    type: Literal["result"]
    id: Id
    ok: bool
    message: Text
    data: ResultData | None


# -------------------------------------------------------------------------------------------------------- to the kernel


class Hello(TypedDict):
    """The front end has opened a comm. notebook: its path as the server knows it; None for a console."""

    v: Version
    type: Literal["hello"]
    front: Name
    app: Name
    notebook: Path | None
    updates_per_s: Pace


class AskSnapshot(TypedDict):
    """A number was missing, or the front end begins anew."""

    v: Version
    type: Literal["ask_snapshot"]


class SetPace(TypedDict):
    """How many deltas a second at most."""

    v: Version
    type: Literal["pace"]
    updates_per_s: Pace


class _Command(TypedDict):
    v: Version
    type: Literal["command"]
    id: Id


class Stop(_Command):
    """End a call, or this waiter of a shared one."""

    do: Literal["stop"]
    call_id: Id


class SetBudget(_Command):
    """Set the session's hard limit; None takes it away."""

    do: Literal["set_budget"]
    usd: Money | None


class SetCacheMode(_Command):
    """How calls of this notebook that say nothing else use the cache; None: as the settings say."""

    do: Literal["cache_mode"]
    mode: CacheMode | None


class ClearCache(_Command):
    """Drop the stored answers that calls of this notebook made or used."""

    do: Literal["clear_cache"]


class CountCache(_Command):
    """Ask how many stored answers clear_cache would drop."""

    do: Literal["count_cache"]


class AskReport(_Command):
    """Ask for the session as Markdown."""

    do: Literal["report"]


class AskWhy(_Command):
    """Ask why a call was answered as it was."""

    do: Literal["why"]
    call_id: Id


Command = Stop | SetBudget | SetCacheMode | ClearCache | CountCache | AskReport | AskWhy
FromKernel = Announce | Snapshot | Delta | Result
ToKernel = Hello | AskSnapshot | SetPace | Command


class BadMessage(ValueError):
    """What came is no message of this version. The text names the place, never what was there."""


_FRONT: TypeAdapter[FromKernel] = TypeAdapter(Annotated[FromKernel, Field(discriminator="type")])
_KERNEL: dict[str, TypeAdapter[Any]] = {
    "hello": TypeAdapter(Hello),
    "ask_snapshot": TypeAdapter(AskSnapshot),
    "pace": TypeAdapter(SetPace),
    "command": TypeAdapter(Annotated[Command, Field(discriminator="do")]),
}


def to_kernel(data: object) -> ToKernel:
    """Return what a front end sent, checked, without members that this version does not know. Raises BadMessage."""
    kind = data.get("type") if isinstance(data, dict) else None
    adapter = _KERNEL.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        raise BadMessage("a message of no known type" if isinstance(data, dict) else "something that is no JSON object")
    message: ToKernel = _checked(adapter, data)
    return message


def to_front(data: object) -> FromKernel:
    """Return what a kernel sent, checked in the same way: for tests, as the front end checks it for itself."""
    message: FromKernel = _checked(_FRONT, data)
    return message


def _checked(adapter: TypeAdapter[Any], data: object) -> Any:
    try:
        return adapter.validate_python(data, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        # The place may hold what the sender wrote: keys are ours, and only they and numbers are named.
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())[:80]
        raise BadMessage(f"a message that is wrong at {place or 'its top'} ({first['type']})") from None
