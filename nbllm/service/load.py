"""A load test of a service on this machine: requests are sent when they are due, whatever became of the ones before them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from nbllm.core.arrivals import LoadPlan, LoadResult, Sample
from nbllm.errors import InvalidRequest

COST_HEADER, SOURCE_HEADER = "X-Cost-Usd", "X-Source"
_HEAD_START_S = 0.05
_MOST_IN_FLIGHT = 4_000
_LATE_S = 0.02
_MOST_BYTES = 8_000_000


def check_local(url: str) -> str:
    """Return the address of a service on this machine. Raises InvalidRequest for any other: a load test is no guest's business."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local or parts.scheme not in {"http", "https"} or parts.username:
        raise InvalidRequest(
            f"{parts.scheme}://{host} is not on this machine, and a load test is sent to this machine only. Nothing was sent.",
            hint="Run the service here (%serve up, nbllm serve) and test it at 127.0.0.1.",
        )
    return url


class LoadTest:
    """One load test, on a thread with an event loop of its own. Start it, look at it while it runs, wait for it or stop it.

    url: where each request goes, on this machine. bodies: JSON objects that are sent in turn. key: of the service.
    """

    def __init__(self, url: str, bodies: Sequence[Mapping[str, Any]], plan: LoadPlan, *, key: str | None = None) -> None:
        if not bodies:
            raise InvalidRequest("There is nothing to send: no recorded run and no arguments. Nothing was sent.")
        self._url = check_local(url)
        self._bodies = [json.dumps(body).encode() for body in bodies]
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._plan = plan
        self._due = plan.arrivals()
        self._samples: list[Sample] = []
        self._in_flight = 0
        self._stop = threading.Event()
        self._done = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nbllm-load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, limit_s: float) -> bool:
        """Wait at most so long and return whether it is over."""
        return self._done.wait(limit_s)

    def stop(self) -> None:
        """End it soon: nothing more is sent, and what is under way is given up."""
        self._stop.set()

    @property
    def so_far(self) -> LoadResult:
        """What was measured up to now."""
        return LoadResult(self._plan, tuple(self._samples), self._url, stopped=self._stop.is_set(), notes=self._notes())

    @property
    def expected(self) -> int:
        """How many requests are sent if nobody stops it."""
        return len(self._due)

    @property
    def in_flight(self) -> int:
        """How many are under way."""
        return self._in_flight

    def result(self) -> LoadResult:
        """Wait for the end and return what was measured. Raises what kept it from running."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self.so_far

    def _notes(self) -> tuple[str, ...]:
        late_s = LoadResult(self._plan, tuple(self._samples)).late_s()
        if late_s < _LATE_S:
            return ()
        said = f"One request in twenty was sent {late_s * 1000:,.0f} ms late or more"
        return (f"{said}: this machine was busy, and part of the latency is its own.",)

    # ------------------------------------------------------------------ on the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # told to who waits
            self._problem = error
        finally:
            self._done.set()

    async def _send_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._plan.limit_s)
        # A proxy of the environment would take the requests elsewhere.
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            began_s = time.monotonic() + _HEAD_START_S
            tasks: set[asyncio.Task[None]] = set()
            for number, due_s in enumerate(self._due):
                await _until(began_s + due_s, self._stop)
                if self._stop.is_set():
                    break
                if len(tasks) >= _MOST_IN_FLIGHT:
                    self._samples.append(Sample(float(due_s), 0.0, 0.0, f"not sent: {_MOST_IN_FLIGHT:,} were under way"))
                    continue
                task = asyncio.create_task(self._one(session, number, began_s, float(due_s)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            while tasks and not self._stop.is_set():
                await asyncio.wait(tasks, timeout=0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, session: aiohttp.ClientSession, number: int, began_s: float, due_s: float) -> None:
        at_s = began_s + due_s
        late_s = max(0.0, time.monotonic() - at_s)
        status: int | None = None
        headers: Mapping[str, str] = {}
        self._in_flight += 1
        try:
            async with asyncio.timeout(self._plan.limit_s):
                body = self._bodies[number % len(self._bodies)]
                async with session.post(self._url, data=body, headers=self._headers, allow_redirects=False) as response:
                    status, headers = response.status, response.headers
                    error = await _wrong_with(response)
        except TimeoutError:
            error = f"no answer within {self._plan.limit_s:g} s"
        except aiohttp.ClientConnectorError:
            error = "connection refused"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            error = f"broken off ({type(problem).__name__})"
        finally:
            self._in_flight -= 1
        latency_s = time.monotonic() - at_s
        self._samples.append(Sample(due_s, late_s, latency_s, error, status, _usd(headers), headers.get(SOURCE_HEADER, "")))


async def _until(at_s: float, stop: threading.Event) -> None:
    """Sleep until then, and no longer than until somebody stops it."""
    while not stop.is_set():
        left_s = at_s - time.monotonic()
        if left_s <= 0:
            return
        await asyncio.sleep(min(left_s, 0.1))


async def _wrong_with(response: aiohttp.ClientResponse) -> str:
    """Return what kind of failure an answer is, "" for a good one: a success whose body is whole and JSON."""
    body = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        body += piece
        if len(body) > _MOST_BYTES:
            return f"answer over {_MOST_BYTES // 1_000_000} MB"
    if response.status >= 300:
        return f"HTTP {response.status}"
    try:
        json.loads(body)
    except ValueError:
        return "answer is no JSON"
    return ""


def _usd(headers: Mapping[str, str]) -> Decimal | None:
    try:
        cost = Decimal(headers.get(COST_HEADER, ""))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() else None
