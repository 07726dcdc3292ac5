"""What every IdempotencyStore promises. A backend subclasses IdempotencyConformance and gives a `world` fixture.

A world is one shared place: `open()` is the store of one more process, `crash(store)` its sudden death, after which its leases
have lapsed; `clock` moves the time by which outcomes are forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import pytest

from nbllm.service.idempotency_store import OutcomesFull
from nbllm.service.ports import Blocked, Claim, IdempotencyStore, Stored

T = TypeVar("T")
KEEP_S = 1000.0
MOST_KEPT_BYTES = 50_000


class Clock:
    """A Unix time that tests move."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class IdempotencyWorld(Protocol):
    """One shared place; outcomes are kept for KEEP_S seconds there, MOST_KEPT_BYTES of one caller."""

    clock: Clock

    def open(self) -> IdempotencyStore: ...

    def crash(self, store: IdempotencyStore) -> None: ...

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...

    def close(self) -> None: ...


OK = Stored(200, (("content-type", "application/json"), ("x-cost", "0.1")), b'{"a": "\xc3\xa9"}\n\x00')


class IdempotencyConformance:
    """Tests of the port."""

    def test_an_outcome_is_replayed_byte_for_byte(self, world: IdempotencyWorld) -> None:
        """Status, headers and body come back as they were kept, in another process too, for each time the key comes."""

        async def main() -> None:
            first, second = world.open(), world.open()
            claim = await first.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            assert await first.finish(claim, OK)
            for store in (first, second, first):
                assert await store.begin("caller", "key", "f") == OK

        world.run(main())

    def test_one_claim_among_many(self, world: IdempotencyWorld) -> None:
        """Of 100 requests with one key that come at once, one runs; the others are told that it is in flight."""

        async def main() -> None:
            stores = [world.open() for _ in range(2)]
            got = await asyncio.gather(*(stores[number % 2].begin("caller", "key", "f") for number in range(100)))
            assert sum(isinstance(one, Claim) for one in got) == 1
            assert sum(one is Blocked.IN_FLIGHT for one in got) == 99

        world.run(main())

    def test_callers_do_not_share_keys(self, world: IdempotencyWorld) -> None:
        """The same key of another caller is another key, and two keys of one caller are two."""

        async def main() -> None:
            store = world.open()
            claims = [await store.begin(caller, key, "f") for caller in ("a", "b") for key in ("k", "l")]
            assert all(isinstance(claim, Claim) for claim in claims)
            assert isinstance(claims[0], Claim)
            assert await store.finish(claims[0], OK)
            assert await store.begin("a", "k", "f") == OK
            assert await store.begin("b", "k", "f") is Blocked.IN_FLIGHT

        world.run(main())

    def test_names_that_run_together(self, world: IdempotencyWorld) -> None:
        """Caller and key are told apart whatever characters they hold."""

        async def main() -> None:
            store = world.open()
            pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b"), ("", "a:b"), ("a:", "b"), ("%", "_"), ("_", "%"), ("é", "\u2028 x")]
            for pair in pairs:
                assert isinstance(await store.begin(*pair, "f"), Claim), pair

        world.run(main())

    def test_another_request_with_the_key(self, world: IdempotencyWorld) -> None:
        """It is refused while the first runs, after its end, and when its outcome is unknown; also when retried on purpose."""

        async def main() -> None:
            store = world.open()
            claim = await store.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            assert await store.begin("caller", "key", "g") is Blocked.OTHER_REQUEST
            assert await store.begin("caller", "key", "g", again=True) is Blocked.OTHER_REQUEST
            await store.finish(claim, OK)
            assert await store.begin("caller", "key", "g") is Blocked.OTHER_REQUEST

        world.run(main())

    def test_a_released_key_is_free(self, world: IdempotencyWorld) -> None:
        """It may be used for anything again, by any process."""

        async def main() -> None:
            first, second = world.open(), world.open()
            claim = await first.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            await first.release(claim)
            again = await second.begin("caller", "key", "other")
            assert isinstance(again, Claim)
            assert again.fencing > claim.fencing

        world.run(main())

    def test_a_crash_leaves_the_outcome_unknown(self, world: IdempotencyWorld) -> None:
        """The key says so until it is retried on purpose; the new run's outcome holds, and the old claim writes nothing."""

        async def main() -> None:
            first, second = world.open(), world.open()
            claim = await first.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            assert await second.begin("caller", "key", "f", again=True) is Blocked.IN_FLIGHT
            world.crash(first)
            for _ in range(2):
                assert await second.begin("caller", "key", "f") is Blocked.UNKNOWN
            again = await second.begin("caller", "key", "f", again=True)
            assert isinstance(again, Claim)
            assert await second.begin("caller", "key", "f", again=True) is Blocked.IN_FLIGHT
            assert not await second.finish(claim, Stored(200, (), b"late"))
            await second.release(claim)
            assert await second.begin("caller", "key", "f") is Blocked.IN_FLIGHT
            assert await second.finish(again, OK)
            assert not await second.finish(again, Stored(500, (), b"twice"))
            assert await second.begin("caller", "key", "f") == OK

        world.run(main())

    def test_outcomes_are_forgotten_in_time(self, world: IdempotencyWorld) -> None:
        """A day after its end, by whatever the service sets, the key is free; a clock that is set back forgets nothing."""

        async def main() -> None:
            store = world.open()
            claim = await store.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            world.clock.now += KEEP_S / 2
            assert await store.finish(claim, OK)
            world.clock.now += KEEP_S - 1
            assert await store.begin("caller", "key", "f") == OK
            world.clock.now -= 10 * KEEP_S
            assert await store.begin("caller", "key", "f") == OK
            world.clock.now += 10 * KEEP_S + 2
            assert isinstance(await store.begin("caller", "key", "f"), Claim)

        world.run(main())

    def test_a_living_claim_is_renewed(self, world: IdempotencyWorld) -> None:
        """Renewing says whether the claim still holds."""

        async def main() -> None:
            store = world.open()
            claim = await store.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            assert await store.renew(claim)
            await store.release(claim)
            assert not await store.renew(claim)

        world.run(main())

    def test_large_bodies(self, world: IdempotencyWorld) -> None:
        """A megabyte comes back as it was."""

        async def main() -> None:
            store = world.open()
            claim = await store.begin("caller", "key", "f")
            assert isinstance(claim, Claim)
            body = bytes(range(256)) * 4096
            assert await store.finish(claim, Stored(200, (), body))
            got = await store.begin("caller", "key", "f")
            assert isinstance(got, Stored)
            assert got.body == body

        world.run(main())

    def test_what_one_caller_keeps_is_bounded(self, world: IdempotencyWorld) -> None:
        """A caller whose answers hold as much as may be kept is told so before anything runs; what is kept is still replayed, other
        callers are not concerned, and room comes back as answers are forgotten. Runs that kept nothing took none.
        """

        async def main() -> None:
            store, other = world.open(), world.open()
            for number in range(200):
                claim = await store.begin("caller", f"freed {number}", "f")
                assert isinstance(claim, Claim)
                await store.release(claim)
            large = Stored(200, (), b"x" * (MOST_KEPT_BYTES // 4))
            for number in range(4):
                claim = await store.begin("caller", f"kept {number}", "f")
                assert isinstance(claim, Claim)
                assert await store.finish(claim, large)
            for one in (store, other):
                with pytest.raises(OutcomesFull) as refused:
                    await one.begin("caller", "one too many", "f")
                assert refused.value.problem.status == 503
                assert await one.begin("caller", "kept 0", "f") == large
                assert isinstance(await one.begin(f"another of {id(one)}", "its own", "f"), Claim)
            world.clock.now += KEEP_S + 61
            for one in (store, other):
                assert isinstance(await one.begin("caller", f"later {id(one)}", "f"), Claim)

        world.run(main())
