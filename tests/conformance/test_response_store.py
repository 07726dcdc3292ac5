from __future__ import annotations

import asyncio
import time
from decimal import Decimal

from msgspec.structs import replace

from nbllm.core.ports import Stored

ANSWER = {
    "text": "Grüße \x00 \ud800 ok",
    "usage": {"input_tokens": 3},
    "logprobs": [{"token": "a", "logprob": -0.5}],
    "vectors": [[0.1]],
}


def entry(key: str = "k" * 64, **changes) -> Stored:
    base = Stored(
        key=key,
        model="sim/large",
        created_at=time.time(),
        expires_at=None,
        answer=ANSWER,
        cost_usd=Decimal("0.001234567890123"),
        latency_s=1.25,
        ttft_s=0.5,
        tags=("demo", "a b"),
    )
    return replace(base, **changes)


def put(store, *entries: Stored) -> None:
    async def run() -> None:
        for one in entries:
            await store.put(one)

    asyncio.run(run())


def look(store, key: str) -> Stored | None:
    """Look an entry up: get_now where the store can, which must be what get says, else get alone."""
    found = asyncio.run(store.get(key))
    if store.waits:
        assert store.get_now(key) is None
    else:
        assert store.get_now(key) == found
    return found


def test_what_is_put_comes_back_exactly(backend):
    """Every field survives, money to the last digit, NUL bytes and lone surrogates included."""
    put(backend.store, entry())
    found = look(backend.store, "k" * 64)
    assert replace(found, size_bytes=0) == entry(created_at=found.created_at)
    assert found.size_bytes > 0
    assert look(backend.store, "k" * 64) == found


def test_a_key_never_put_is_a_miss(backend):
    """None, in a store without any entry too."""
    assert look(backend.store, "nothing") is None
    put(backend.store, entry())
    assert look(backend.store, "nothing") is None


def test_put_replaces(backend):
    """The second answer under one key is the one that is kept."""
    put(backend.store, entry(), entry(answer={"text": "new"}, tags=()))
    assert look(backend.store, "k" * 64).answer == {"text": "new"}
    assert backend.store.stats().entries == 1


def test_an_expired_entry_is_still_handed_out(backend):
    """The stage decides: a stale entry may serve the ladder."""
    put(backend.store, entry(expires_at=1.0))
    assert look(backend.store, "k" * 64).expires_at == 1.0


def test_a_caller_cannot_change_what_is_stored(backend):
    """Two readers share nothing that one of them could change."""
    put(backend.store, entry(answer={"list": [1]}))
    look(backend.store, "k" * 64).answer["list"].append(2)
    assert look(backend.store, "k" * 64).answer == {"list": [1]}


def test_entries_come_newest_first(backend):
    """By the time they were made."""
    now = time.time()
    put(backend.store, *(entry(f"key{i}", created_at=now - i) for i in (2, 0, 1)))
    assert [one.key for one in backend.store.entries()] == ["key0", "key1", "key2"]


def test_purge_deletes_what_matches_all_that_is_given(backend):
    """By key prefix, model, tag and age, alone and together; nothing given means everything."""
    now = time.time()
    store = backend.store

    def fill() -> None:
        put(
            store,
            entry("aa1", model="m1", tags=("x",), created_at=now - 100),
            entry("aa2", model="m2", tags=("x", "y%"), created_at=now),
            entry("bb1", model="m1", tags=(), created_at=now - 100),
        )

    def left() -> set[str]:
        return {one.key for one in store.entries()}

    for arguments, kept in (
        ({"key_prefix": "aa"}, {"bb1"}),
        ({"model": "m1"}, {"aa2"}),
        ({"model": "m"}, {"aa1", "aa2", "bb1"}),
        ({"tag": "x"}, {"bb1"}),
        ({"tag": "y%"}, {"aa1", "bb1"}),
        ({"tag": "m1"}, {"aa1", "aa2", "bb1"}),
        ({"older_than_s": 50.0}, {"aa2"}),
        ({"model": "m1", "tag": "x"}, {"aa2", "bb1"}),
        ({"keys": ["aa1", "bb1", "cc1", "a"]}, {"aa2"}),
        ({"keys": ["aa1", "aa2"], "model": "m1"}, {"aa2", "bb1"}),
        ({"keys": []}, {"aa1", "aa2", "bb1"}),
        ({}, set()),
    ):
        fill()
        assert store.purge(**arguments) == 3 - len(kept), arguments
        assert left() == kept, arguments


def test_stats_count(backend):
    """Entries and bytes are those that are there."""
    put(backend.store, entry("a"), entry("b"))
    stats = backend.store.stats()
    assert (stats.entries, stats.damaged) == (2, 0)
    assert 0 < stats.size_bytes < stats.size_limit_bytes
    assert backend.store.purge() == 2
    assert backend.store.stats().entries == 0


def test_what_is_missing_is_told_without_using_it(backend):
    """Each key that holds no entry, in order; to ask is no use of an entry, so it does not keep one from being the oldest."""
    store = backend.store
    put(store, entry("a" * 64), entry("b" * 64))

    async def run():
        assert list(await store.missing(["x" * 64, "a" * 64, "y" * 64])) == ["x" * 64, "y" * 64]
        assert list(await store.missing([])) == []

    asyncio.run(run())
