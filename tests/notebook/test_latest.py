"""Sliders may be moved beside a running cell, by several threads at once: one works, and the latest value wins."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.notebook.latest import Latest


def test_one_thread_works_and_the_latest_value_is_the_last_one() -> None:
    """Of the values that come while one is worked on, only the latest is worked on; nobody else waits."""
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(value: int) -> None:
        begun.set()
        assert go_on.wait(30)
        done.append((value, threading.get_ident()))

    latest = Latest(work)
    worker = threading.Thread(target=latest, args=(0,))
    worker.start()
    assert begun.wait(30)
    for value in range(1, 50):
        latest(value)  # returns at once: the worker takes it on
    assert done == []
    go_on.set()
    worker.join(30)
    assert [value for value, _ in done] == [0, 49]
    assert {thread for _, thread in done} == {worker.ident}


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=2, max_size=4))
def test_work_never_overlaps_and_ends_with_the_last_value(given_: list[list[int]]) -> None:
    """From any number of threads: never two at once, and the last value worked on is the last that some thread gave."""
    inside, overlaps, done = threading.Lock(), [], []

    def work(value: tuple[int, int]) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(value)
            return
        done.append(value)
        inside.release()

    latest = Latest(work)
    threads = [
        threading.Thread(target=lambda n=n, mine=mine: [latest((n, at)) for at in range(len(mine))])
        for n, mine in enumerate(given_)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not overlaps
    assert done[-1] in {(n, len(mine) - 1) for n, mine in enumerate(given_)}


def test_a_value_that_cannot_be_drawn_blocks_no_other() -> None:
    """An error reaches the one who gave the value; the next value is worked on as ever."""
    done = []

    def work(value: int) -> None:
        if value < 0:
            raise ValueError(value)
        done.append(value)

    latest = Latest(work)
    with pytest.raises(ValueError, match="-1"):
        latest(-1)
    latest(2)
    assert done == [2]


def test_a_value_given_from_inside_the_work_is_taken_on() -> None:
    """Work that moves the slider itself does not dead-lock."""
    done = []

    def work(value: int) -> None:
        done.append(value)
        if value < 3:
            latest(value + 1)

    latest = Latest(work)
    latest(0)
    assert done == [0, 1, 2, 3]
