"""The stopwatch of promises in seconds: fair on a busy machine, and no excuse for what is slow by itself."""

from __future__ import annotations

import hashlib
import threading

import pytest

from tests import starvation
from tests.starvation import Stopwatch, within


def watched(monkeypatch: pytest.MonkeyPatch, threads: dict[str, float], *, others: bool = False, **lost_s: float) -> Stopwatch:
    """Return a watch that was made 10 s ago, after which threads have waited and the machine has lost so much."""
    monkeypatch.setattr(starvation, "_PROCESSORS", 2)
    monkeypatch.setattr(starvation, "starved_s", lambda: dict.fromkeys(threads, 1.0))
    monkeypatch.setattr(starvation, "machine_lost_s", lambda: dict.fromkeys(lost_s, 1.0))
    watch = Stopwatch(others=others)
    watch.began_s -= 10.0
    monkeypatch.setattr(starvation, "starved_s", lambda: {name: 1.0 + waited_s for name, waited_s in threads.items()})
    monkeypatch.setattr(starvation, "machine_lost_s", lambda: {name: 1.0 + amount_s for name, amount_s in lost_s.items()})
    return watch


def test_what_others_took_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait of the thread that waited longest, the disks' and the host's, which is told of all processors together."""
    watch = watched(monkeypatch, {"a": 2.0, "b": 1.5}, cpu=9.0, io=0.5, stolen=3.0)
    assert watch.lost_s == pytest.approx(2.0 + 0.5 + 1.5)
    assert watch.s == pytest.approx(6.0, abs=0.5)
    assert watched(monkeypatch, {"a": 2.0}, others=True, cpu=3.0).lost_s == pytest.approx(3.0)


@pytest.mark.parametrize("lost", [{"io": 10.0}, {"stolen": 20.0}, {"cpu": 10.0}])
def test_no_more_than_half_is_left_out(lost: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine says: its disks may be busy with what is timed, and its threads wait behind each other."""
    watch = watched(monkeypatch, dict.fromkeys("abcdefgh", 8.0), others=True, **lost)
    assert watch.s == pytest.approx(5.0, abs=0.5)


def test_threads_of_our_own_are_no_excuse() -> None:
    """Sixteen of this process's threads that keep the processors busy: at least half of the time counts, and a limit is missed."""
    over, watch = threading.Event(), Stopwatch()

    def busy() -> None:
        while not over.is_set():
            hashlib.sha256(b"x" * 5_000_000).digest()

    crowd = [threading.Thread(target=busy) for _ in range(16)]
    for thread in crowd:
        thread.start()
    over.wait(0.4)
    all_s = watch.all_s
    try:
        assert watch.s >= all_s / 2
    finally:
        over.set()
        for thread in crowd:
            thread.join()


def test_a_limit_is_missed_by_what_takes_twice_as_long() -> None:
    """Whatever else the machine does meanwhile."""
    with pytest.raises(AssertionError, match="the machine's other work took"), within(0.05):
        threading.Event().wait(0.2)
