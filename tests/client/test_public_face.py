"""The public face: names, defaults, life and end of a client, and what importing nbllm costs."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client, Endpoint, Reply, Settings, errors
from nbllm.core.messages import Attempt, Usage
from nbllm.settings import CALL_OPTIONS
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, rows, until

PROMISED: dict[str, Any] = {
    "model": None,
    **dict.fromkeys(("system", "temperature", "max_tokens", "top_p", "seed", "stop", "tools", "response_format", "logprobs")),
    "extra": {},
    "schema": None,
    "check": None,
    "repairs": 2,
    "retries": 2,
    "cache": "use",
    "ttl_s": None,
    "stale_ok_s": None,
    "static": None,
    "sample": 0,
    "partition": "",
    "deadline_s": 300,
    "ttft_s": 60,
    "idle_s": 60,
    "attempt_s": None,
    "on_interrupt": None,
    "feature": None,
    "user": None,
    "budget_usd": None,
}
"""The options of a call and their defaults, as the design lists them."""


def test_options_and_defaults() -> None:
    """The options of a call are those of the design, with its defaults; tags and semantic came later."""
    assert {name: option.default for name, option in CALL_OPTIONS.items()} == {**PROMISED, "tags": (), "semantic": None}
    assert CALL_OPTIONS["cache"].choices == ("use", "refresh", "off")
    assert CALL_OPTIONS["on_interrupt"].choices == ("restart", "raise")


def test_defaults_reach_the_request(tmp_path: Path) -> None:
    """A call without options sends nothing but its prompt, and runs under the defaults."""
    fake = FakeProvider()
    with fake_client(tmp_path, fake) as client:
        call = client.start("hello", watched=False)
        assert call.reply.text == "ok"
    (wire,) = fake.requests
    sent = {name: getattr(wire.content, name) for name in ("temperature", "max_tokens", "top_p", "seed", "stop", "tools")}
    assert sent == dict.fromkeys(sent)
    assert (wire.content.response_format, wire.content.logprobs, wire.content.extra) == (None, None, {})
    options = call.request.options
    assert (options.repairs, options.retries, options.cache) == (2, 2, "use")
    assert (options.deadline_s, options.ttft_s, options.idle_s, options.attempt_s) == (300, 60, 60, None)


def test_names() -> None:
    """Everything in __all__ is there, dir() shows just that, and what does not exist is an AttributeError that names it."""
    assert dir(nbllm) == sorted(nbllm.__all__)
    for name in nbllm.__all__:
        assert getattr(nbllm, name) is not None
    assert {"Client", "Endpoint", "Settings", "Reply", "ask", "aask", "stream", "astream", "embed", "aembed"} <= set(nbllm.__all__)
    assert {"flow", "use", "render", "usage", "check_slo"} <= set(nbllm.__all__)
    with pytest.raises(AttributeError, match="'nbllm' has no attribute 'aks'"):
        nbllm.aks  # noqa: B018 - the access is the test


def test_signatures() -> None:
    """Client takes keywords only; every door takes the prompt by place and its options by name."""
    assert list(inspect.signature(Client).parameters) == [
        "endpoints", "ladder", "routes", "home", "settings", "providers", "on_call", "shared", "values",
    ]  # fmt: skip
    for door in ("ask", "aask", "stream", "astream"):
        for owner in (nbllm, Client):
            prompt, *options = [p for p in inspect.signature(getattr(owner, door)).parameters.values() if p.name != "self"]
            assert (prompt.name, {p.kind for p in options}) == ("prompt", {inspect.Parameter.KEYWORD_ONLY}), door
    for door in ("embed", "aembed"):
        texts, *options = inspect.signature(getattr(nbllm, door)).parameters.values()
        assert (texts.name, {p.kind for p in options}) == ("texts", {inspect.Parameter.KEYWORD_ONLY})


def test_reply_has_what_the_design_names(tmp_path: Path) -> None:
    """A reply has every field of the design, of the type it says."""
    with fake_client(tmp_path) as client:
        reply = client.ask("hello")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.data, reply.reasoning, reply.rung, reply.source) == ("ok", None, "", "sim/small", "model")
    assert reply.message == {"role": "assistant", "content": "ok"}
    assert (reply.model, reply.finish_reason) == ("small", "stop")
    assert isinstance(reply.usage, Usage)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (1, 1)
    assert reply.usage.reasoning_tokens is None
    assert reply.usage.cached_input_tokens is None
    assert isinstance(reply.cost_usd, Decimal)
    assert reply.cost_basis == "exact"
    assert reply.ttft_s is None
    assert reply.latency_s > 0
    assert [type(attempt) for attempt in reply.attempts] == [Attempt]
    assert reply.call_id


def test_client_of_the_design(tmp_path: Path) -> None:
    """Endpoints, ladder and home are taken as the design writes them; the ladder answers without model=."""
    fake = FakeProvider()
    client = Client(
        endpoints={"lab": Endpoint(base_url="http://127.0.0.1:8000/v1", api_key_env="LAB_KEY")},
        ladder=["lab/qwen", "openai/gpt-4o-mini"],
        home=tmp_path,
        providers={"openai_compatible": fake},
    )
    with client:
        assert client.ask("Say hi", model="lab/qwen").rung == "lab/qwen"
        assert client.ask("Say ho").rung == "lab/qwen"
    assert [wire.rung.endpoint.api_key_env for wire in fake.requests] == ["LAB_KEY"] * 2


def test_a_ladder_replaces_a_model_set_before_it(tmp_path: Path) -> None:
    """What is said later wins, also between the two ways to say which model answers."""
    settings = Settings(home=tmp_path).replace_values("NBLLM_MODEL", model="sim/large")
    with Client(settings=settings, ladder=["sim/small"], providers={"simulated": FakeProvider()}) as client:
        assert client.ask("a").rung == "sim/small"
        client.configure(model="sim/large")
        assert client.ask("b").rung == "sim/large"
        client.configure(ladder="sim/small, sim/large")
        assert client.ask("c").rung == "sim/small"


def test_providers_of_unknown_kind(tmp_path: Path) -> None:
    """A misspelt kind of provider is refused: its fake would be ignored and a real request sent."""
    with pytest.raises(errors.ConfigurationError, match="open_ai") as caught:
        Client(home=tmp_path, providers={"open_ai": FakeProvider()})
    assert "openai_compatible" in caught.value.hint


def test_context_manager(tmp_path: Path) -> None:
    """Sync and async, with the client itself as its value, closed at the end of the block."""
    with fake_client(tmp_path) as client:
        assert isinstance(client, Client)
        client.ask("hello")
    with pytest.raises(RuntimeError, match="closed"):
        client.ask("hello")

    async def main() -> None:
        async with fake_client(tmp_path) as second:
            assert (await second.aask("hello")).source == "cache"
        with pytest.raises(RuntimeError, match="closed"):
            await second.aask("hello")

    asyncio.run(main())
    assert our_threads() == []


@pytest.mark.parametrize("used", [False, True])
def test_close_twice(used: bool, tmp_path: Path) -> None:
    """Closing is final, quick for a client that was never used, and harmless the second time, in both doors."""
    client = fake_client(tmp_path)
    if used:
        client.ask("hello")
    client.close()
    client.close()
    asyncio.run(client.aclose())
    for door in (client.ask, client.stream, client.start):
        with pytest.raises(RuntimeError, match="This client is closed"):
            door("hello")
    with pytest.raises(RuntimeError, match="This client is closed"):
        client.usage()
    assert our_threads() == []


def test_nothing_is_opened_before_the_first_call(tmp_path: Path) -> None:
    """A client that was only made has no thread, no file and no folder."""
    home = tmp_path / "home"
    client = fake_client(home)
    assert "sim/small" in repr(client)
    assert not home.exists()
    assert our_threads() == []
    client.close()


@pytest.mark.parametrize("asked_off", ["ask", "start"])
def test_close_ends_calls_of_other_threads(asked_off: str, tmp_path: Path) -> None:
    """A call under way when the client is closed ends at once with an error that says so; its row is cancelled."""
    fake = FakeProvider(default=Script(hang=True))
    client = fake_client(tmp_path, fake)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            if asked_off == "ask":
                client.ask("hello", cache="off")
            else:
                client.start("hello").reply  # noqa: B018 - asking for it is waiting for it
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: fake.in_flight == 1)
    client.close()
    thread.join(30)
    assert not thread.is_alive()
    assert [type(exc) for exc in caught] == [errors.CallFailed]
    assert "closed" in str(caught[0])
    assert fake.in_flight == 0
    with fake_client(tmp_path) as after:
        assert [(row.status.value, row.error) for row in rows(after)] == [("cancelled", "CancelledError")]


def test_close_under_load(tmp_path: Path) -> None:
    """Threads that go on asking while the client is closed each end at once, by an error that says so; another client goes on."""
    ends: list[str] = []
    with fake_client(tmp_path / "other") as other:
        client = fake_client(tmp_path / "closed", FakeProvider(default=Script(pieces=("a", "b"), gap_s=0.001)))
        client.ask("warm")

        def work(number: int) -> None:
            doors = [
                lambda _: client.ask("warm"),
                lambda turn: client.ask(f"{number} {turn}"),
                lambda turn: list(client.stream(f"{number} {turn}")),
                lambda turn: client.ask(f"{number} {turn}", cache="off"),
            ]
            try:
                for turn in range(10**6):
                    doors[number % 4](turn)
            except (RuntimeError, errors.CallFailed) as exc:
                ends.append(str(exc))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        client.close()
        for thread in threads:
            thread.join(30)
        assert len(ends) == 12
        assert all("closed" in said for said in ends)
        assert other.ask("hello").text == "ok"
    assert our_threads() == []


def test_a_client_that_was_dropped_is_closed(tmp_path: Path) -> None:
    """A cell that is run again leaves no thread and no connection of the client before it."""
    client = fake_client(tmp_path)
    client.ask("hello")
    assert our_threads()
    del client
    until(lambda: gc.collect() >= 0 and our_threads() == [])


_PROBE = """
import sys, threading, builtins, io, os, socket
opened = []
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith((".py", ".pyc", ".so", ".pth")):
        opened.append(arguments[0])
    elif event.startswith("socket.") or event in ("subprocess.Popen", "os.mkdir"):
        opened.append(event)
sys.addaudithook(audit)
{code}
heavy = ("litellm", "IPython", "matplotlib", "aiohttp", "pydantic", "numpy", "jinja2", "jsonschema", "diskcache", "ipywidgets")
print([name for name in heavy if name in sys.modules], opened, [t.name for t in threading.enumerate()])
"""


@pytest.mark.parametrize(
    "code",
    ["import nbllm", "import nbllm; dir(nbllm); nbllm.ask; nbllm.Client; nbllm.flow; nbllm.Settings; nbllm.errors.NbllmError"],
)
def test_importing_is_cheap(code: str, tmp_path: Path) -> None:
    """Importing nbllm and naming its parts loads no heavy library, opens no file and no socket, and starts no thread."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(code=code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        env=_environment(),
    )
    assert done.stdout.strip() == "[] [] ['MainThread']"
    assert done.stderr == ""


def test_a_simulated_call_loads_nothing_for_the_network(tmp_path: Path) -> None:
    """A whole call to sim/ and a hit on it load neither aiohttp nor litellm nor numpy nor IPython."""
    code = f"""
import nbllm, sys
with nbllm.Client(home={str(tmp_path / "home")!r}) as client:
    assert client.ask("Say hi", model="sim/small").source == "model"
    assert client.ask("Say hi", model="sim/small").source == "cache"
print([name for name in ("litellm", "IPython", "matplotlib", "aiohttp", "pydantic", "numpy", "jinja2") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True, env=_environment()
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def _environment() -> dict[str, str]:
    root = str(Path(nbllm.__file__).parents[1])
    keep = {name: value for name, value in os.environ.items() if not name.startswith("NBLLM_")}
    return {**keep, "PYTHONPATH": root, "NBLLM_SIM_SPEED": "0"}
