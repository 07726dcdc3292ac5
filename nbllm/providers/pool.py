"""One provider of each kind, made when the first rung needs it, so that simulated calls load neither aiohttp nor litellm."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from nbllm.core.messages import Rung
from nbllm.core.ports import Provider


class Providers:
    """The providers of one client. environ: where keys, addresses and NBLLM_SIM_SPEED are looked up."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._made: dict[str, Provider] = {}
        self._lock = Lock()

    def get(self, rung: Rung) -> Provider:
        """Return the provider that reaches this rung. All endpoints of a kind share one, which keeps their sockets apart."""
        found = self._made.get(rung.provider)
        if found is None:
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
