"""What flows print is in no answer and breaks no line of the log."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest

from nbllm.flow_context import WATCHER
from nbllm.service.flow_prints import flows_print_into_the_log
from nbllm.service.flow_watch import Follower

SECRET = "sk-proj-" + "Zx9Yw8Vu7" * 5


def printed(*, say_what: bool) -> str:
    """Print as a flow and as somebody else; return what is on stdout."""
    real = io.StringIO()
    with flows_print_into_the_log(real, say_what=say_what):
        print("before")
        token = WATCHER.set(Follower())
        print("private", SECRET)
        print()
        WATCHER.reset(token)

        async def main() -> None:
            async def flow() -> None:
                WATCHER.set(Follower())
                print("private too")

            task = asyncio.create_task(flow())
            print("meanwhile")
            await task

        asyncio.run(main())
        print("after", flush=True)
    return real.getvalue()


def test_a_flow_prints_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """On stdout is what others print; the log says how much a flow printed, and not what."""
    with caplog.at_level(logging.INFO, "nbllm.service"):
        assert printed(say_what=False) == "before\nmeanwhile\nafter\n"
    assert "printed 7 characters" in caplog.text
    assert "private" not in caplog.text


def test_with_prompts_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What a flow printed is there too, without keys."""
    with caplog.at_level(logging.INFO, "nbllm.service"):
        printed(say_what=True)
    assert "private too" in caplog.text
    assert SECRET not in caplog.text
