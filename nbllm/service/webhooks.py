"""Webhooks: told when a job ended, signed, to hosts that the app's settings name, never to an address inside.

As standardwebhooks.com has it: webhook-id, webhook-timestamp and webhook-signature, an HMAC-SHA256 over id, time and body with a
secret that each key of the service has of its own. The name is resolved once for each try, all its addresses are looked at, and
the connection goes to one of those; so a name that changes its address meanwhile (DNS rebinding) leads nowhere else. Redirects
are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import ssl as tls
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from nbllm.service.problems import ServiceProblem

PATTERN = r"^https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[!$-;=?-~]*)?$"
"""Only plain names: what one parser takes for a host and another for a user name or a path is refused."""
RETRY_AFTER_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 4 * 3600.0)
"""Waits between tries; after the last one it is given up."""
_TRY_S = 10.0
_GONE = 410


class WebhookRefused(ServiceProblem):
    """The address of a webhook is none that this service sends to."""

    def __init__(self, detail: str) -> None:
        super().__init__(422, "webhook-refused", "No webhook is sent there.", detail, parameter="Webhook-Url")


class Webhooks:
    """Sends webhooks to some hosts. hosts: names, "*.example.org" for all below one, "name:8443" for another port than 443.

    secret: the app's own, from which each caller's is made. resolver, is_allowed, ssl: for tests.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        secret: bytes,
        *,
        resolver: AbstractResolver | None = None,
        is_allowed: Callable[[str], bool] | None = None,
        ssl: tls.SSLContext | bool = True,
    ) -> None:
        self._hosts = tuple(host.casefold() for host in hosts)
        self._secret = secret
        self._resolver = resolver
        self._is_allowed = is_public if is_allowed is None else is_allowed
        self._ssl = ssl
        self._session: aiohttp.ClientSession | None = None

    def check(self, url: str) -> str:
        """Return the address when a job's webhook may go there. Raises WebhookRefused."""
        if not self._hosts:
            raise WebhookRefused("This service sends none: webhook_hosts in its settings names no host.")
        if not re.fullmatch(PATTERN, url):
            raise WebhookRefused("It must be https://NAME/PATH in plain ASCII, without a user name.")
        name, _, port = url.removeprefix("https://").partition("/")[0].casefold().partition(":")
        if _is_address(name):
            raise WebhookRefused("It must name its host, not give an address.")
        wanted = name.rstrip(".") + (f":{port}" if port not in ("", "443") else "")
        if not any(_fits(wanted, host) for host in self._hosts):
            raise WebhookRefused("The host is not among webhook_hosts of this service's settings.")
        return url

    def secret_of(self, caller: str) -> str:
        """Return the secret with which a caller checks what it gets, as libraries for standardwebhooks.com take it."""
        return "whsec_" + base64.b64encode(self._secret_of(caller)).decode()

    def _secret_of(self, caller: str) -> bytes:
        return hmac.digest(self._secret, b"webhook\0" + caller.encode(), hashlib.sha256)

    def signed(self, caller: str, message_id: str, body: bytes, *, at: int) -> dict[str, str]:
        """Return the headers of a message. at: Unix time in seconds."""
        signature = hmac.digest(self._secret_of(caller), f"{message_id}.{at}.".encode() + body, hashlib.sha256)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": "v1," + base64.b64encode(signature).decode(),
        }

    async def send(self, url: str, caller: str, message_id: str, body: bytes) -> tuple[bool, str]:
        """Try once. Return whether that is the end of it (delivered, or never to be), and what happened, for the log."""
        try:
            self.check(url)  # settings may have changed since the job came
        except WebhookRefused as exc:
            return True, exc.problem.detail
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "nbllm",
            **self.signed(caller, message_id, body, at=int(time.time())),
        }
        try:
            async with self._opened().post(url, data=body, headers=headers, allow_redirects=False, ssl=self._ssl) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            return False, type(exc).__name__
        if 200 <= status < 300:
            return True, "delivered"
        return status == _GONE, f"status {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = _Checked(self._resolver or aiohttp.ThreadedResolver(), self._is_allowed)
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=8)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=_TRY_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def aclose(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Checked(AbstractResolver):
    """A resolver that knows no name which leads inside, not even by one of its addresses."""

    def __init__(self, inner: AbstractResolver, is_allowed: Callable[[str], bool]) -> None:
        self._inner = inner
        self._is_allowed = is_allowed

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """Return the addresses of a name. OSError when one of them is inside."""
        found = await self._inner.resolve(host, port, family)
        if not found or not all(self._is_allowed(one["host"]) for one in found):
            raise OSError("the host has an address inside, where no webhook goes")
        return found

    async def close(self) -> None:
        """Close the inner one."""
        await self._inner.close()


_INSIDE_6 = tuple(
    map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10"))
)
"""Addresses that carry an IPv4 address inside, or belong to a site: where they end depends on the network."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large: not loopback, private, link-local, shared, reserved or multicast."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _INSIDE_6):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _is_address(name: str) -> bool:
    """Whether a name is an address, in any of the ways that C libraries read one: 127.1, 0x7f000001, 2130706433."""
    return re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", name) is not None


def _fits(wanted: str, allowed: str) -> bool:
    return wanted.endswith(allowed[1:]) if allowed.startswith("*.") else wanted == allowed
