"""Every other provider that LiteLLM knows: Anthropic, Bedrock, Vertex, Gemini, Azure, Cohere and some hundred more.

The only file that imports litellm, inside a function, on first use, in a thread of its own (it takes seconds; they count against
the deadline, not against the first token). Retries, fallbacks, caches and prices of LiteLLM are off: they are our stages' job.
docs/providers.md says, row by row, which promise holds here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from nbllm.core.messages import Ending
from nbllm.core.ports import Progress, Wire
from nbllm.errors import AttemptTimeout, BadParameter, ConfigurationError
from nbllm.providers.failures import Where
from nbllm.providers.litellm_exchange import CLOSE_S, Exchange
from nbllm.providers.litellm_request import arguments_for, check_environment, key_to_pass, shown_host
from nbllm.providers.schema_modes import SchemaModes
from nbllm.redaction import register_secret

MALICIOUS_VERSIONS = frozenset({"1.82.7", "1.82.8"})
"""Releases of March 2026 that stole keys. They are not imported."""
_library: Future[Any] | None = None
_lock = Lock()


class LiteLLM:
    """A Provider (core/ports) by way of LiteLLM. environ: where keys are looked up, os.environ if None.

    LiteLLM keeps its clients for the whole process; `aclose` closes them when no other instance of this class is in use.
    """

    _in_use = 0

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._counted = False
        self._schema_modes = SchemaModes()

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Send one request and see it through. Before anything is sent: ConfigurationError, InvalidRequest, KeyNotAllowed."""
        in_prompt = self._schema_modes.in_prompt(wire.rung)
        arguments = arguments_for(wire, schema_in_prompt=in_prompt)
        key = key_to_pass(wire.rung, self._environ)
        where = Where(wire.rung.id, shown_host(wire.rung.endpoint), (key,) if key else ())
        try:
            async with asyncio.timeout(wire.deadline_s):
                litellm = await load()
                self._count()
                if key is None:
                    check_environment(litellm, wire.rung)
                else:
                    register_secret(key)
                return await Exchange(litellm, wire, progress, where).run({**arguments, "api_key": key})
        except BadParameter as exc:
            refused = self._schema_modes.refused(wire, exc, in_prompt=in_prompt)
            if refused is exc:
                raise
        except TimeoutError as exc:
            raise AttemptTimeout(f"{wire.rung.id} did not answer within {wire.deadline_s:.3g} s.", rung=wire.rung.id) from exc
        raise refused

    async def aclose(self) -> None:
        """Close LiteLLM's sockets and stop its tasks, unless another instance still uses them."""
        if not self._counted:
            return
        self._counted = False
        with _lock:
            LiteLLM._in_use -= 1
            last = not LiteLLM._in_use
        if last and _library is not None and _library.done():
            await _close_clients(_library.result())

    def _count(self) -> None:
        if not self._counted:
            self._counted = True
            with _lock:
                LiteLLM._in_use += 1


# ---------------------------------------------------------------------------------------------------- the library


async def load() -> Any:
    """Return the litellm module, importing it in a thread of its own the first time. A cancelled waiter does not stop the import.

    Raises ConfigurationError for a release that is known to be malicious (it is not imported) and for one that cannot be imported.
    """
    global _library  # noqa: PLW0603  one module, imported once for the process
    with _lock:
        if _library is None or (_library.done() and _library.exception() is not None):
            _library = Future()
            Thread(target=_import, args=(_library,), name="nbllm-import-litellm", daemon=True).start()
        loading = _library
    if loading.done():
        return loading.result()
    return await asyncio.shield(asyncio.wrap_future(loading))


def _import(future: Future[Any]) -> None:
    try:
        future.set_result(_imported())
    except ConfigurationError as exc:
        future.set_exception(exc)
    except BaseException as exc:  # whatever an import may raise must reach the caller, who waits for it
        failed = ConfigurationError(
            f"litellm could not be imported: {type(exc).__name__}: {exc}",
            hint="Reinstall it: pip install --force-reinstall litellm",
        )
        failed.__cause__ = exc
        future.set_exception(failed)


def _imported() -> Any:
    refuse_malicious(importlib.metadata.version("litellm"))
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it goes to the network at import
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.drop_params = False
    if hasattr(litellm, "telemetry"):
        litellm.telemetry = False
    if not os.environ.get("LITELLM_LOG"):
        logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # its log lines may repeat what a provider's error says
    return litellm


def _after_fork() -> None:
    """In a forked child: an import under way in the parent's thread will never end here, and nothing is in use yet."""
    global _library, _lock  # noqa: PLW0603  see load
    _lock = Lock()
    LiteLLM._in_use = 0  # noqa: SLF001  one file, one counter
    if _library is not None and not _library.done():
        _library = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_malicious(version: str) -> None:
    """Raise ConfigurationError for a release of litellm that must not be imported."""
    if version in MALICIOUS_VERSIONS:
        raise ConfigurationError(
            f"litellm {version} is a malicious release that steals keys; it was not imported by nbllm.",
            hint="Remove it now (pip uninstall litellm), change the keys that this machine held, then install litellm>=1.84.",
        )


async def _close_clients(litellm: Any) -> None:
    """Close the sockets that LiteLLM keeps for the process, forget them, and stop its logging task on this loop."""
    with contextlib.suppress(Exception):  # names of LiteLLM's own that a later release may move; nothing is lost but tidiness
        await litellm.close_litellm_async_clients()
    cache = getattr(litellm, "in_memory_llm_clients_cache", None)
    for client in list(getattr(cache, "cache_dict", {}).values()):
        close = getattr(client, "close", None)
        with contextlib.suppress(Exception):
            closing: Any = close() if close else None
            if hasattr(closing, "__await__"):
                await asyncio.wait_for(closing, CLOSE_S)
    with contextlib.suppress(Exception):
        cache.flush_cache()  # type: ignore[union-attr]  # None is suppressed too
    shared = vars(litellm).get("module_level_aclient")  # Anthropic's, among others; it makes a new session when it needs one
    session = getattr(getattr(getattr(shared, "client", None), "_transport", None), "client", None)
    if session is not None and hasattr(session, "closed") and not session.closed:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(session.close(), CLOSE_S)
    worker = getattr(sys.modules.get("litellm.litellm_core_utils.logging_worker"), "GLOBAL_LOGGING_WORKER", None)
    if worker is not None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(worker.stop(), CLOSE_S)
