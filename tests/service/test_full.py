"""A service that is full: 200 callers, few places. What they are told, and whether it still says that it is alive."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from pathlib import Path

import aiohttp

from nbllm.service import create_app
from tests.service.running import Running, running, write_settings
from tests.starvation import Stopwatch

CALLERS = 200
BODY = {"model": "sim/small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


async def storm(app: Running, keys: list[str]) -> tuple[Counter[int], list[float], list[str]]:
    """Have 200 callers ask three times each; return statuses, seconds of /health meanwhile, and refusals without Retry-After."""
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    health_s: list[float] = []
    over = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def caller(number: int) -> None:
            headers = {"Authorization": f"Bearer {keys[number % len(keys)]}"}
            for turn in range(3):
                body = {**BODY, "seed": number * 10 + turn}
                async with session.post(f"{app.url}/v1/chat/completions", json=body, headers=headers) as answer:
                    await answer.read()
                    statuses[answer.status] += 1
                    if answer.status in {429, 503} and int(answer.headers.get("Retry-After", 0)) < 1:
                        wrong.append(str(answer.headers))

        async def watch() -> None:
            while not over.is_set():
                watch = Stopwatch()
                async with session.get(f"{app.url}/health") as answer:
                    assert answer.status == 200
                health_s.append(watch.s)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(caller, range(CALLERS)))
        over.set()
        await watching
    return statuses, health_s, wrong


def test_a_full_service_answers_or_says_when_to_come_back(tmp_path: Path) -> None:
    """200 callers on a service with few places get 200, 429 or 503 and nothing else, Retry-After on each refusal; /health goes on.

    (docs/benchmarks.md has the p95 of /health under load; here the limit is wide, because the callers share the machine.)
    """
    path = write_settings(
        tmp_path,
        "max_running = 4\nmax_waiting = 8\nqueue_wait_s = 0.3\n"
        "[service.tiers.small]\nrequests_per_minute = 60\n[service.tiers.large]\nrequests_per_minute = 100000\npriority = 5",
    )
    app = create_app(settings=path)
    with running(app, tier="large") as it:
        small, _ = it.service.keys.make("small")
        statuses, health_s, wrong = asyncio.run(storm(it, [it.key, small]))
        assert (it.service.gate.running, it.service.gate.waiting) == (0, 0)
    assert set(statuses) == {200, 429, 503}
    assert sum(statuses.values()) == CALLERS * 3
    assert wrong == []
    assert len(health_s) > 3
    assert statistics.quantiles(health_s, n=20)[-1] < 1.0
