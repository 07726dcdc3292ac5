"""Any order of requests, ends, crashes and time, held against a model of what an IdempotencyStore promises."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from nbllm.service.ports import Blocked, Claim, IdempotencyStore, Stored
from tests.service.conformance_idempotency import KEEP_S, IdempotencyWorld

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
