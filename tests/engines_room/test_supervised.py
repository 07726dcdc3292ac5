"""What runs below this process: one list by name, which a forked child does not have, and ports."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path

import pytest

from nbllm.engines.supervised import _PORTS, PortTaken, Running, Supervised, free_port


class Thing(Supervised):
    """Something without a process."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)
        self.stops = 0

    def stop(self) -> None:
        """Count."""
        self.stops += 1


def test_things_are_kept_by_name_in_their_order() -> None:
    """The first of a name stays, and another one's end does not take it away."""
    running: Running[Thing] = Running()
    first, other, late = Thing("a"), Thing("b"), Thing("a")
    assert running.add(first) is first
    assert running.add(other) is other
    assert running.add(late) is first
    assert running.every() == [first, other]
    running.drop(late)
    assert running.get("a") is first
    running.drop(first)
    running.drop(first)
    assert running.every() == [other]
    assert running.get("a") is None


def test_a_thing_is_a_context_manager_that_ends_it() -> None:
    """However the block ends; without a process it has no id and no log."""
    with Thing("a") as thing:
        assert (thing.pid, thing.log_tail()) == (None, [])
        assert thing.uptime_s >= 0
    with pytest.raises(ZeroDivisionError), thing:
        raise ZeroDivisionError
    assert thing.stops == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_none_of_it() -> None:
    """What the parent runs is the parent's: the child's list is empty, and a lock that was held at the fork holds nobody up."""
    running: Running[Thing] = Running()
    running.add(Thing("a"))
    read, write = os.pipe()
    with running._lock:  # as another thread might
        child = os.fork()
        if child == 0:
            os.write(write, str(len(running.every())).encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"0"
    assert len(running.every()) == 1
    for end in (read, write):
        os.close(end)


def test_a_port_that_is_taken_is_named() -> None:
    """Any port that nobody has, or the wanted one, or a sentence that says which is taken."""
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        with pytest.raises(PortTaken, match=f"Port {taken} is taken. Nothing was started."):
            free_port(taken)
        assert free_port() != taken
    assert free_port(taken) == taken


def first_unasked() -> int:
    """Return the first of the ports that this system hands out unasked; 32,768 where it does not tell, as none begins below it."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        return 32_768


def test_a_port_is_not_one_that_the_system_gives_to_others() -> None:
    """What loads for a minute before it listens would find such a port gone; a notebook's seed does not repeat the choice."""
    state = random.getstate()
    ports = {free_port() for _ in range(20)}
    assert ports <= set(_PORTS)
    assert _PORTS.start > 1024
    assert first_unasked() < _PORTS.start or _PORTS.stop <= first_unasked()  # the first where somebody has widened that range
    assert len(ports) > 10
    assert random.getstate() == state


def test_a_port_is_found_where_all_of_those_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose usual ports are all in use has others."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr("nbllm.engines.supervised._PORTS", range(taken, taken + 1))
        monkeypatch.setattr("nbllm.engines.supervised._TRIES", 1)
        assert free_port() != taken
