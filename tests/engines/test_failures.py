"""What goes wrong with a real vLLM: cancelled, refused, too long, killed."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.errors import AuthenticationFailed, CallFailed, ContextTooLong, ModelNotFound, StreamInterrupted
from tests.engines.conftest import lab
from tests.engines.server import EngineServer
from tests.starvation import Stopwatch

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

MODEL = "lab/tiny"
LONG = {"max_tokens": 3600, "extra": {"ignore_eos": True}, "cache": "off", "temperature": 1}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that a group holds."""
    yield error
    for inner in getattr(error, "exceptions", ()):
        yield from causes(inner)


def wait_until(condition: object, limit_s: float) -> float:
    """Wait until the condition holds and return how long that took; fail after limit_s."""
    watch = Stopwatch(others=True)
    while not condition():  # type: ignore[operator]
        assert watch.s < limit_s, f"still not so after {limit_s} s"
        time.sleep(0.02)
    return watch.s


def test_cancelled_call_stops_the_engine_within_a_second(client: Client, engine: EngineServer) -> None:
    """Cancelling an answer closes the upstream: the engine aborts the request instead of writing it to the end."""

    async def cancel_midway() -> None:
        task = asyncio.ensure_future(client.aask("Go on and on", model=MODEL, **LONG))
        await asyncio.to_thread(wait_until, lambda: engine.running() == 1 or task.done(), 60)
        assert not task.done(), "the answer came to its end before the engine said that it was at work"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = engine.finished()
    asyncio.run(cancel_midway())
    wait_until(lambda: engine.running() == 0, 1.0)
    assert engine.finished() == before  # an aborted request is none that came to its end


def test_stream_left_early_stops_the_engine_within_a_second(client: Client, engine: EngineServer) -> None:
    """Closing a stream after a few pieces closes the upstream too."""

    async def leave_early() -> None:
        stream = client.astream("Go on and on", model=MODEL, **LONG)
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 3:
                break
        await stream.aclose()

    asyncio.run(leave_early())
    wait_until(lambda: engine.running() == 0, 1.0)


def test_wrong_model_name_is_typed_and_asked_once(client: Client) -> None:
    """A name that the engine does not serve is ModelNotFound after one request, with the name in the message."""
    with pytest.raises(CallFailed) as caught:
        client.ask("Hello", model="lab/tinny")
    assert any(isinstance(cause, ModelNotFound) for cause in causes(caught.value))
    assert "tinny" in str(caught.value)


def test_wrong_key_is_typed_and_does_not_show(engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the engine refuses is AuthenticationFailed, and the message does not hold it."""
    wrong = "sk-wrong-0123456789abcdefghijklmnop"
    monkeypatch.setenv("ENGINE_SUITE_KEY", wrong)
    with Client(endpoints={"lab": lab(engine)}, home=tmp_path / "home") as client, pytest.raises(CallFailed) as caught:
        client.ask("Hello", model=MODEL)
    assert any(isinstance(cause, AuthenticationFailed) for cause in causes(caught.value))
    assert wrong not in repr(caught.value) + str(caught.value)


def test_prompt_over_the_window_is_typed(client: Client) -> None:
    """More tokens than the engine's window is ContextTooLong, not a retry."""
    with pytest.raises(CallFailed) as caught:
        client.ask("entangled bank " * 3000, model=MODEL, max_tokens=5)
    assert any(isinstance(cause, ContextTooLong) for cause in causes(caught.value))


@pytest.fixture
def doomed(model_dir: Path, tmp_path: Path) -> Iterator[EngineServer]:
    """A server of its own for a test that kills it."""
    server = EngineServer(model_dir, tmp_path / "doomed.log")
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop(signal.SIGKILL)


def test_server_killed_in_mid_stream(
    doomed: EngineServer, engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill -9 in mid-stream: with a second rung the answer is restarted there; without one the partial text is kept."""
    from tests.engines.server import KEY

    monkeypatch.setenv("ENGINE_SUITE_KEY", KEY)
    endpoints = {"doomed": lab(doomed), "lab": lab(engine)}
    with Client(endpoints=endpoints, ladder=["doomed/tiny", MODEL], home=tmp_path / "home") as client:
        killer = threading.Thread(target=lambda: (wait_until(lambda: doomed.running() == 2, 60), doomed.stop(signal.SIGKILL)))
        restarted = threading.Thread(target=lambda: replies.append(client.ask("Go on", **LONG)))
        replies: list[object] = []
        stream = client.stream("And on", model="doomed/tiny", on_interrupt="raise", **LONG)
        restarted.start()
        next(stream)
        killer.start()
        with pytest.raises(CallFailed) as caught:
            list(stream)
        restarted.join(180)
        killer.join(60)
    interrupted = next(cause for cause in causes(caught.value) if isinstance(cause, StreamInterrupted))
    assert interrupted.partial is not None
    assert interrupted.partial.text
    (reply,) = replies
    assert reply.rung == MODEL
    assert len(reply.attempts) >= 2
    failed = [(attempt.sent, attempt.cost_basis, attempt.cost_usd, attempt.error) for attempt in reply.attempts[:-1]]
    assert all(basis != "exact" for sent, basis, _, _ in failed if sent), failed
