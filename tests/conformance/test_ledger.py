from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import asdict
from decimal import Decimal

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm.core.messages import AttemptStatus, CallRow, Usage
from nbllm.core.ports import Filter, Written
from nbllm.core.why import GuardRow, Why
from nbllm.errors import InvalidRequest
from nbllm.storage.open import open_storage
from tests.storage.rows import NOW, attempt, call, open_attempt, open_call

D = Decimal


@pytest.fixture(params=["sqlite"])
def ledger(request, tmp_path):
    storage = open_storage(tmp_path / "home", session="s1", on_trouble=pytest.fail)
    yield storage.ledger
    storage.close()


def sure(*written: Written) -> None:
    for one in written:
        if isinstance(one, Future):
            one.result(30)


def finish(ledger, row: CallRow, *attempts) -> None:
    sure(ledger.open_call(replace(row, status=AttemptStatus.OPEN)))
    for one in attempts:
        sure(
            ledger.open_attempt(replace(one, status=AttemptStatus.OPEN, cost_usd=None, cost_basis="unknown")),
            ledger.close_attempt(one),
        )
    sure(ledger.close_call(row))


def test_rows_come_back_exactly(ledger):
    """A call and its attempts, opened and closed, keep every field."""
    row = call(user="ann", saved_usd=D("0.5"), saved_s=2.0, repairs=1, error="Truncated", coalesced=True, cache="refresh")
    both = [attempt(row), attempt(row, number=2, purpose="repair", sent=None, error="ServerFailed", http_status=503, cost_usd=None)]
    finish(ledger, row, *both)
    assert ledger.calls(Filter(), limit=5) == [row]
    assert ledger.attempts(row.call_id) == both
    assert ledger.attempts("nothing") == []


def test_an_open_call_shows_as_open(ledger):
    """Until it is closed, nothing is known of its end."""
    row = open_call()
    sure(ledger.open_call(row), ledger.open_attempt(open_attempt(row)))
    assert ledger.calls(Filter(), limit=5) == [row]
    assert ledger.attempts(row.call_id)[0].status is AttemptStatus.OPEN


def test_closed_once(ledger):
    """A second close changes neither call nor attempt."""
    row = call()
    one = attempt(row)
    finish(ledger, row, one)
    sure(ledger.close_call(replace(row, status=AttemptStatus.FAILED)), ledger.close_attempt(replace(one, cost_usd=D(9))))
    assert ledger.calls(Filter(), limit=5) == [row]
    assert ledger.attempts(row.call_id) == [one]


def test_an_attempt_may_outlive_its_call(ledger):
    """A shared run goes on after the call that began it was cancelled; what it costs is still that call's."""
    row = call(status=AttemptStatus.CANCELLED)
    finish(ledger, row)
    late = attempt(row)
    sure(ledger.open_attempt(replace(late, status=AttemptStatus.OPEN)), ledger.close_attempt(late))
    assert ledger.usage("total", Filter())[0].cost_usd == late.cost_usd


def fill(ledger) -> None:
    first = call(started_at=NOW, feature="a", user="u")
    finish(ledger, first, attempt(first, cost_usd=D("0.1")), attempt(first, number=2, cost_usd=D("0.05"), cost_basis="estimated"))
    failed = call(
        started_at=NOW + 86400, session="s2", rung=None, model="openai/big", status=AttemptStatus.FAILED, source=None, feature=None
    )
    finish(
        ledger,
        failed,
        attempt(failed, cost_usd=None, cost_basis="unknown", worst_case_usd=D(2)),
        attempt(failed, number=2, sent=False, cost_usd=None, cost_basis="unknown", worst_case_usd=D(4)),
    )
    sure(
        ledger.add_call(call(started_at=NOW + 1, source="cache", saved_usd=D("0.15"), saved_s=1.0, feature="a", input_tokens=None))
    )


def test_usage_sums(ledger):
    """Counts, tokens and money of all attempts; unknown costs are counted, not guessed;
    an attempt that was not sent is no request and costs nothing.
    """
    fill(ledger)
    (total,) = ledger.usage("total", Filter())
    assert (total.calls, total.failed, total.hits, total.attempts) == (3, 1, 1, 3)
    assert (total.input_tokens, total.output_tokens) == (400, 80)
    assert (total.cost_usd, total.estimated_usd, total.unknown_cost_calls) == (D("0.15"), D("0.05"), 1)
    assert (total.saved_usd, total.saved_s) == (D("0.15"), 1.0)
    assert ledger.spent_usd(Filter()) == D("2.15")


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", ["sim/large", "openai/big"]),
        ("feature", ["a", "(none)"]),
        ("user", ["u", "(none)"]),
        ("day", ["2026-09-21", "2026-09-22"]),
        ("session", ["s1", "s2"]),
        ("source", ["model", "(none)", "cache"]),
        ("status", ["done", "failed"]),
    ],
)
def test_usage_groups(ledger, by, groups):
    """Every grouping names its groups: days in order, others by cost, then calls, then name."""
    fill(ledger)
    assert [row.group for row in ledger.usage(by, Filter())] == groups
    assert sum(row.calls for row in ledger.usage(by, Filter())) == 3


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (Filter(), 3),
        (Filter(session="s2"), 1),
        (Filter(session="never"), 0),
        (Filter(model="sim/large"), 2),
        (Filter(model="openai/*"), 1),
        (Filter(model="sim/*", feature="a"), 2),
        (Filter(user="u"), 1),
        (Filter(since=NOW + 1), 2),
        (Filter(until=NOW + 1), 1),
        (Filter(since=NOW + 86400), 1),
        (Filter(since=NOW + 90000), 0),
        (Filter(since=NOW + 9e6), 0),
        (Filter(session="s1", since=NOW + 1, until=NOW + 2), 1),
    ],
)
def test_filters(ledger, where, count):
    """All readers agree on which calls a filter means, an empty result included."""
    fill(ledger)
    assert len(ledger.calls(where, limit=10)) == count
    assert len(ledger.series(where).started_at) == count
    assert sum(row.calls for row in ledger.usage("model", where)) == count


def test_an_empty_ledger(ledger):
    """Reading before the first call gives nothing, and no error."""
    assert ledger.usage("model", Filter()) == []
    assert ledger.calls(Filter(), limit=3) == []
    assert len(ledger.series(Filter()).started_at) == 0
    assert ledger.spent_usd(Filter()) == 0


def test_an_unknown_grouping_is_refused(ledger):
    """By name, with those that there are."""
    with pytest.raises(InvalidRequest, match=r"'colour'.*\n.*feature"):
        ledger.usage("colour", Filter())
    with pytest.raises(InvalidRequest, match="'colour'"):
        ledger.usages(("model", "colour"), Filter())


def test_several_groupings_are_what_each_is_by_itself(ledger):
    """Sums that are read together do not mix."""
    fill(ledger)
    groupings = ("model", "feature", "user", "day", "session", "source", "status", "total")
    assert ledger.usages(groupings, Filter()) == [ledger.usage(by, Filter()) for by in groupings]


def test_series_are_columns_in_order_of_time(ledger):
    """NaN where unknown; a hit costs 0; models are indexed."""
    fill(ledger)
    series = ledger.series(Filter())
    assert list(series.started_at) == [NOW, NOW + 1, NOW + 86400]
    assert list(series.hit) == [False, True, False]
    assert list(series.failed) == [False, False, True]
    assert [series.models[index] for index in series.model] == ["sim/large", "sim/large", "openai/big"]
    assert series.cost_usd[:2].tolist() == pytest.approx([0.15, 0.0])
    assert math.isnan(series.cost_usd[2])
    assert math.isnan(series.saved_usd[0])
    assert series.saved_usd[1] == pytest.approx(0.15)
    assert series.input_tokens[0] == 10
    assert math.isnan(series.input_tokens[1])
    assert series.latency_s.tolist() == [1.5, 1.5, 1.5]


def test_series_without_costs_say_that_they_know_none(ledger):
    """What is not read is NaN, never 0; all else is the same."""
    fill(ledger)
    whole, bare = asdict(ledger.series(Filter())), asdict(ledger.series(Filter(), costs=False))
    assert [math.isnan(cost) for cost in bare.pop("cost_usd")] == [True, True, True]
    assert bare.pop("models") == whole.pop("models")
    assert bare.keys() == whole.keys() - {"cost_usd"}
    assert all(np.array_equal(column, whole[name], equal_nan=column.dtype.kind == "f") for name, column in bare.items())


def test_calls_come_newest_first(ledger):
    """And no more than asked for."""
    for second in (3, 1, 2):
        sure(ledger.add_call(call(started_at=NOW + second)))
    assert [row.started_at - NOW for row in ledger.calls(Filter(), limit=2)] == [3, 2]


def test_cache_keys_come_each_once(ledger):
    """However many calls asked the same; calls without a key, and those of others, give none."""
    for number in range(30):
        key = None if number % 3 == 0 else f"k{number % 4}"
        sure(ledger.add_call(call(notebook="a" if number < 10 else "b", key_hash=key)))
    assert ledger.key_hashes(Filter(notebook="a")) == {"k0", "k1", "k2", "k3"}
    assert ledger.key_hashes(Filter(notebook="c")) == frozenset()


def test_hostile_names_and_counts(ledger):
    """Lone surrogates, NUL bytes, quotes and impossible counts are stored as well as they can be, never an error."""
    row = call(feature="\ud800'; DROP TABLE calls; --\x00", user="", input_tokens=10**30, output_tokens=-5)
    finish(ledger, row, attempt(row, worst_case_usd=D("1e30"), cost_usd=D("Infinity")))
    assert ledger.calls(Filter(), limit=1)[0].output_tokens == 0
    assert len(ledger.usage("feature", Filter(feature=row.feature))) == 1


def test_why_an_answer_came_is_kept_without_texts(ledger):
    """The route, the cut-off and the verdicts on a match come back as they were written, for hits and for calls that were open."""
    why = Why(
        route="cheap",
        reason="a match",
        similarity=0.97,
        guards=(GuardRow("numbers", True), GuardRow("names", False)),
        threshold=0.95,
        error_upper=0.04,
        plan_id="p1",
    )
    hit, refused, plain = call(why=why), call(why=Why(route="cheap", reason="none accepted"), accepted=False), call()
    for row in (hit, plain):
        ledger.add_call(row)
    finish(ledger, refused)
    kept = {row.call_id: row for row in ledger.calls(Filter(), limit=9)}
    assert [kept[row.call_id].why for row in (hit, refused, plain)] == [why, refused.why, plain.why]
    assert [kept[row.call_id].accepted for row in (hit, refused, plain)] == [True, False, True]


def test_where_in_a_notebook_a_call_was_made_is_kept(ledger):
    """Cell and notebook come back for hits and for calls that were open, with a reason or not; and can be chosen by."""
    here, there = {"cell_id": "cell-1", "notebook": "0123456789abcdef"}, {"cell_id": None, "notebook": "fedcba9876543210"}
    rows = [
        call(started_at=NOW + n, **where, why=why)
        for n, (where, why) in enumerate((w, y) for w in (here, there, {}) for y in (Why(), Why(route="cheap", reason="x")))
    ]
    for row in rows[::2]:
        ledger.add_call(row)
    for row in rows[1::2]:
        finish(ledger, row)
    assert ledger.calls(Filter(), limit=9) == rows[::-1]
    assert ledger.calls(Filter(notebook="0123456789abcdef"), limit=9) == rows[1::-1]
    assert ledger.calls(Filter(notebook="0" * 16), limit=9) == []


def test_attempts_of_several_calls_are_read_together(ledger):
    """The attempts of the newest calls that fit, as each call's own would be, and of no other."""
    rows = [call(started_at=NOW + n, feature="f" if n < 2 else "g") for n in range(3)]
    for row in rows:
        finish(ledger, row, attempt(row, number=1), attempt(row, number=2))
    wanted = [one for row in rows[:2] for one in ledger.attempts(row.call_id)]
    assert ledger.attempts_of(Filter(feature="f"), limit=9) == wanted
    assert ledger.attempts_of(Filter(), limit=1) == list(ledger.attempts(rows[2].call_id))
    assert ledger.attempts_of(Filter(since=NOW + 9), limit=9) == []


def test_the_newest_answers_are_those_that_routes_go_by(ledger):
    """Attempts that answered, oldest first, with latency and length; failures and helpers are left out, and so are old ones."""
    for n in range(6):
        row = call(started_at=NOW + n)
        helper = attempt(row, purpose="classify", started_at=NOW + n, latency_s=99)
        failed = attempt(row, status=AttemptStatus.FAILED, started_at=NOW + n, latency_s=99)
        answered = attempt(row, rung=f"r{n % 2}", started_at=NOW + n + 0.5, latency_s=float(n), usage=Usage(1, n))
        finish(ledger, row, helper, failed, answered)
    found = ledger.newest_answers(100)
    assert [(one.rung, one.latency_s, one.output_tokens) for one in found] == [(f"r{n % 2}", float(n), n) for n in range(6)]
    assert [one.latency_s for one in ledger.newest_answers(6)] == [4.0, 5.0]
