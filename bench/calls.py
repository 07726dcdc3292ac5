"""Calls: exact hits, uncached ones, many at once, streams. The raw library and the peer on the same server in the same run."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import Row, best_of, per_call_s
from nbllm import Client, Endpoint

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
_number = itertools.count()
BODY = {"model": "bench", "messages": [{"role": "user", "content": "Say something"}]}


def client_for(base_url: str, home: Path) -> Client:
    """A client on the canned server, priced, with everything on: ledger, cache, budgets, breaker."""
    return Client(
        endpoints={"b": Endpoint(base_url=base_url, input_usd_per_mtok=1, output_usd_per_mtok=2)}, home=home, model="b/bench"
    )


def new_prompt() -> str:
    return f"Say something about {next(_number)}"


def hit_s(base_url: str, home: Path, **settings: Any) -> float:
    """The seconds of an exact hit through the sync door, its ledger row written."""
    with client_for(base_url, home) as client:
        client.configure(**settings)
        client.ask("Say something")
        found_s = best_of(lambda: per_call_s(lambda: client.ask("Say something"), 3000))
        assert client.ask("Say something").source == "cache"
    return found_s


def hits(base_url: str, home: Path) -> list[Row]:
    """An exact hit through the sync door, its ledger row written, beside diskcache's own get and LiteLLM's cache."""
    import diskcache

    ours_s = hit_s(base_url, home / "hits")
    with_similar_s = hit_s(base_url, home / "similar", **{"semantic_cache.mode": "shadow"})
    cache = diskcache.Cache(str(home / "raw"))
    cache["key"] = json.dumps({"text": "The quick brown fox jumps over the lazy dog."})
    raw_s = best_of(lambda: per_call_s(lambda: json.loads(cache["key"]), 3000))
    lookup_s = _litellm_lookup_s()
    beside = (
        f"diskcache get + json {raw_s * 1e3:.4f} ms; LiteLLM's in-memory lookup alone {lookup_s * 1e3:.3f} ms"
        " (a whole hit of its completion(): --peers)"
    )
    return [
        Row("exact hit, sync door, row written", "0.06 ms p50", f"{ours_s * 1e3:.3f} ms", beside, ours_s <= 60e-6),
        Row(
            "the same with the semantic cache switched on (shadow)",
            "0.06 ms p50",
            f"{with_similar_s * 1e3:.3f} ms",
            f"{with_similar_s / ours_s:.2f} of the row above",
            with_similar_s <= 60e-6,
        ),
    ]


def _litellm_lookup_s() -> float:
    """LiteLLM's cache lookup by itself: its completion() imports parts of the proxy before it answers from the cache."""
    import litellm
    from litellm.caching.caching import Cache

    cache = Cache(type="local")
    request = {**BODY, "model": "openai/bench"}
    cache.add_cache(litellm.ModelResponse(choices=[{"message": {"role": "assistant", "content": "hi"}}]), **request)
    assert cache.get_cache(**request)
    return per_call_s(lambda: cache.get_cache(**request), 500)


async def _p50_s(call: Callable[[], Awaitable[Any]], n: int) -> float:
    for _ in range(20):
        await call()
    times = []
    for _ in range(n):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return median(times)


def uncached(base_url: str, home: Path) -> list[Row]:
    """Uncached calls of one caller, beside aiohttp and litellm.acompletion."""
    return asyncio.run(_uncached(base_url, home))


async def _uncached(base_url: str, home: Path) -> list[Row]:
    import aiohttp
    import litellm

    url = f"{base_url}/chat/completions"
    async with aiohttp.ClientSession() as session:

        async def raw() -> None:
            async with session.post(url, json=BODY) as response:
                await response.json()

        raw_s = await _p50_s(raw, 1000)
    async with client_for(base_url, home / "uncached") as client:
        async_s = await _p50_s(lambda: client.aask(new_prompt(), cache="off"), 1000)
        async_kept_s = await _p50_s(lambda: client.aask(new_prompt()), 1000)
        sync_s = await asyncio.to_thread(lambda: per_call_s(lambda: client.ask(new_prompt(), cache="off"), 1000))
        sync_kept_s = await asyncio.to_thread(lambda: per_call_s(lambda: client.ask(new_prompt()), 1000))
    lite = {**BODY, "model": "openai/bench", "api_base": base_url, "api_key": "x"}
    lite_s = await _p50_s(lambda: litellm.acompletion(**lite), 200)
    beside = f"aiohttp {raw_s * 1e3:.2f} ms; litellm.acompletion {lite_s * 1e3:.2f} ms"
    return [
        Row("uncached call, async, c=1", "0.6 ms p50", _uncached_and_kept(async_s, async_kept_s), beside, async_s <= 0.6e-3),
        Row("uncached call, sync, c=1", "0.8 ms p50", _uncached_and_kept(sync_s, sync_kept_s), beside, sync_s <= 0.8e-3),
    ]


def _uncached_and_kept(off_s: float, kept_s: float) -> str:
    return f"{off_s * 1e3:.2f} ms (a miss that is coalesced and kept: {kept_s * 1e3:.2f})"


def streaming(base_url: str, home: Path) -> list[Row]:
    """The cost of one chunk over reading it raw."""
    return asyncio.run(_streaming(base_url, home))


async def _streaming(base_url: str, home: Path) -> list[Row]:
    import aiohttp

    from bench.server import TOKENS

    async with aiohttp.ClientSession() as session:

        async def raw() -> None:
            async with session.post(f"{base_url}/chat/completions", json={**BODY, "stream": True}) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        json.loads(line[6:])

        raw_s = await _p50_s(raw, 40)
    async with client_for(base_url, home / "stream") as client:

        async def ours() -> None:
            async with client.astream(new_prompt(), cache="off") as stream:
                async for _ in stream:
                    pass

        ours_s = await _p50_s(ours, 40)
    extra_ms = (ours_s - raw_s) / TOKENS * 1e3
    beside = f"aiohttp {raw_s / TOKENS * 1e3:.4f} ms a chunk, ours {ours_s / TOKENS * 1e3:.4f}"
    return [Row("streaming, a chunk", "0.05 ms over raw", f"{extra_ms:.4f} ms", beside, extra_ms <= 0.05)]
