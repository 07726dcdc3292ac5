"""From the ledger's rows to the panel's: names that can do no harm, money to the picodollar, sums as the ledger makes them."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.books import BudgetLine
from nbllm.core.messages import AttemptStatus, CallRecord
from nbllm.core.why import Why
from nbllm.notebook.lab.listener import Listener
from nbllm.notebook.lab.messages import to_front
from nbllm.notebook.lab.picture import Picture
from nbllm.notebook.lab.reading import Day, SessionRead, TodayRead, read_session
from nbllm.notebook.lab.rows import Sums, Tries, budget_row, call_line
from nbllm.notebook.lab.state import empty
from nbllm.notebook.lab.values import MOST_NAME_CHARS, count, money, name, seconds
from nbllm.notebook.lab.watching import Watching
from nbllm.storage.open import open_storage
from tests.notebook.lab.making import attempt, record, row

HOSTILE = st.text(st.characters(codec=None), max_size=500) | st.sampled_from(
    ["<script>alert(1)</script>", "\ud800\x00\x1b[2J", "a\u202egpj", "sk-" + "a1B2" * 10, "x" * 5000, "\U0001f600" * 300]
)


def sent(calls: list[Any], **members: Any) -> Any:
    """Return the state that a page has after a snapshot with these calls; the message was checked against the protocol."""
    heard: list[Any] = []
    listener = Listener(heard.append, 0.0)
    listener.greeted = True
    facts = {"nbllm": "0", "session": "s", "started_at": 1.0, "pid": 1}
    listener.tick({**empty(), "calls": calls, **members}, 0.0, facts, complete=True)  # type: ignore[typeddict-item]
    said: Any = to_front(heard[0])
    return said["state"]


@given(HOSTILE)
def test_a_name_is_one_short_line_without_steering_characters(text: str) -> None:
    """Whatever a provider or a user calls a thing: no control characters, no turned text, no lone surrogates, 200 characters."""
    shown = name(text)
    assert len(shown) <= MOST_NAME_CHARS
    assert shown.isprintable() or all(char.isspace() or char.isprintable() or ord(char) > 0x7F for char in shown)
    assert not {"\n", "\r", "\x1b", "\x00", "\u202e", "\ud800"} & set(shown)
    shown.encode()


def test_a_name_holds_no_key() -> None:
    """What looks like a key is masked, also where a provider echoes it as a name."""
    key = "sk-" + "a1B2c3D4" * 5
    assert key not in name(f"model {key}")


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_money_is_a_plain_number_or_unknown(usd: Decimal) -> None:
    """To the picodollar, without an exponent; what is no amount is unknown."""
    text = money(usd)
    if text is not None:
        assert sent([], today={"cost_usd": text, "calls": 0})
        assert abs(Decimal(text) - min(usd, Decimal(10) ** 15 - 1)) <= Decimal("1e-12")
    else:
        assert not usd.is_finite() or usd < 0


@given(st.floats() | st.none(), st.integers() | st.none())
def test_numbers_fit_into_messages(value: float | None, number: int | None) -> None:
    """Durations are finite and not negative, counts fit into what JavaScript holds."""
    duration, counted = seconds(value), count(number)
    assert duration is None or (math.isfinite(duration) and duration >= 0)
    assert counted is None or 0 <= counted < 2**53


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("model", "rung", "feature", "error", "cell_id", "notebook"), HOSTILE | st.none()),
            "source": st.sampled_from(["model", "cache", "semantic", "stale", "static", None]),
            "status": st.sampled_from(list(AttemptStatus)),
            "started_at": st.floats(allow_nan=False),
            **dict.fromkeys(("latency_s", "ttft_s"), st.floats() | st.none()),
            **dict.fromkeys(("input_tokens", "output_tokens"), st.integers() | st.none()),
            "saved_usd": st.decimals() | st.none(),
            "why": st.builds(Why, reason=HOSTILE, route=HOSTILE | st.none()),
        },
    )
)
def test_any_row_makes_a_valid_line(changes: dict[str, Any]) -> None:
    """No row that a ledger can hold breaks a message, and with it everything else that is shown."""
    line = call_line(row(1, **changes), [attempt(row(1))])
    assert sent([line])["calls"] == [line]


def test_a_cost_that_is_unknown_in_part_is_unknown() -> None:
    """Except where nothing was sent; a hit costs nothing."""
    of = row(1)
    assert call_line(of, [attempt(of), attempt(of, cost_usd=None)])["cost_usd"] is None
    assert call_line(of, [attempt(of), attempt(of, cost_usd=None, sent=False)])["cost_usd"] == "0.25"
    assert call_line(of, [])["cost_usd"] == "0"


def test_budgets_are_called_what_they_are() -> None:
    """Session and day without their names, others with; at the soft limit, and at the hard one."""

    def line(scope: str, spent: str, hard: str | None = "5") -> BudgetLine:
        usd = None if hard is None else Decimal(hard)
        return BudgetLine(scope, Decimal(spent), Decimal(0), usd, None if usd is None else usd * Decimal("0.8"))

    rows = [line("session:ab:12", "1"), line("day:2026-11-21", "4"), line("feature:x", "5"), line("user:<b>", "9", None)]
    assert [(one["scope"], one["level"]) for one in map(budget_row, rows)] == [
        ("session", "ok"), ("day", "soft"), ("feature:x", "hard"), ("user:<b>", "ok"),
    ]  # fmt: skip


def test_a_budget_that_lets_nothing_through_is_at_its_limit() -> None:
    """Also with what is reserved, and when it refused the last call; not any more once its limit is another."""
    scope, five = "session:ab", Decimal(5)
    low = BudgetLine(scope, Decimal(1), Decimal(0), five, Decimal(4))
    assert budget_row(BudgetLine(scope, Decimal(1), Decimal(4), five, Decimal(4)))["level"] == "hard"
    assert budget_row(BudgetLine(scope, Decimal(1), Decimal(3), five, Decimal(4)))["level"] == "ok"
    assert budget_row(low, (scope, five))["level"] == "hard"
    assert budget_row(low, (scope, Decimal(3)))["level"] == "ok"
    assert budget_row(low, ("day:2026-11-21", five))["level"] == "ok"
    assert budget_row(BudgetLine(scope, Decimal(1), Decimal(4), None, None), (scope, five))["level"] == "ok"


def test_what_a_person_stopped_is_no_failure_of_the_endpoint() -> None:
    """The error rate counts what was sent and failed."""
    tries, of = Tries(), row(1)
    states = (AttemptStatus.DONE, AttemptStatus.FAILED, AttemptStatus.CANCELLED, AttemptStatus.OPEN)
    tries.add([attempt(of, status=status) for status in states])
    tries.add([attempt(of, status=AttemptStatus.FAILED, sent=False)])
    assert (tries.sent, tries.error_rate("lab"), tries.error_rate("other")) == ({"lab": 3}, 0.3333, None)


CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["model", "cache", "semantic", "stale", "static", None]),
            "status": st.sampled_from([AttemptStatus.DONE, AttemptStatus.FAILED, AttemptStatus.CANCELLED]),
            "rung": st.sampled_from(["sim/large", "lab/m"]),
            "saved_usd": st.none() | st.just(Decimal("0.5")),
        }
    ),
    max_size=8,
)
ATTEMPTS = st.fixed_dictionaries(
    {"cost_usd": st.sampled_from([None, Decimal("0.125"), Decimal(2)]), "sent": st.sampled_from([True, False, None])}
)


@settings(max_examples=15)  # each makes a ledger
@given(CALLS, st.data())
def test_what_is_added_up_is_what_the_ledger_has(calls: list[dict[str, Any]], data: st.DataObject) -> None:
    """Adding calls as they end gives the sums that the ledger would give for the same calls."""
    import tempfile

    records = []
    for number, changes in enumerate(calls):
        of = row(number, model=changes["rung"], **changes)
        tried = data.draw(st.lists(ATTEMPTS, max_size=2))
        records.append(
            CallRecord(call=of, attempts=tuple(attempt(of, attempt_id=f"{number}-{n}", **one) for n, one in enumerate(tried)))
        )
    picture = Picture(Watching(lambda: None))
    picture.take(records)
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(Path(folder) / "home", session="s")
        storage.ledger.add_many([(one.call, one.attempts) for one in records])  # type: ignore[attr-defined]
        client: Any = type("Client", (), {"ledger": storage.ledger, "session": "s"})
        read = read_session(client)
        storage.close()
    again = Picture(Watching(lambda: None))
    again.take_session(read)
    shown, kept = picture.state(0.0, 0.0), again.state(0.0, 0.0)
    # A static answer to a call that also was sent to a simulated model counts differently, in a sum of no consequence.
    for state in (shown, kept):
        state["session"]["simulated_usd"] = "0"
    assert shown["session"] == kept["session"]
    assert shown["calls"] == kept["calls"]
    assert shown["endpoints"] == kept["endpoints"]


def test_what_ends_while_the_ledger_is_read_is_counted_once() -> None:
    """A call that was read already is not added; one that was not, or was under way, is; and lines are as many as calls."""
    picture = Picture(Watching(lambda: None))
    picture.begins_to_read()
    picture.take([record(1), record(2), record(3)])
    read = SessionRead(sums=Sums(calls=1), calls=[call_line(row(1), ())], under_way=[row(2, status=AttemptStatus.OPEN)])
    picture.take_session(read)
    assert picture.exact
    state = picture.state(0.0, 0.0)
    assert (state["session"]["calls"], [line["call_id"][-1] for line in state["calls"]], state["running"]) == (
        3,
        ["3", "2", "1"],
        [],
    )
    picture.take([record(1)])
    assert picture.state(0.0, 0.0)["session"]["calls"] == 3, "it was told of after its row was read"
    picture.take_today(TodayRead(others=Day(Decimal(1), 7), before=Day(Decimal(0), 3), of_session=True))
    picture.take([record(4)])
    assert picture.state(0.0, 0.0)["session"]["calls"] == 4
    assert picture.state(0.0, 0.0)["today"] == {"cost_usd": "1.75", "calls": 8}


def test_where_it_cannot_be_told_the_session_is_read_again() -> None:
    """A long call beside many short ones, rows that changed between two looks, too much at once: not called exact."""
    many = [call_line(row(number), ()) for number in range(1000, 800, -1)]
    for ended, read in (
        ([record(1)], SessionRead(calls=many)),
        ([], SessionRead(whole=False)),
        ([record(number) for number in range(200)], SessionRead()),
    ):
        picture = Picture(Watching(lambda: None))
        picture.begins_to_read()
        picture.take(ended)
        picture.take_session(read)
        assert not picture.exact


def test_a_call_under_way_is_counted_when_it_ends() -> None:
    """What the ledger has of it already, attempts that failed included, is left out until then: nothing is counted twice."""
    of = row(1, status=AttemptStatus.OPEN)
    tries = [attempt(of), attempt(of, cost_usd=None)]
    sums = Sums()
    sums.add(row(2), [attempt(row(2))])
    before = (sums.cost_usd, sums.calls, sums.input_tokens, sums.unknown_cost_calls)
    sums._count(of, tries, 1)
    sums.leave_out(of, tries)
    assert (sums.cost_usd, sums.calls, sums.input_tokens, sums.unknown_cost_calls) == before


@pytest.mark.parametrize("many", [5, 1000])
def test_many_calls_at_once_leave_the_newest_lines(many: int) -> None:
    """All are counted, two hundred are shown."""
    picture = Picture(Watching(lambda: None))
    picture.take([record(number) for number in range(many)])
    state = picture.state(0.0, 0.0)
    assert state["session"]["calls"] == many
    assert [line["call_id"] for line in state["calls"]] == [f"c{n:06}" for n in range(many)][::-1][:200]
    assert len(state["session"]["latency_s"]) == min(many, 60)
