"""client.reset_breakers() and its async twin: what rests is tried at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nbllm import Client, errors
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client

DOWN = Script(then=errors.ConnectionFailed("refused", whole_endpoint=True), sent=False)


def reset(client: Client, door: str) -> None:
    """Reset by one of the two doors; by the async one from a loop of the caller's."""
    if door == "sync":
        client.reset_breakers()
    else:
        asyncio.run(client.areset_breakers())


both = pytest.mark.parametrize("door", ["sync", "async"])


@both
def test_a_breaker_says_when_it_is_tried_again_and_how_to_reset_it(door: str, tmp_path: Path) -> None:
    """BreakerOpen names the seconds and the method; calling it lets the very next call through."""
    fake = FakeProvider(default=DOWN)
    with fake_client(tmp_path, fake) as client:
        reset(client, door)  # before the first call there is nothing to reset
        for number in range(5):
            with pytest.raises(errors.CallFailed):
                client.ask(f"q{number}", retries=0)
        sent = fake.calls
        with pytest.raises(errors.BreakerOpen, match=r"tries it again in 1[0-5] s.*reset_breakers\(\)"):
            client.ask("resting", retries=0)
        assert fake.calls == sent
        fake._default = "well again"
        reset(client, door)
        assert client.ask("resting", retries=0).text == "well again"
        assert client.ask("and on", retries=0).text == "well again"


@both
def test_what_a_wrong_key_switched_off_is_on_again(door: str, tmp_path: Path) -> None:
    """A 401 stays refused without being sent until the breakers are reset."""
    fake = FakeProvider(errors.AuthenticationFailed("no", status=401))
    with fake_client(tmp_path, fake) as client:
        for _ in range(2):
            with pytest.raises(errors.AuthenticationFailed):
                client.ask("q", retries=0)
        assert fake.calls == 1
        reset(client, door)
        assert client.ask("q", retries=0).text == "ok"


def test_on_the_loop_that_answers(tmp_path: Path) -> None:
    """A service that lends its loop resets on it; the sync door is refused there, because it would wait for itself."""

    async def main() -> None:
        fake = FakeProvider(errors.AuthenticationFailed("no", status=401))
        async with fake_client(tmp_path, fake) as client:
            client.adopt_loop()
            with pytest.raises(errors.AuthenticationFailed):
                await client.aask("q", retries=0)
            with pytest.raises(RuntimeError, match="areset_breakers"):
                client.reset_breakers()
            await client.areset_breakers()
            assert (await client.aask("q", retries=0)).text == "ok"

    asyncio.run(main())
