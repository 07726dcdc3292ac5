"""Bodies of requests as strict JSON: no NaN, no infinities, no numbers too large, no key twice; parsers differ on them.

Routes of this class read the body before their dependencies run, as FastAPI has it; what is wrong with it is told after them, so
that a stranger without a key learns nothing but that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from nbllm.core.schema import Invalid, json_of
from nbllm.service.problems import ServiceProblem

_WRONG = "nbllm.bad_json"


class MalformedJson(ServiceProblem):
    """The body, or a message, is no JSON."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, "malformed-json", "The body is no JSON.", detail)


def strict_json(body: bytes) -> Any:
    """Return the value of a body. Raises MalformedJson."""
    try:
        value = json_of(body.decode("utf-8"), what="body")
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedJson(f"It is no UTF-8: byte {exc.start}.") from None
    except UnicodeEncodeError:
        raise MalformedJson("A text in it holds half of a surrogate pair, which is no character.") from None
    except Invalid as exc:
        raise MalformedJson(exc.problem) from None
    return value


class _StrictRequest(Request):
    """A request whose json() is strict. What is wrong is remembered for `well_formed`."""

    async def json(self) -> Any:
        try:
            return strict_json(await self.body())
        except MalformedJson as exc:
            self.scope[_WRONG] = exc
            return None


class StrictRoute(APIRoute):
    """A route with strict JSON. Its dependencies end with `well_formed`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the strict request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


async def well_formed(request: Request) -> None:
    """Raise for a body that is no strict JSON."""
    if (wrong := request.scope.get(_WRONG)) is not None:
        raise wrong
