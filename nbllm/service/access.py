"""Who asks: a dependency of every route that is not for everybody, for HTTP and WebSocket.

It is a dependency of routes, not a middleware that compares paths, so that no way of writing a path leads past it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from nbllm.service.caller import Caller
from nbllm.service.context import Exchange, Service, exchange_of, service_of
from nbllm.service.limiting import OverLimit
from nbllm.service.problems import ServiceProblem

_bearer = HTTPBearer(
    scheme_name="key",
    description="A key of this service (`nbllm keys make DIR`), as `Authorization: Bearer KEY`.",
    auto_error=False,
)


class NotAuthenticated(ServiceProblem):
    """No key, or none that is known here."""

    def __init__(self, detail: str) -> None:
        super().__init__(401, "unauthenticated", "A key is needed.", detail, headers={"WWW-Authenticate": "Bearer"})


def identified(service: Service, exchange: Exchange, authorization: str | None) -> Caller:
    """Return who an Authorization header stands for, once a request. Raises NotAuthenticated, and as caller_of does."""
    if exchange.caller is not None:
        return exchange.caller
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.casefold() != "bearer" or not text.strip():
        raise NotAuthenticated("Send it as Authorization: Bearer KEY.")
    key = service.keys.verify(text.strip())
    if key is None:
        raise NotAuthenticated("The one that was sent is not known here, or was revoked.")
    exchange.caller = caller_of(service, key.id, key.tier)
    return exchange.caller


def caller_of(service: Service, key_id: str, tier: str) -> Caller:
    """Return who has a key. Raises ServiceProblem (403) for a tier that the settings do not have: its limits are not known."""
    found = service.config.tier(tier)
    if found is None:
        detail = "The settings of this service name it no more. Ask whoever runs it for another key."
        raise ServiceProblem(403, "no-such-tier", "This key is of a tier that there is not.", detail)
    return Caller(key_id, found)


async def known(connection: HTTPConnection, _: Annotated[object, Security(_bearer)]) -> Caller:
    """Return who asks, without counting it as a request: for what watches the service."""
    return identified(service_of(connection), exchange_of(connection), connection.headers.get("authorization"))


async def authenticated(connection: HTTPConnection, _: Annotated[object, Security(_bearer)]) -> Caller:
    """Return who asks, within the limits of its tier. Raises NotAuthenticated, OverLimit, LimitsUnavailable."""
    return await admitted(service_of(connection), exchange_of(connection), connection.headers.get("authorization"))


async def admitted(service: Service, exchange: Exchange, authorization: str | None) -> Caller:
    """Return who an Authorization header stands for, and count the request.

    Raises NotAuthenticated, OverLimit, LimitsUnavailable.
    """
    caller = identified(service, exchange, authorization)
    try:
        exchange.headers.extend(await service.limiter.count_request(caller))
    except OverLimit as over:
        exchange.headers.extend(over.headers_to_add)
        raise
    return caller


Authenticated = Annotated[Caller, Security(authenticated)]
Known = Annotated[Caller, Security(known)]
