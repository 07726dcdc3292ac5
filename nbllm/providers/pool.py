"""One provider of each kind, made when the first rung needs it, so that simulated calls load neither aiohttp nor litellm."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Lock, Thread

from nbllm.core.messages import Ending, Rung
from nbllm.core.ports import Progress, Provider, Wire

_MODULES = {
    "simulated": "nbllm.providers.simulated",
    "litellm": "nbllm.providers.litellm",
    "openai_compatible": "nbllm.providers.openai_compatible",
}


class Providers:
    """The providers of one client. environ: where keys, addresses and NBLLM_SIM_SPEED are looked up."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._made: dict[str, Provider] = {}
        self._lock = Lock()

    def get(self, rung: Rung) -> Provider:
        """Return the provider that reaches this rung. All endpoints of a kind share one, which keeps their sockets apart."""
        found = self._made.get(rung.provider)
        if found is not None:
            return found
        if _MODULES[rung.provider] not in sys.modules:
            return _Late(self, rung)
        with self._lock:
            found = self._made.get(rung.provider)
            if found is None:
                found = self._made[rung.provider] = self._make(rung.provider)
        return found

    async def aclose(self) -> None:
        """Close all of them and wait until their sockets are closed. A later `get` makes new ones."""
        with self._lock:
            made, self._made = list(self._made.values()), {}
        failures: list[BaseException] = []
        for provider in made:
            try:
                await provider.aclose()
            except BaseException as exc:  # the others are closed all the same; the first failure is raised below
                failures.append(exc)
        if failures:
            raise failures[0]

    def _make(self, kind: str) -> Provider:
        if kind == "simulated":
            from nbllm.providers.simulated import Simulated, speed_from

            return Simulated(speed=speed_from(self._environ))
        if kind == "litellm":
            from nbllm.providers.litellm import LiteLLM

            return LiteLLM(self._environ)
        from nbllm.providers.openai_compatible import OpenAICompatible

        return OpenAICompatible(self._environ)


class _Late:
    """A provider whose module is not imported yet. aiohttp takes some 0.3 s: on a thread, so that other calls and timers go on."""

    def __init__(self, providers: Providers, rung: Rung) -> None:
        self._providers = providers
        self._rung = rung

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Import, then send."""
        await _imported(_MODULES[self._rung.provider])
        return await self._providers.get(self._rung).send(wire, progress)

    async def aclose(self) -> None:
        """Do nothing: there is nothing yet."""


async def _imported(module: str) -> None:
    """Import a module on a thread that ends with it."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            importlib.import_module(module)
        except BaseException as exc:  # whatever an import may raise must reach the caller, who waits for it
            done.set_exception(exc)
        else:
            done.set_result(None)

    done.set_running_or_notify_cancel()
    Thread(target=run, name="nbllm-import", daemon=True).start()
    await asyncio.wrap_future(done)
