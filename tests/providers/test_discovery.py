"""The default model: found in order, shown, and never a stranger's server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbllm.providers import listeners
from nbllm.providers.catalog import Catalog
from nbllm.providers.discovery import DEFAULTS, SERVERS, Found, discover, models_at
from nbllm.providers.listeners import Listener, listener_at
from nbllm.settings import Endpoint, Settings
from nbllm.testing import run_virtual
from tests.starvation import Stopwatch

MINE = Listener(listens=True, mine=True, owner="you")
NOBODY = Listener(listens=False, mine=None)


def looking(
    *,
    servers: dict[int, list[str] | None] | None = None,
    who: dict[int, Listener] | None = None,
    environ: dict[str, str] | None = None,
    settings: Settings | None = None,
    slow: tuple[int, ...] = (),
) -> tuple[Found, list[int]]:
    """Discover with servers of our own; return what was found and which ports were asked."""
    asked: list[int] = []
    servers = servers or {}

    async def probe(port: int) -> list[str] | None:
        asked.append(port)
        if port in slow:
            await asyncio.sleep(3600)
        return servers[port]

    def listener(port: int) -> Listener:
        return (who or {}).get(port, MINE if port in servers else NOBODY)

    return run_virtual(discover(settings or Settings(), environ or {}, probe=probe, listener=listener)), asked


def test_configured_wins_and_nothing_is_probed() -> None:
    """A model of the settings, else the first of the ladder, is the default, whatever else there is."""
    found, asked = looking(settings=Settings(model="lab/qwen"), servers={11434: ["llama"]}, environ={"OPENAI_API_KEY": "k"})
    assert found.model_id == "lab/qwen"
    assert asked == []
    assert looking(settings=Settings(ladder=("a/b", "c/d")))[0].model_id == "a/b"


def test_a_server_of_ones_own_comes_before_keys() -> None:
    """Its first chat model is taken, with an endpoint to reach it, and the reason names the server."""
    found, _ = looking(servers={11434: ["nomic-embed-text", "llama3.2"]}, environ={"OPENAI_API_KEY": "k"})
    assert found.model_id == "ollama/llama3.2"
    assert found.endpoint == Endpoint(base_url="http://127.0.0.1:11434/v1")
    assert "Ollama" in found.reason
    assert "127.0.0.1:11434" in found.reason
    assert Catalog({"ollama": found.endpoint}, {}).rung(found.model_id).model == "llama3.2"


def test_somebody_elses_server_is_named_and_not_asked() -> None:
    """Not a byte goes to it, and the user reads whose it is."""
    other = Listener(listens=True, mine=False, owner="user mallory")
    found, asked = looking(servers={8000: ["m"]}, who={8000: other})
    assert found.model_id == "sim/large"
    assert asked == []
    assert any("user mallory" in line and "not used" in line for line in found.considered)


def test_where_the_owner_cannot_be_known_a_server_is_named_and_not_used() -> None:
    """On systems without /proc no prompt goes to a server that may be a stranger's; the reason says how to name one's own."""
    unknown = Listener(None, None)
    for environ, model_id in (({}, "sim/large"), ({"OPENAI_API_KEY": "k"}, "openai/gpt-4o-mini")):
        found, _ = looking(servers={1234: ["m"], 8000: None}, who={1234: unknown, 8000: unknown}, environ=environ)
        assert found.model_id == model_id
        assert found.endpoint is None
        assert "127.0.0.1:1234" in found.reason
        assert "[endpoints.lmstudio]" in found.reason
        assert 'model = "lmstudio/m"' in found.reason
        assert any("127.0.0.1:1234" in line and "not used" in line for line in found.considered)
        assert "8000" not in found.reason
    both, _ = looking(servers={1234: ["m"], 11434: ["a"]}, who={11434: unknown})
    assert (both.model_id, both.endpoint) == ("lmstudio/m", Endpoint(base_url="http://127.0.0.1:1234/v1"))
    named = Settings(endpoints={"lmstudio": Endpoint(base_url="http://127.0.0.1:1234/v1")})
    found, _ = looking(servers={1234: ["m"]}, who={1234: unknown}, settings=named)
    assert 'model = "lmstudio/m"' in found.reason
    assert "[endpoints" not in found.reason


def test_servers_are_probed_at_once_and_slow_ones_left_behind() -> None:
    """Four silent servers cost 0.3 s together, and a quick one is still found."""
    found, asked = looking(servers={port: ["m"] for port in SERVERS}, slow=(11434, 8000, 1234))
    assert sorted(asked) == sorted(SERVERS)
    assert found.model_id == "llamacpp/m"
    assert any("no model server answered within 0.3 s" in line for line in found.considered)


def test_order_among_servers_and_what_was_passed_over() -> None:
    """Ollama before vLLM; the others are mentioned; a server without chat models is no choice."""
    found, _ = looking(servers={8000: ["b"], 11434: ["a"], 1234: ["text-embedding-x"], 8080: None})
    assert found.model_id == "ollama/a"
    considered = "\n".join(found.considered)
    assert "127.0.0.1:8000 (vLLM): answers too (b)" in considered
    assert "no chat model" in considered


def test_a_configured_endpoint_keeps_its_name() -> None:
    """A found server does not take the name of an endpoint that the settings define."""
    settings = Settings(endpoints={"ollama": Endpoint(base_url="http://elsewhere:1/v1")})
    assert looking(settings=settings, servers={11434: ["a"]})[0].model_id == "ollama-11434/a"


@pytest.mark.parametrize("model_id", DEFAULTS)
def test_a_key_that_is_set(model_id: str) -> None:
    """Each provider's key leads to its curated model, which the catalog knows; the reason names the variable, not the key."""
    name = model_id.partition("/")[0]
    variable = {"gemini": "GOOGLE_API_KEY", "cohere": "CO_API_KEY"}.get(name, f"{name.upper()}_API_KEY")
    found, _ = looking(environ={variable: "sk-very-secret"})
    assert found.model_id == model_id
    assert variable in found.reason
    assert "sk-very-secret" not in repr(found)
    assert Catalog({}, {}).rung(found.model_id).price is not None


def test_blank_keys_do_not_count_and_sim_is_last() -> None:
    """With nothing at all the simulated model answers, and says so."""
    found, _ = looking(environ={"OPENAI_API_KEY": "  "})
    assert found.model_id == "sim/large"
    assert "simulated" in found.reason
    assert len(found.considered) == len(SERVERS) + 2


# ---------------------------------------------------------------------------------------------------- the real probe

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


def asked_of(answer: bytes, *, hang: bool = False) -> tuple[list[str] | None, bytes]:
    """Return what models_at makes of a server's bytes, and what it sent."""

    async def main() -> tuple[list[str] | None, bytes]:
        heard = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            if hang:
                await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await models_at(server.sockets[0].getsockname()[1]), bytes(heard)

    return asyncio.run(main())


def test_the_probe_reads_models_and_sends_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GET without credentials; the ids come back."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    models, sent = asked_of(b'HTTP/1.1 200 OK\r\n\r\n{"object": "list", "data": [{"id": "a"}, {"id": "b/c"}]}')
    assert models == ["a", "b/c"]
    assert sent.startswith(b"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:")
    assert b"secret" not in sent


@pytest.mark.parametrize(
    ("answer", "models"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"object": "list", "data": null}', []),
        (b'HTTP/1.1 200 OK\r\n\r\n{"data": [{"id": "\\u001b[31m"}, {"id": 5}, "x"]}', []),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", None),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", None),
        (b'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n{"data": []}', None),
        (b"SSH-2.0-x\r\n\r\n", None),
        (b"", None),
    ],
)
def test_what_is_no_model_server_is_none(answer: bytes, models: list[str] | None) -> None:
    """Other programs on these ports, redirects and control characters in names are not taken for models."""
    assert asked_of(answer)[0] == models


def test_nothing_listens() -> None:
    """A closed port is no error."""
    assert asyncio.run(models_at(9)) is None


# ---------------------------------------------------------------------------------------------------- whose socket

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, port: int, uid: int, state: str = "0A") -> str:
    return f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 1 1 0 0 0\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/net/tcp is Linux's")
def test_owners_are_read_from_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own, foreign and mixed listeners are told apart; connections and other interfaces do not count."""
    mine, other = os.getuid(), os.getuid() + 54_321
    four = (
        row("0100007F", 11434, mine)
        + row("00000000", 8000, other)
        + row("0100007F", 1234, mine, "01")
        + row("0105A8C0", 1234, other)
    )
    six = row("0" * 32, 8080, mine) + row("0000000000000000FFFF00000100007F", 8080, other)
    for name, text in (("tcp", four), ("tcp6", six)):
        (tmp_path / name).write_text(HEAD + text)
    monkeypatch.setattr(listeners, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp6", tmp_path / "missing"))
    assert listener_at(11434) == MINE
    assert listener_at(8000) == Listener(listens=True, mine=False, owner=f"user {other}")
    assert listener_at(1234) == NOBODY
    assert listener_at(8080).mine is False
    (tmp_path / "tcp").write_text(HEAD + "garbage\n")
    assert listener_at(11434).mine is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/net/tcp is Linux's")
def test_a_real_listener_is_mine() -> None:
    """A socket that this process opened is found, and is this user's."""

    async def main() -> Listener:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            return listener_at(server.sockets[0].getsockname()[1])

    assert asyncio.run(main()) == MINE


def test_elsewhere_owners_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems like macOS and Windows have no such table: unknown."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert listener_at(11434) == Listener(None, None)


def test_it_takes_no_time_when_nothing_is_there() -> None:
    """Without servers the whole look-around is over at once."""
    for tries_left in (2, 1, 0):  # three times shorter than one probe would take: the machine's other work may come between
        watch = Stopwatch()
        asyncio.run(discover(Settings(), {}, listener=lambda _: NOBODY))
        if watch.s < 0.1:
            break
        assert tries_left
