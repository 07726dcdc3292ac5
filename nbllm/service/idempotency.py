"""Idempotency-Key: a request that is sent again gets the answer that the first one got, byte for byte, and nothing runs twice.

As draft-ietf-httpapi-idempotency-key-header has it: keys belong to their caller; the same key with another request is refused
(422), and so is one whose run is still under way (409). What says "try again later" frees the key, and so does a caller that left.
Where the process died in mid-run nobody knows what was done: the key says so (409) until the request is sent with
`Idempotency-Retry: true`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from nbllm.errors import NbllmError
from nbllm.service.caller import Caller
from nbllm.service.context import Service, exchange_of, service_of
from nbllm.service.failures import log_failure
from nbllm.service.ports import Blocked, Claim, IdempotencyStore, Stored
from nbllm.service.problems import Problem, ServiceProblem, problem_of, problem_response

HEADER, RETRY_HEADER, REPLAYED_HEADER = "Idempotency-Key", "Idempotency-Retry", "Idempotency-Replayed"
KEY_PATTERN = r"^[!-~]{1,255}$"
FREES = frozenset({401, 408, 413, 429, 499, 502, 503, 504})
"""Statuses after which the same request may well be answered: they are not kept."""
MOST_KEPT_BYTES = 2_000_000
"""A larger answer is given, and not kept."""
_NOT_KEPT = frozenset({"content-length", "retry-after", "connection"})
_ALSO_MEANT = ("webhook-url",)
"""Headers that say what is to be done, as the body does."""
_log = logging.getLogger("nbllm.service")

AsResponse = Callable[[Problem, str], Response]


async def refuse_key(connection: HTTPConnection) -> None:
    """Refuse the header where there is no one answer to keep: a dependency of streams and WebSockets."""
    if HEADER in connection.headers:
        detail = f"A stream cannot be kept and replayed: leave {HEADER} out, or ask for the whole answer or a job."
        raise ServiceProblem(400, "idempotency-not-here", "Streams take no Idempotency-Key.", detail)


async def once(
    service: Service,
    caller: Caller,
    request: Request,
    run: Callable[[], Awaitable[Response]],
    *,
    as_response: AsResponse = problem_response,
) -> Response:
    """Return what `run` answers, or what it answered when this key came before. Its body must be whole, not a stream.

    as_response: how a problem is told here. Raises ServiceProblem for a key that is not let through, StorageError where nobody can
    know whether it came before; then nothing was run.
    """
    key, again = _key_of(request), _is_again(request)
    if key is None:
        return await run()
    store: IdempotencyStore = service.idempotency
    begun = await store.begin(caller.key_id, key, await _fingerprint(request), again=again)
    if isinstance(begun, Blocked):
        raise _blocked(begun)
    if isinstance(begun, Stored):
        exchange_of(request).noted["replayed"] = True
        return Response(begun.body, begun.status, headers={**dict(begun.headers), REPLAYED_HEADER: "true"})
    async with _kept_alive(store, begun):
        return await _run_and_keep(store, begun, request, run, as_response)


async def _run_and_keep(
    store: IdempotencyStore, claim: Claim, request: Request, run: Callable[[], Awaitable[Response]], as_response: AsResponse
) -> Response:
    try:
        response = await run()
    except Exception as exc:
        problem = problem_of(exc)
        exchange = exchange_of(request)
        exchange.noted["problem"] = problem.type
        log_failure(exchange.request_id, exc, problem, say_why=service_of(request).config.log_prompts)
        response = as_response(problem, exchange.request_id)
    except BaseException:
        await _quietly(store.release(claim), "freed")
        raise
    if response.status_code in FREES:
        await _quietly(store.release(claim), "freed")
    else:
        await _quietly(store.finish(claim, _outcome(response, exchange_of(request).request_id, as_response)), "kept")
    return response


def _outcome(response: Response, request_id: str, as_response: AsResponse) -> Stored:
    """Return what is kept of an answer: all of it, or word that it ran and was too large to be kept."""
    if len(response.body) > MOST_KEPT_BYTES:
        detail = f"The first request with this key was answered, with {len(response.body):,} bytes; {MOST_KEPT_BYTES:,} are kept."
        response = as_response(
            Problem(status=409, type="idempotency-not-kept", title="The answer was too large.", detail=detail), request_id
        )
    headers = tuple((name, value) for name, value in response.headers.items() if name not in _NOT_KEPT)
    return Stored(response.status_code, headers, bytes(response.body))


async def _quietly(work: Awaitable[object], what: str) -> None:
    """See to a claim, also when the caller has left meanwhile. Trouble with the disk must not cost an answer that is there."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except NbllmError as exc:
        _log.warning("An Idempotency-Key could not be %s: %s Its outcome counts as unknown.", what, exc.summary)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


@asynccontextmanager
async def _kept_alive(store: IdempotencyStore, claim: Claim) -> AsyncIterator[None]:
    """Renew the lease while a run goes on, where the store wants that."""
    every_s = store.renew_every_s
    if every_s is None:
        yield
        return

    async def renew() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await store.renew(claim)
            except NbllmError as exc:
                _log.warning("The lease of an Idempotency-Key could not be renewed: %s", exc.summary)
            except Exception:
                _log.exception("The lease of an Idempotency-Key could not be renewed.")

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


def _key_of(request: Request) -> str | None:
    found = request.headers.getlist(HEADER)
    if not found:
        return None
    if len(found) > 1 or not re.fullmatch(KEY_PATTERN, found[0]):
        detail = "It is 1 to 255 visible ASCII characters without spaces, sent once. A UUID will do."
        raise ServiceProblem(400, "idempotency-key", "The Idempotency-Key is none.", detail)
    return found[0]


def _is_again(request: Request) -> bool:
    found = request.headers.getlist(RETRY_HEADER)
    if found and found != ["true"]:
        raise ServiceProblem(400, "idempotency-retry", f"The {RETRY_HEADER} is none.", "It is true, or is left out.")
    return bool(found)


async def _fingerprint(request: Request) -> str:
    """Return what tells one request from another: method, path, query, body and the headers that say what is to be done."""
    digest = hashlib.sha256()
    parts = [request.method, request.url.path, request.url.query, *(request.headers.get(name, "") for name in _ALSO_MEANT)]
    for part in [*(part.encode() for part in parts), await request.body()]:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _blocked(why: Blocked) -> ServiceProblem:
    if why is Blocked.OTHER_REQUEST:
        detail = "This key came before with another request. Use a new key for a new request."
        return ServiceProblem(422, "idempotency-key-reused", "The Idempotency-Key was used for another request.", detail)
    if why is Blocked.IN_FLIGHT:
        detail = "The first request with this key is still under way."
        return ServiceProblem(409, "idempotency-in-flight", "The request is under way.", detail, retry_after_s=1.0)
    detail = (
        "The service died over the first request with this key: it may or may not have done its work. "
        f"Send it again with {RETRY_HEADER}: true to run it once more."
    )
    return ServiceProblem(409, "idempotency-outcome-unknown", "The outcome is unknown.", detail)
