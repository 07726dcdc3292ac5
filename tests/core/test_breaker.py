"""The circuit breaker, as a table of cases and as a state machine against a plain model."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from msgspec.structs import replace

from nbllm.core.breaker import (
    BreakerState,
    Outcome,
    Verdict,
    ask,
    from_json,
    refuses,
    report,
    switch_off,
    to_json,
)


def failed(times: int, now_s: float = 100.0, state: BreakerState | None = None) -> BreakerState:
    """Return a state after so many failures in a row."""
    state = state or BreakerState()
    for _ in range(times):
        state, decision = ask(state, now_s, "x")
        assert decision.ticket is not None
        state = report(state, Outcome.FAILURE, now_s, decision.ticket)
    return state


def test_five_failures_open_it_for_fifteen_seconds():
    """Four failures leave it closed, the fifth opens it for 15 s, and then one probe goes."""
    assert not failed(4).is_open
    state = failed(5)
    assert state.is_open
    state, decision = ask(state, 114.9, "a")
    assert (decision.verdict, decision.retry_at_s, decision.ticket) == (Verdict.REFUSE, 115.0, None)
    state, decision = ask(state, 115.0, "a")
    assert decision.verdict is Verdict.PROBE
    assert decision.ticket is not None
    assert decision.ticket.probe == "a"


def test_failures_must_be_half_of_the_attempts():
    """Five failures among eleven attempts are a bad day, not a dead endpoint; a sixth of twelve opens it."""
    state, decision = ask(None, 100.0, "x")
    for _ in range(6):
        state = report(state, Outcome.SUCCESS, 100.0, decision.ticket)
    state = failed(5, state=state)
    assert not state.is_open
    assert failed(1, state=state).is_open


def test_old_failures_are_forgotten():
    """Four failures thirty seconds ago and one now do not open it."""
    state = failed(4, 100.0)
    assert not failed(1, 130.0, state).is_open
    assert failed(1, 129.9, state).is_open


def test_neutral_outcomes_never_count():
    """Any number of 429s, the caller's own errors and cancellations leave a fresh breaker as it was."""
    state, decision = ask(None, 100.0, "x")
    for _ in range(100):
        state = report(state, Outcome.NEUTRAL, 100.0, decision.ticket)
    assert state == BreakerState()


def test_the_open_time_doubles_to_two_minutes_and_resets():
    """Failing probes open it for 30, 60, 120, 120 s; a probe that succeeds closes it, and the next opening is 15 s again."""
    state, now, lengths = failed(5), 115.0, []
    for _ in range(4):
        state, decision = ask(state, now, "p")
        state = report(state, Outcome.FAILURE, now, decision.ticket)
        lengths.append(state.open_until_s - now)
        now = state.open_until_s
    assert lengths == [30.0, 60.0, 120.0, 120.0]
    state, decision = ask(state, now, "p")
    state = report(state, Outcome.SUCCESS, now, decision.ticket)
    assert not state.is_open
    state = failed(5, now, state)
    assert state.open_until_s == now + 15.0


def test_one_probe_at_a_time_and_a_lost_one_does_not_wedge_it():
    """While a probe's lease runs others are refused; after it another probe goes, though the first never came back."""
    state, first = ask(failed(5), 115.0, "a", lease_s=30.0)
    state, second = ask(state, 116.0, "b")
    assert (second.verdict, second.retry_at_s) == (Verdict.REFUSE, 145.0)
    assert refuses(state, 144.9) == 145.0
    state, third = ask(state, 145.0, "c")
    assert third.verdict is Verdict.PROBE
    for outcome in Outcome:
        assert report(state, outcome, 146.0, first.ticket) == state


def test_a_neutral_probe_gives_its_lease_back_without_judging():
    """A probe that met a 429 or was cancelled leaves it open, and the next asker probes at once."""
    state, decision = ask(failed(5), 115.0, "a")
    state = report(state, Outcome.NEUTRAL, 116.0, decision.ticket)
    assert state.is_open
    assert ask(state, 116.0, "b")[1].verdict is Verdict.PROBE


def test_late_results_neither_close_nor_open():
    """An attempt sent before it opened that succeeds late does not close it; one that fails after it closed does not count."""
    state, early = ask(failed(4), 100.0, "x")
    opened = failed(1, 100.0, state)
    assert report(opened, Outcome.SUCCESS, 101.0, early.ticket) == opened
    probing, decision = ask(opened, 115.0, "p")
    assert report(probing, Outcome.SUCCESS, 116.0, early.ticket) == probing
    closed = report(probing, Outcome.SUCCESS, 116.0, decision.ticket)
    for _ in range(10):
        assert report(closed, Outcome.FAILURE, 117.0, early.ticket) == closed


def test_a_wrong_key_stays_off_until_settings_change():
    """A switched-off key is refused with its reason, however long one waits, until it comes with other settings."""
    state = switch_off(BreakerState(), "The key of LAB_KEY was refused (401).", "key-1")
    state, decision = ask(state, 1e9, "x", settings="key-1")
    assert (decision.verdict, decision.retry_at_s, decision.sends) == (Verdict.REFUSE, None, False)
    assert "LAB_KEY" in decision.reason
    state, decision = ask(state, 100.0, "x", settings="key-2")
    assert decision.verdict is Verdict.ALLOW
    assert state.off is None


def test_switching_off_survives_the_phases():
    """Opening and closing does not forget that a key is off."""
    state, decision = ask(failed(4), 100.0, "x")
    state = report(switch_off(state, "no", "s"), Outcome.FAILURE, 100.0, decision.ticket)
    assert state.is_open
    assert state.off is not None


def test_the_state_travels_as_json():
    """What a shared backend stores comes back equal, and what is no state is refused."""
    for state in (BreakerState(), failed(3), failed(5), ask(failed(5), 115.0, "ü")[0], switch_off(failed(2), "why", "s")):
        assert from_json(to_json(state)) == state
    for text in ("", "[]", '{"phase": 1}', "null", '{"slots": 1, "off": null}', '{"slots": [[1]], "off": null}'):
        with pytest.raises(ValueError):
            from_json(text)


class BreakerMachine(RuleBasedStateMachine):
    """Any number of callers ask, take their time, come back in any order or never, while the clock moves on."""

    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        self.state = BreakerState()
        self.now = 1_000.0
        self.asked = 0
        self.probes: dict[str, float] = {}
        self.log: list[tuple[int, int, bool]] = []
        self.opened_at: float | None = None

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 7.5, 15.0, 31.0, 130.0]))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule(target=tickets)
    def ask(self):
        """Somebody wants to send."""
        self.asked += 1
        lease = f"lease-{self.asked}"
        before = self.state
        self.state, decision = ask(before, self.now, lease)
        if decision.verdict is Verdict.PROBE:
            assert before.is_open
            assert self.now >= before.open_until_s
            assert not [one for one, until in self.probes.items() if until > self.now], "two probes at once"
            self.probes[lease] = self.now + 30.0
        elif decision.verdict is Verdict.ALLOW:
            assert not before.is_open
            assert self.state == before
        else:
            assert before.is_open
            assert decision.retry_at_s > self.now, "told to wait for a moment that has passed"
            assert ask(self.state, decision.retry_at_s, "later")[1].verdict is Verdict.PROBE, "wedged"
        return decision.ticket

    @rule(ticket=consumes(tickets), outcome=st.sampled_from(Outcome))
    def come_back(self, ticket, outcome):
        """A result arrives, in time or late."""
        if ticket is None:
            return
        before = self.state
        self.state = report(before, outcome, self.now, ticket)
        if ticket.probe is not None and ticket.generation == before.generation:
            self.probes.pop(ticket.probe, None)
        if ticket.generation != before.generation:
            assert self.state == before, "a late result changed something"
        if not before.is_open and outcome is not Outcome.NEUTRAL and ticket.generation == before.generation:
            self.log.append((before.generation, math.floor(self.now), outcome is Outcome.FAILURE))
        recent = [bad for gen, second, bad in self.log if gen == before.generation and second > math.floor(self.now) - 30]
        enough = sum(recent) >= 5 and 2 * sum(recent) >= len(recent)
        if not before.is_open and outcome is Outcome.FAILURE and ticket.generation == before.generation:
            assert self.state.is_open == enough
        elif not before.is_open:
            assert not self.state.is_open
        if before.is_open and not self.state.is_open:
            assert outcome is Outcome.SUCCESS
            assert ticket.probe == before.lease_id
        if self.state.generation != before.generation:
            self.probes.clear()

    @rule(ticket=consumes(tickets))
    def vanish(self, ticket):
        """A caller dies and never reports."""

    @precondition(lambda self: self.state.is_open)
    @rule()
    def never_wedged(self):
        """From any open state, waiting long enough lets a probe through."""
        assert ask(self.state, self.now + 200.0, "later")[1].verdict is Verdict.PROBE

    @invariant()
    def sound(self):
        """Open times are bounded, and the state travels as JSON."""
        assert 15.0 <= self.state.open_s <= 120.0
        if self.state.is_open:
            assert self.state.open_until_s <= self.now + 120.0
        assert len(self.state.slots) <= 31
        assert from_json(to_json(self.state)) == self.state


TestBreakerMachine = BreakerMachine.TestCase


def test_a_stateful_copy_is_not_shared():
    """The functions return new values and leave the old ones alone, so that a store can compare and swap."""
    state = failed(5)
    copy = replace(state)
    ask(state, 200.0, "p")
    assert state == copy
