"""Models behind OpenAI's wire, over aiohttp: vLLM, Ollama, llama.cpp, LM Studio, OpenRouter, OpenAI and all that speak alike."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from nbllm.core.messages import Ending, Rung
from nbllm.core.ports import Progress, Wire
from nbllm.errors import AttemptFailed, BadParameter, ConfigurationError
from nbllm.providers.connections import Body, Certificates, Proxies, Sessions
from nbllm.providers.failures import Where
from nbllm.providers.hosts import headers_for, host_of, key_for
from nbllm.providers.limits import rate_limits
from nbllm.providers.reading import Reading, abort, cut, refusal
from nbllm.providers.schema_modes import SchemaModes
from nbllm.providers.transport_failures import FOREIGN, harmless, transport_failure
from nbllm.providers.wire import path_of, request_body
from nbllm.redaction import is_secret_name, register_secret
from nbllm.settings.endpoint import header_variable


class Target:
    """Where one request goes and with which headers. Has no repr of its fields: tracebacks that show variables show no key."""

    __slots__ = ("headers", "proxy", "tls", "url", "where")

    def __init__(self, url: URL, headers: dict[str, str], where: Where, proxy: URL | None, tls: Any) -> None:
        self.url = url
        self.headers = headers
        self.where = where
        self.proxy = proxy
        self.tls = tls


class OpenAICompatible:
    """A Provider (core/ports.py) for any endpoint that speaks OpenAI's wire. One instance serves all endpoints.

    environ: where keys are looked up, os.environ if None. Proxies and certificate authorities are always the process's own.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._sessions = Sessions()
        self._proxies = Proxies()
        self._certificates = Certificates()
        self._schema_modes = SchemaModes()
        self._in_flight: set[aiohttp.ClientResponse] = set()

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Send one request and see it through. Never retries a request that may have reached the server.

        Raises AttemptFailed of the fitting kind; InvalidRequest, KeyNotAllowed and ConfigurationError before anything is sent.
        """
        in_prompt = self._schema_modes.in_prompt(wire.rung)
        body = request_body(wire, schema_in_prompt=in_prompt)
        target = await self._target(wire.rung, path_of(wire.content))
        response = await self._post(target, body, progress)
        self._in_flight.add(response)
        try:
            limits = rate_limits(response.headers, time.time())
            if limits is not None:
                progress.limits(limits)
            if response.status == 200:
                return await Reading(wire, progress, response, target.where).read()
            raise await refusal(response, target.where)
        except BadParameter as exc:
            refused = self._schema_modes.refused(wire, exc, in_prompt=in_prompt)
            if refused is exc:
                raise
        finally:
            self._in_flight.discard(response)
            cut(response)
        raise refused

    async def aclose(self) -> None:
        """Close all sockets and wait until they are closed. Requests that are still under way fail with ConnectionFailed."""
        for response in tuple(self._in_flight):
            cut(response)
        await self._sessions.aclose()

    async def _target(self, rung: Rung, path: str) -> Target:
        endpoint = rung.endpoint
        try:
            key = key_for(rung.endpoint_name, endpoint, self._environ)
        except AttemptFailed as exc:
            exc.rung = rung.id
            raise
        headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "nbllm"}
        secrets: list[str] = []
        if key is not None:
            register_secret(key)
            secrets.append(key)
            headers["Authorization"] = f"Bearer {key}"
        own = headers_for(rung.endpoint_name, endpoint, self._environ)
        _check_headers(rung.endpoint_name, own)
        for name, value in own.items():
            if is_secret_name(name) or header_variable((endpoint.headers or {})[name]):
                register_secret(value)
                secrets.append(value.removeprefix("Bearer "))
            headers[name] = value
        url = _url(endpoint.base_url, path)
        tls: Any = True
        if url.scheme == "https":
            tls = await self._certificates.context() if endpoint.verify_tls else False
        named = rung.endpoint_name if endpoint.settings_file else ""
        where = Where(rung.id, _shown_host(endpoint.base_url), tuple(secrets), keyed=bool(secrets), endpoint=named)
        return Target(url, headers, where, self._proxies.for_url(url), tls)

    async def _post(self, target: Target, data: bytes, progress: Progress) -> aiohttp.ClientResponse:
        session = self._sessions.get()
        for last in (False, True):
            body = Body(data, progress.sent)
            try:
                return await session.post(
                    target.url, data=body, headers=target.headers, allow_redirects=False, proxy=target.proxy, ssl=target.tls
                )
            except FOREIGN as exc:
                abort(body.transport)
                # An idle connection that the server had closed: nothing was written, so this is not a second request.
                if not body.was_sent and not last and _went_stale(exc):
                    continue
                raise transport_failure(exc, target.where) from harmless(exc)
            except BaseException:
                abort(body.transport)
                raise
        raise AssertionError("unreachable: the last turn returns or raises")


def _check_headers(endpoint_name: str, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (name.isascii() and name.isprintable()) or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise ConfigurationError(
                f"The header {name!r} of {endpoint_name!r} holds characters that no header may hold. Nothing was sent.",
                hint="Remove line breaks and control characters from headers= or from the variable that it names.",
            )


def _went_stale(exc: BaseException) -> bool:
    if isinstance(exc, aiohttp.ClientConnectorError):
        return False
    return isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError))


@lru_cache(maxsize=256)
def _url(base_url: str, path: str) -> URL:
    host_of(base_url)
    address, mark, query = base_url.partition("?")
    return URL(address.rstrip("/") + path + mark + query)


@lru_cache(maxsize=256)
def _shown_host(base_url: str) -> str:
    url = URL(base_url)
    return f"{url.host}:{url.port}" if url.explicit_port else host_of(base_url)
