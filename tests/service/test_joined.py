"""Head and body of an answer go out in one piece, and nothing is lost or changes its order by that."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from nbllm.service.joined import Joined


class _Line:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed


def joined(line: _Line) -> Joined:
    """Return what stands for a line, on the running loop."""
    return Joined(cast("Any", line), asyncio.get_running_loop())


def test_head_and_body_are_one_write() -> None:
    """What follows the head goes with it; later pieces go as they come."""

    async def send() -> list[bytes]:
        line = _Line()
        transport = joined(line)
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert transport.get_write_buffer_size() == 19
        transport.write(b"body")
        transport.write(b"more")
        await asyncio.sleep(0)
        assert not transport.is_closing()
        return line.writes

    assert asyncio.run(send()) == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]


def test_a_head_alone_goes_in_the_loops_next_turn() -> None:
    """An answer without a body, or one that is long in coming, is not held back."""

    async def send() -> list[bytes]:
        line = _Line()
        joined(line).write(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert not line.writes
        await asyncio.sleep(0)
        return line.writes

    assert asyncio.run(send()) == [b"HTTP/1.1 204 No Content\r\n\r\n"]


@given(st.lists(st.sampled_from([b"HTTP/1.1 200 OK", b"x", b"HTTP/", b"yy", None]), max_size=12))
def test_nothing_is_lost_and_the_order_stays(steps: list[bytes | None]) -> None:
    """Whatever is written, with turns of the loop between (None), and a close at the end: the same bytes arrive."""

    async def send() -> _Line:
        line = _Line()
        transport = joined(line)
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            else:
                transport.write(step)
        transport.close()
        await asyncio.sleep(0)
        return line

    line = asyncio.run(send())
    assert b"".join(line.writes) == b"".join(step for step in steps if step is not None)
    assert line.closed
