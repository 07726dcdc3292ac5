"""What every IdempotencyStore promises. A backend subclasses IdempotencyConformance and gives a `world` fixture.

A world is one shared place: `open()` is the store of one more process, `crash(store)` its sudden death, after which its leases
have lapsed; `clock` moves the time by which outcomes are forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

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


CALLERS, KEYS, PRINTS = st.sampled_from("ab"), st.sampled_from("kl"), st.sampled_from("fg")


class IdempotencyMachine(RuleBasedStateMachine):
    """Any order of requests, ends, crashes and time, held against a plain model. `world` is set by the backend."""

    make_world: Any = None
    claims = Bundle("claims")

    @initialize()
    def begin_world(self) -> None:
        self.world: IdempotencyWorld = type(self).make_world()
        self.stores: list[IdempotencyStore] = [self.world.open(), self.world.open()]
        self.known: dict[tuple[str, str], dict[str, Any]] = {}
        self.runs = 0

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    @rule(target=claims, which=st.integers(0, 1), caller=CALLERS, key=KEYS, print_=PRINTS, again=st.booleans())
    def request(self, which: int, caller: str, key: str, print_: str, again: bool) -> Any:
        """What a request is told follows from what is known of its key, whichever process it comes to."""
        got = self.world.run(self.stores[which].begin(caller, key, print_, again=again))
        entry = self.known.get((caller, key))
        if entry is not None and entry.get("until", float("inf")) < self.world.clock.now:
            entry = None
        if entry is None or (entry["print"] == print_ and entry["state"] == "crashed" and again):
            assert isinstance(got, Claim), got
            self.known[caller, key] = {"print": print_, "state": "running", "claim": got, "by": self.stores[which]}
            return got
        if entry["print"] != print_:
            assert got is Blocked.OTHER_REQUEST
        elif entry["state"] == "running":
            assert got is Blocked.IN_FLIGHT
        elif entry["state"] == "crashed":
            assert got is Blocked.UNKNOWN
        else:
            assert got == entry["outcome"]
        return None

    @rule(claim=consumes(claims))
    def finish(self, claim: Claim | None) -> None:
        """Only the current claim of a living process writes an outcome."""
        if claim is None:
            return
        self.runs += 1
        outcome = Stored(200, (), b"run %d" % self.runs)
        entry = self.known.get((claim.caller, claim.key))
        current = entry is not None and entry["claim"] == claim and entry["state"] == "running"
        by = entry["by"] if entry is not None and current else self.stores[0]
        assert self.world.run(by.finish(claim, outcome)) == current
        if entry is not None and current:
            entry |= {"state": "done", "outcome": outcome, "until": self.world.clock.now + KEEP_S}

    @rule(claim=consumes(claims))
    def release(self, claim: Claim | None) -> None:
        """Only the current claim frees its key."""
        if claim is None:
            return
        entry = self.known.get((claim.caller, claim.key))
        current = entry is not None and entry["claim"] == claim and entry["state"] == "running"
        by = entry["by"] if entry is not None and current else self.stores[0]
        self.world.run(by.release(claim))
        if current:
            del self.known[claim.caller, claim.key]

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """A process dies and another takes its place."""
        dead = self.stores[which]
        self.world.crash(dead)
        self.stores[which] = self.world.open()
        for entry in self.known.values():
            if entry["state"] == "running" and entry["by"] is dead:
                entry["state"], entry["until"] = "crashed", float("inf")

    @precondition(lambda self: all(entry["state"] == "done" for entry in self.known.values()))
    @rule(seconds=st.sampled_from([KEEP_S / 3, KEEP_S + 1, -KEEP_S]))
    def time_passes(self, seconds: float) -> None:
        """Outcomes age; the clock may be set back, but not before the end of what may have been forgotten by then."""
        over = any(entry["until"] < self.world.clock.now for entry in self.known.values())
        self.world.clock.now += abs(seconds) if over else seconds

    @invariant()
    def at_most_one_runs(self) -> None:
        """A claim that was given out is the only one of its key."""
        running = [entry["claim"] for entry in getattr(self, "known", {}).values() if entry["state"] == "running"]
        assert len({(claim.caller, claim.key) for claim in running}) == len(running)
