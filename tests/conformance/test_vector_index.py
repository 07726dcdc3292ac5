"""The vector index, once per backend, and held to comparing everything with everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core.ports import VectorIndex
from nbllm.errors import UnusableVector
from nbllm.storage.home import Home
from nbllm.storage.vector_memory import MemoryVectors
from nbllm.storage.vectors import SqliteVectors
from tests.storage.vector_making import DIMENSIONS, add_all, keys, row, run, unit

BACKENDS = ("disk", "memory")
RNG = np.random.default_rng(5)


@pytest.fixture(params=BACKENDS)
def index(request, tmp_path) -> Iterator[VectorIndex]:
    if request.param == "memory":
        yield MemoryVectors()
        return
    home = Home(tmp_path / "home")
    index = SqliteVectors(home)
    yield index
    index.close()
    home.close()


def test_what_was_added_is_found_with_all_that_it_said(index):
    """Key, question, time and embedder come back; the score of the same vector is 1, and never more."""
    vector = unit(RNG, 1)[0]
    question = "Wie heißt \x00 der \ud800 Berg?"
    run(index.add(row("k", vector * 7, question=question, created_at=12.5, embedder="e-2")))
    (found,) = run(index.nearest("p", vector))
    assert (found.key, found.created_at, found.embedder) == ("k", 12.5, "e-2")
    assert found.question.startswith("Wie heißt \x00 der ")
    assert found.score == pytest.approx(1.0, abs=1e-6)
    assert found.score <= 1.0


def test_neighbours_come_best_first_and_at_most_k(index):
    """Sorted by cosine, cut at k and at `at_least`, with the scores that numpy works out."""
    vectors = unit(RNG, 300)
    run(add_all(index, vectors))
    query = unit(RNG, 1)[0]
    truth = vectors @ query
    found = run(index.nearest("p", query, 5, at_least=-1.0))
    assert keys(found) == [f"k{number}" for number in np.argsort(-truth)[:5]]
    assert [one.score for one in found] == pytest.approx(np.sort(truth)[::-1][:5], abs=1e-4)
    above = run(index.nearest("p", query, 300, at_least=0.2))
    assert all(one.score >= 0.2 for one in above)
    assert len(above) == pytest.approx((truth >= 0.2).sum(), abs=1)
    assert run(index.nearest("p", query, 0, at_least=-1.0)) == []


def test_of_rows_with_the_same_vector_the_newest_comes_first(index):
    """Their scores are the same to the last bit, whatever their number, so that every backend has them in one order."""
    for vector, query in zip(unit(RNG, 8), unit(RNG, 8), strict=True):
        run(index.clear())
        for rows in range(1, 8):
            run(index.add(row(f"k{rows}", vector)))
            found = run(index.nearest("p", query, at_least=-1.0))
            assert keys(found) == [f"k{number}" for number in range(rows, 0, -1)]
            assert len({one.score for one in found}) == 1


def test_partitions_never_meet(index):
    """The same vector and the same key in two partitions are two rows, each found in its own."""
    vector = unit(RNG, 1)[0]
    run(index.add(row("k", vector, "a")))
    run(index.add(row("k", -vector, "b")))
    run(index.add(row("other", vector, "b, and more")))
    assert keys(run(index.nearest("a", vector))) == ["k"]
    assert run(index.nearest("b", vector)) == []
    assert run(index.nearest("nobody", vector)) == []
    assert (run(index.count("a")), run(index.count())) == (1, 3)


def test_adding_a_key_again_replaces_its_row(index):
    """One row for each key of a partition, the last one, with a new number."""
    first, second = unit(RNG, 2)
    run(index.add(row("k", first)))
    (before,) = run(index.nearest("p", first))
    run(index.add(row("k", second)))
    assert keys(run(index.nearest("p", first, at_least=0.99))) == []
    (after,) = run(index.nearest("p", second))
    assert after.row_id > before.row_id
    assert run(index.count("p")) == 1


def test_what_was_dropped_is_not_found(index):
    """By key in all partitions, by partition, by age, all of it; what is left stays."""
    a, b, c = unit(RNG, 3)
    for key, vector, partition, created_at in (("a", a, "p", 1.0), ("a", a, "q", 2.0), ("b", b, "p", 3.0), ("c", c, "r", 4.0)):
        run(index.add(row(key, vector, partition, created_at=created_at)))
    assert run(index.drop("a", "never")) == 2
    assert run(index.nearest("p", a)) == run(index.nearest("q", a)) == []
    assert keys(run(index.nearest("p", b))) == ["b"]
    assert run(index.drop_older(3.5)) == 1
    assert run(index.nearest("p", b)) == []
    assert run(index.drop_partition("r")) == 1
    assert run(index.nearest("r", c)) == []
    run(index.add(row("d", np.ones(3), "r")))  # another dimension: the partition is forgotten, not only empty
    assert run(index.clear()) == 1
    assert run(index.clear()) == run(index.count()) == 0


def test_keys_are_listed_in_order(index):
    """So that whoever knows which answers are gone can drop their rows, some at a time."""
    run(add_all(index, unit(RNG, 5)))
    first = run(index.keys(limit=2))
    assert [key for _, key in first] == ["k0", "k1"]
    assert [key for _, key in run(index.keys(after=first[-1][0]))] == ["k2", "k3", "k4"]


def test_many_keys_go_at_once(index):
    """More than one statement can name."""
    run(add_all(index, unit(RNG, 450)))
    assert run(index.drop(*(f"k{number}" for number in range(1, 450)))) == 449
    assert [key for _, key in run(index.keys())] == ["k0"]


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (np.zeros(DIMENSIONS), "all zeros"),
        (np.full(DIMENSIONS, np.nan), "not finite"),
        (np.full(DIMENSIONS, np.inf), "not finite"),
        (np.ones(DIMENSIONS + 1), f"{DIMENSIONS + 1} dimensions"),
        (np.ones((2, DIMENSIONS)), "shape"),
        ([], "shape"),
        (["a"], "not a list of numbers"),
    ],
)
def test_an_unusable_vector_is_refused_by_name_and_changes_nothing(index, vector, words):
    """Zeros, NaN, infinity, another dimension, another shape: a typed error, whether it is to be kept or looked for."""
    good = unit(RNG, 1)[0]
    run(index.add(row("good", good)))
    with pytest.raises(UnusableVector, match=words):
        run(index.add(row("bad", vector)))
    with pytest.raises(UnusableVector, match=words):
        run(index.nearest("p", vector))
    assert keys(run(index.nearest("p", good))) == ["good"]
    assert run(index.count()) == 1


def test_huge_and_tiny_numbers_are_vectors_too(index):
    """Length does not matter, even where its square would overflow or vanish."""
    vector = unit(RNG, 1)[0].astype(np.float64)
    run(index.add(row("k", vector * 1e200)))
    (found,) = run(index.nearest("p", vector * 1e-200))
    assert found.score == pytest.approx(1.0, abs=1e-6)


def test_stats_count(index):
    """Rows and partitions are those that are there."""
    run(add_all(index, unit(RNG, 3)))
    run(index.add(row("k", unit(RNG, 1)[0], "q")))
    stats = index.stats()
    assert (stats.rows, stats.partitions) == (4, 2)


def test_tasks_add_and_search_at_once(index):
    """A hundred tasks of one loop, each finding what it added the moment before."""
    vectors = unit(RNG, 100, 64)

    async def one(number: int) -> str:
        await index.add(row(f"k{number}", vectors[number]))
        return (await index.nearest("p", vectors[number], 1))[0].key

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(one, range(100)))

    assert run(all_of_them()) == [f"k{number}" for number in range(100)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("pq"), st.integers(0, 5), st.integers(0, 7)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
        st.tuples(st.just("drop_partition"), st.sampled_from("pq")),
        st.tuples(
            st.just("open"),
        ),
    ),
    max_size=20,
)
PALETTE = unit(np.random.default_rng(8), 8)


@given(steps)
@settings(max_examples=25)
def test_any_order_of_adding_and_dropping_leaves_what_a_dict_would(taken):
    """Two indexes on one home and the one in memory say the same after every step; "open" opens one of the two anew."""
    with TemporaryDirectory() as folder:
        run(_in_step(taken, Path(folder)))


async def _in_step(taken: list[tuple], folder: Path) -> None:
    homes = [Home(folder), Home(folder)]
    both = [SqliteVectors(home) for home in homes]
    truth = MemoryVectors()
    for turn, (what, *values) in enumerate(taken):
        if what == "open":
            both[turn % 2].close()
            both[turn % 2] = SqliteVectors(homes[turn % 2])
        for index in (both[turn % 2], truth):
            if what == "add":
                partition, key, number = values
                await index.add(row(f"k{key}", PALETTE[number], partition))
            elif what == "drop":
                await index.drop(f"k{values[0]}")
            elif what == "drop_partition":
                await index.drop_partition(values[0])
        for partition in "pq":
            for index in both:
                found = await index.nearest(partition, PALETTE[turn % 8], at_least=-1.0)
                wanted = await truth.nearest(partition, PALETTE[turn % 8], at_least=-1.0)
                assert keys(found) == keys(wanted)
                assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-3)
    for index, home in zip(both, homes, strict=True):
        index.close()
        home.close()
