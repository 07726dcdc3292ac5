"""offline(): tests of users reach no network and wait for nothing."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from nbllm.core import waits
from nbllm.testing import NetworkBlocked, offline


def test_offline_refuses_foreign_hosts_and_leaves_loopback_alone():
    """Inside offline() a foreign address or name is refused before anything leaves; 127.0.0.1 works; after it all is as before."""
    plain = (vars(socket.socket).get("connect"), socket.getaddrinfo)
    with socket.create_server(("127.0.0.1", 0)) as server, offline():
        socket.create_connection(server.getsockname()).close()
        with pytest.raises(NetworkBlocked, match=r"192\.0\.2\.1"):
            socket.create_connection(("192.0.2.1", 80))
        with pytest.raises(NetworkBlocked, match=r"example\.org"):
            socket.getaddrinfo("example.org", 443)
        with socket.socket() as raw, pytest.raises(NetworkBlocked):
            raw.connect_ex(("8.8.8.8", 53))
    assert (vars(socket.socket).get("connect"), socket.getaddrinfo) == plain


def test_offline_can_refuse_loopback_too():
    """loopback=False refuses every connection, also inside an offline() that would let it through."""
    with socket.create_server(("127.0.0.1", 0)) as server, offline(), offline(loopback=False):
        with pytest.raises(NetworkBlocked):
            socket.create_connection(server.getsockname())
        with pytest.raises(NetworkBlocked):
            socket.create_connection(("localhost", server.getsockname()[1]))


def test_offline_holds_on_other_threads_and_in_asyncio():
    """Requests run on a thread of their own: the guard holds there, and an event loop's connection meets it too."""

    async def connect():
        await asyncio.open_connection("192.0.2.1", 80)

    caught = []

    def run():
        try:
            asyncio.run(connect())
        except NetworkBlocked as exc:
            caught.append(exc)

    with offline():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "Nothing was sent" in str(caught[0])


def test_offline_decorates_functions_and_coroutines():
    """As a decorator it guards each run of a function, async ones for as long as they are awaited."""

    @offline()
    def plain():
        return waits.skipped()

    @offline()
    async def awaited():
        await asyncio.sleep(0)
        return waits.skipped()

    assert plain()
    assert asyncio.run(awaited())
    assert plain.__name__ == "plain"
    assert not waits.skipped()


def test_offline_skips_voluntary_waits_only_inside():
    """Backoff and the pace of simulated models take no time inside, and nest; outside they take what they take."""
    assert waits.paced_s(2.5) == 2.5
    with offline():
        with offline():
            assert waits.paced_s(2.5) == 0
        assert waits.paced_s(2.5) == 0
    assert waits.paced_s(2.5) == 2.5
    with pytest.raises(RuntimeError, match="without skip"):
        waits.unskip()


def test_offline_is_undone_when_the_test_fails():
    """An exception inside leaves no guard behind."""
    with pytest.raises(KeyError), offline():
        raise KeyError("x")
    assert not waits.skipped()
    assert "connect" not in vars(socket.socket)
