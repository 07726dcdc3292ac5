"""What the tests of providers share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from nbllm.core.messages import Chat, Content, Delta, Ending, Rung, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.providers.catalog import Catalog
from nbllm.providers.openai_compatible import OpenAICompatible
from nbllm.settings import Endpoint
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer

T = TypeVar("T")
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
HELLO = Chat(messages=({"role": "user", "content": "Say hi"},))


class Heard:
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.sent_count = 0
        self.deltas: list[Delta] = []
        self.usages: list[Usage] = []
        self.told: list[RateLimits] = []
        self.first = asyncio.Event()

    def sent(self) -> None:
        self.sent_count += 1

    def limits(self, limits: RateLimits) -> None:
        self.told.append(limits)

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.first.set()

    def usage(self, usage: Usage) -> None:
        self.usages.append(usage)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def endpoint(base_url: str, **fields: Any) -> Endpoint:
    return Endpoint(base_url=base_url, **fields)


def wire(place: Endpoint | str, content: Content = HELLO, *, streamed: bool = False, model: str = "m", **fields: Any) -> Wire:
    place = Endpoint(base_url=place) if isinstance(place, str) else place
    rung = Rung(
        id=f"lab/{model}",
        model=model,
        endpoint_name="lab",
        endpoint=place,
        provider="openai_compatible",
        identity="lab",
        price=None,
    )
    return Wire(rung=rung, content=content, streamed=streamed, **fields)


def catalog_wire(model_id: str, environ: dict[str, str], content: Chat = HELLO) -> Wire:
    """A request to a model of the catalog, with these variables set."""
    return Wire(rung=Catalog({}, environ).rung(model_id), content=content, streamed=False, deadline_s=20)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own; exceptions that only the loop's handler sees, and unclosed sockets, fail the test."""
    unheard: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        result = await coroutine
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        return result

    result = asyncio.run(watched())
    gc.collect()
    assert unheard == []
    return result


async def exchange(
    server: FaultServer, behaviour: Behaviour, *, streamed: bool, content: Content = HELLO, **fields: Any
) -> tuple[Ending | Exception, Heard]:
    """Send one request to a server that behaves so; return the ending or the error, and what was heard. Nothing stays open."""
    server.script("m", [behaviour])
    provider, heard = OpenAICompatible({}), Heard()
    try:
        ending: Ending | Exception = await provider.send(wire(server.base_url, content, streamed=streamed, **fields), heard)
    except Exception as exc:
        ending = exc
    finally:
        await provider.aclose()
    return ending, heard
