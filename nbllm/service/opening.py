"""What a service says when it opens: where it is, what is open to whom, who shares what."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from nbllm.service.context import Service
from nbllm.service.docs_page import for_this_machine
from nbllm.service.keys import former_keys
from nbllm.service.remote_hands import WORKER

_WIDTH = 11


def opening_lines(service: Service, listening: socket.socket, key: str | None, keys_command: str) -> Iterator[str]:
    """Yield lines for a person. key: one that was made just now, shown here and nowhere else."""
    config = service.config
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    yield f"{service.name} on {address}"
    whom = "everybody who can reach this machine" if config.public else "programs on this machine only"
    shows_docs = config.docs or (config.docs is None and for_this_machine(config))
    yield _line("open to", f"{whom}; a key is needed for all but /health, /ready{' and /docs' if shows_docs else ''}")
    if config.public:
        yield _line("", "It speaks plain HTTP: put a proxy with TLS before it.")
    yield from _keys(service, key, keys_command)
    for name in service.flows:
        yield _line("flow", f"POST /flows/{name}, /flows/{name}/stream, /flows/{name}/jobs; WebSocket /flows/{name}/ws")
    yield _line("models", f"{address}/v1 (OpenAI's interface): {_models(service)}")
    yield _line("state", _state(service))
    yield _line("names", _names(service))
    yield _line("web pages", ", ".join(config.allowed_origins) or "none may call it (allowed_origins)")
    if service.metrics_address is not None:
        yield _line("metrics", f"{service.metrics_address}, without a key, for this machine only")
    else:
        yield _line("metrics", "/metrics, behind a key")
    if shows_docs:
        yield _line("docs", f"{address}/docs, without a key" + ("" if config.docs else ", for this machine only"))
    else:
        yield _line("docs", "off (docs = true shows them to everybody who can reach it)")
    share = "each key has its own part" if config.cache_partition == "key" else "all keys share one"
    yield _line("cache", f"/v1: {share}; flows: all keys share one")


def _keys(service: Service, key: str | None, keys_command: str) -> Iterator[str]:
    """Yield who has a key. Where no person looks on, none is made: it would stand in a log file."""
    if key is not None:
        yield _line("key", f"{key} (shown once; more: {keys_command})")
    elif found := service.keys.list():
        yield _line("keys", f"{service.keys.counted()} (more: {keys_command})")
        gone = sorted({key.tier for key in found if service.config.tier(key.tier) is None})
        if gone:
            yield _line("", f"Keys of tiers that the settings do not have are refused: {', '.join(gone)}.")
    else:
        yield _line("keys", f"none yet. Make one, it works at once: {keys_command}")
    if (former := service.keys.former) is not None:
        yield _line("", former_keys(former))


def _models(service: Service) -> str:
    return ", ".join(name for name, _ in service.menu.rows()) or "none: the settings name no model (model, ladder, routes, models)"


def _state(service: Service) -> str:
    if service.jobs_elsewhere:
        return f"shared on the Redis of REDIS_URL; jobs wait for workers: {WORKER}"
    return f"in {service.client.settings.home}, for this process; jobs run in it"


def _names(service: Service) -> str:
    allowed = ", ".join(service.config.allowed_hosts)
    if service.config.public:
        return f"called {allowed}" if allowed else "any (name them in allowed_hosts)"
    return f"called localhost, 127.0.0.1{', ' + allowed if allowed else ''}"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_WIDTH}}{text}"
