"""The default model when none is configured: found once, shown, never silent.

In this order: what the settings name; a server of this user on this machine; one curated model of a provider whose key is set;
the simulated model. A server of somebody else is named and not used, for it would see the prompts; so is one whose owner this
system does not tell (listeners.py), until the settings name it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbllm.providers.hosts import PROVIDERS, has_key
from nbllm.providers.listeners import Listener, listener_at
from nbllm.providers.litellm_hosts import host_for
from nbllm.settings import Endpoint

if TYPE_CHECKING:
    from nbllm.settings import Settings

PROBE_S = 0.3
"""For all servers together."""
MAX_ANSWER_BYTES = 1_000_000
SERVERS = {11434: ("ollama", "Ollama"), 8000: ("vllm", "vLLM"), 1234: ("lmstudio", "LM Studio"), 8080: ("llamacpp", "llama.cpp")}
"""Port: the name its endpoint gets, and what usually listens there."""
DEFAULTS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4-5",
    "gemini/gemini-2.5-flash-lite",
    "mistral/mistral-small-latest",
    "groq/openai/gpt-oss-20b",
    "cerebras/gpt-oss-120b",
    "deepseek/deepseek-v4-flash",
    "cohere/command-r7b-12-2024",
)
"""One small, priced model of each provider; the first whose key is set is taken."""
FALLBACK = "sim/large"
_NOT_FOR_CHAT = ("embed", "bge-", "rerank", "whisper", "clip", "tts", "moderation", "-e5-", "gte-")

Probe = Callable[[int], Awaitable[list[str] | None]]
"""A port of this machine: the ids of its models, [] when it has none, None when no model server answers there."""
FindListener = Callable[[int], Listener]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found. reason: one or two sentences for the user. endpoint: of a local server, to be used under the id's first
    part; None otherwise. considered: what was passed over, and why, one line each.
    """

    model_id: str
    reason: str
    endpoint: Endpoint | None
    considered: tuple[str, ...]


async def discover(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    probe: Probe | None = None,
    listener: FindListener = listener_at,
    budget_s: float = PROBE_S,
) -> Found:
    """Return the default model. Sends nothing but GET /v1/models, to this machine, and not to servers that are known to be somebody
    else's; takes at most budget_s seconds.
    """
    named = settings.model or next(iter(settings.ladder), None)
    if named:
        return Found(named, f"{named} is configured.", None, ())
    considered: list[str] = ["settings: no model and no ladder is named"]
    nobodys: list[str] = []
    server = await _local_server(settings.endpoints, considered, nobodys, probe or models_at, listener, budget_s)
    if server is not None:
        return server
    unsure = " ".join(["", *nobodys])
    for model_id in DEFAULTS:
        provider = model_id.partition("/")[0]
        env = _key_set(provider, environ)
        if env:
            reason = f"{model_id}: {env} is set and no model is configured. {_choose()}{unsure}"
            return Found(model_id, reason, None, tuple(considered))
    considered.append("keys: none of the providers with a default model has one set")
    reason = (
        f"{FALLBACK}, a simulated model: no model is configured, no model server known to be yours answers and no key is set. "
        f"{_choose()}{unsure}"
    )
    return Found(FALLBACK, reason, None, tuple(considered))


def _choose() -> str:
    return "Choose another with model=, -m or NBLLM_MODEL."


def _key_set(provider: str, environ: Mapping[str, str]) -> str | None:
    """Return the name of the variable that holds a provider's key, None when none is set."""
    names = PROVIDERS[provider].key_envs if provider in PROVIDERS else host_for(provider).key_envs
    if provider in PROVIDERS and not has_key(provider, environ):
        return None
    return next((name for name in names if environ.get(name, "").strip()), None)


async def _local_server(
    endpoints: Mapping[str, Endpoint],
    considered: list[str],
    nobodys: list[str],
    probe: Probe,
    listener: FindListener,
    budget_s: float,
) -> Found | None:
    """Probe all ports at once and return the first server, in the order of SERVERS, that is this user's and has a model.

    considered, nobodys: get a line on what was passed over, and on each server that would do if it is this user's.
    """
    open_ports: dict[int, Listener] = {}
    for port, (_, usual) in SERVERS.items():
        found = listener(port)
        if found.listens is False:
            considered.append(f"127.0.0.1:{port} ({usual}): nothing listens")
        elif found.mine is False:
            considered.append(f"127.0.0.1:{port} ({usual}): a server of {found.owner} listens; not used, it would see your prompts")
        else:
            open_ports[port] = found
    answers = await _probe_all(list(open_ports), probe, budget_s)
    best: Found | None = None
    for port, models in answers.items():
        name, usual = SERVERS[port]
        chats = [model for model in models or () if not any(mark in model.lower() for mark in _NOT_FOR_CHAT)]
        if models is None:
            considered.append(f"127.0.0.1:{port} ({usual}): no model server answered within {budget_s:g} s")
        elif not chats:
            considered.append(f"127.0.0.1:{port} ({usual}): a server answers, but has no chat model loaded")
        elif open_ports[port].mine is None:
            considered.append(
                f"127.0.0.1:{port} ({usual}): a server answers ({chats[0]}); not used, whose it is cannot be told here"
            )
            nobodys.append(_if_yours(name, port, usual, chats[0], endpoints))
        elif best is not None:
            considered.append(f"127.0.0.1:{port} ({usual}): answers too ({chats[0]})")
        else:
            best = _server_found(name if name not in endpoints else f"{name}-{port}", port, usual, chats[0])
    return Found(best.model_id, best.reason, best.endpoint, tuple(considered)) if best else None


def _server_found(name: str, port: int, usual: str, model: str) -> Found:
    reason = f"{name}/{model}: a server of yours answers on 127.0.0.1:{port} ({usual}'s port). {_choose()}"
    return Found(f"{name}/{model}", reason, Endpoint(base_url=_address(port)), ())


def _if_yours(name: str, port: int, usual: str, model: str, endpoints: Mapping[str, Endpoint]) -> str:
    """Return how to use a server whose owner is unknown."""
    known = next((known for known, endpoint in endpoints.items() if endpoint.base_url == _address(port)), None)
    name = known or (name if name not in endpoints else f"{name}-{port}")
    entry = "" if known else f'[endpoints.{name}] base_url = "{_address(port)}" and '
    return (
        f"A server answers on 127.0.0.1:{port} ({usual}'s port) and is not used: this system does not tell whose it is, and it "
        f'would see your prompts. If it is yours, write {entry}model = "{name}/{model}" into nbllm.toml.'
    )


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


async def _probe_all(ports: list[int], probe: Probe, budget_s: float) -> dict[int, list[str] | None]:
    """Return each port's models, in the order given; a probe that fails or is too slow is None."""
    tasks = {port: asyncio.ensure_future(probe(port)) for port in ports}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=budget_s)
    answers: dict[int, list[str] | None] = {}
    for port, task in tasks.items():
        if task.done() and not task.cancelled() and task.exception() is None:
            answers[port] = task.result()
        else:
            task.cancel()
            answers[port] = None
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return answers


async def models_at(port: int) -> list[str] | None:
    """Ask GET /v1/models on 127.0.0.1 and return the ids; None when what answers is no model server.

    HTTP/1.0 without a proxy, a key or a redirect: the smallest request that vLLM, Ollama, llama.cpp and LM Studio answer.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    try:
        writer.write(f"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            return None
        return _ids(await _read_all(reader))
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, RecursionError):
        return None
    finally:
        writer.close()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while len(body) < MAX_ANSWER_BYTES:
        piece = await reader.read(65_536)
        if not piece:
            return bytes(body)
        body += piece
    raise ValueError("too much for a list of models")


def _ids(body: bytes) -> list[str] | None:
    answer = json.loads(body)
    rows = answer.get("data") if isinstance(answer, dict) else None
    if rows is None and isinstance(answer, dict) and "object" in answer:  # Ollama without models says "data": null
        return []
    if not isinstance(rows, list):
        return None
    ids = [row.get("id") for row in rows if isinstance(row, dict)]
    return [name for name in ids if isinstance(name, str) and name and name.isprintable() and len(name) <= 200]
