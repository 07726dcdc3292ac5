"""Routes as functions of numbers, and which stored answers may stand in for their choice."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbllm.core.cascade import by_logprob, mean_logprob
from nbllm.core.messages import Chat, Options
from nbllm.core.pricing import Price
from nbllm.core.records import Seen
from nbllm.core.routing import fixed
from nbllm.core.routing_candidates import asked_by, candidates, expanded
from nbllm.core.routing_facts import Facts, facts_of
from nbllm.core.routing_numbers import GUESSED_TOKENS, KEPT, Numbers, cheapest, fastest, spilled
from nbllm.core.routing_rules import weighted
from nbllm.errors import InvalidRequest
from nbllm.settings.strategies import ByTask, Cascade, Cheapest, Rule, Weighted
from tests.pipeline.making import rung


def facts(text: str = "hello", **options: Any) -> Facts:
    return facts_of(Chat(messages=({"role": "user", "content": text},)), Options(**options))


CHEAP, DEAR = (replace(rung(name), price=Price(Decimal(p), Decimal(p))) for name, p in (("cheap", 1), ("dear", 10)))
UNPRICED = replace(rung("free"), price=None)
WELL = {"cheap/m": True, "dear/m": True, "free/m": True}


def test_the_cheapest_goes_by_price_and_by_how_long_answers_are() -> None:
    """Price times the usual length: a model that talks ten times as much is not the cheaper one; unknown prices come last."""
    rungs = [UNPRICED, DEAR, CHEAP]
    ordered, reason = cheapest(rungs, WELL, Numbers(), 100)
    assert [r.id for r in ordered] == ["cheap/m", "dear/m", "free/m"]
    assert "about $0.0006" in reason
    talks = Numbers([*(Seen("cheap/m", 1, 20_000) for _ in range(3)), *(Seen("dear/m", 1, 10) for _ in range(3))])
    assert cheapest(rungs, WELL, talks, 100)[0][0] is DEAR
    ordered, reason = cheapest(rungs, WELL | {"cheap/m": False}, Numbers(), 100)
    assert [r.id for r in ordered] == ["dear/m", "free/m", "cheap/m"]
    assert "cheap/m rests" in reason


def test_the_fastest_goes_by_the_median() -> None:
    """The lowest median of the newest answers wins; too few answers come first, so that there will be some."""
    numbers = Numbers([*(Seen("cheap/m", s, 1) for s in (1, 1, 9)), *(Seen("dear/m", s, 1) for s in (2, 2, 2))])
    ordered, reason = fastest([DEAR, CHEAP], WELL, numbers, 3)
    assert [r.id for r in ordered] == ["cheap/m", "dear/m"]
    assert "median 1 s over 3" in reason
    ordered, reason = fastest([CHEAP, UNPRICED], WELL, numbers, 3)
    assert [r.id for r in ordered] == ["free/m", "cheap/m"]
    assert "not measured yet (0 of 3" in reason
    assert fastest([CHEAP, DEAR], WELL | {"cheap/m": False}, numbers, 3)[0][0] is DEAR


@given(st.lists(st.tuples(st.sampled_from(["cheap/m", "dear/m"]), st.none() | st.floats(0, 100), st.none() | st.integers(0, 999))))
def test_numbers_are_those_of_the_newest(seen: list[tuple[str, float | None, int | None]]) -> None:
    """Latency is a value that was seen or between two, only the newest answers count, and nothing known is a guess that says so."""
    numbers = Numbers([Seen(*one) for one in seen])
    for name in ("cheap/m", "dear/m"):
        values = [latency for one, latency, _ in seen[-len(seen) :] if one == name and latency is not None]
        latency_s, count = numbers.latency_s(name)
        assert count <= KEPT
        assert (latency_s is None) == (not values)
        if latency_s is not None:
            assert min(values) <= latency_s <= max(values)
    if not any(tokens is not None for _, _, tokens in seen):
        assert numbers.output_tokens("cheap/m") == GUESSED_TOKENS


@given(st.dictionaries(st.sampled_from(["cheap/m", "dear/m", "free/m"]), st.floats(0, 100), min_size=3), st.floats(0, 10))
def test_spilling_over_keeps_everybody(waits: dict[str, float], most_s: float) -> None:
    """Who has room comes first, in route order; who has none behind, by waiting time; nobody is lost."""
    rungs = [CHEAP, DEAR, UNPRICED]
    ordered, _ = spilled(rungs, waits, most_s)
    assert sorted(r.id for r in ordered) == sorted(r.id for r in rungs)
    roomy = [r for r in rungs if waits[r.id] <= most_s]
    assert ordered[: len(roomy)] == roomy
    assert [waits[r.id] for r in ordered[len(roomy) :]] == sorted(w for w in waits.values() if w > most_s)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=50), st.floats(-20, 0))
def test_an_answer_is_accepted_by_its_mean(values: list[float], cut_off: float) -> None:
    """Accepted exactly when the mean over the tokens is at least the cut-off; the score is that mean."""
    verdict = by_logprob([{"token": "x", "logprob": v} for v in values], cut_off)
    mean = sum(values) / len(values)
    assert verdict.score == mean
    assert verdict.accepted == (mean >= cut_off)


@pytest.mark.parametrize(
    "logprobs", [(), ({"token": "x"},), ({"logprob": float("nan")},), ({"logprob": True},), ({"logprob": "x"},)]
)
def test_without_numbers_nothing_is_accepted(logprobs: tuple[dict[str, Any], ...]) -> None:
    """No log probabilities, or some that are none, are no reason to accept an answer."""
    assert mean_logprob(logprobs) is None
    verdict = by_logprob(logprobs, -100)
    assert not verdict.accepted
    assert verdict.score is None


CASCADE = Cascade(models=("cheap", "c/m"), accept="logprob", min_logprob=-1)
ROUTES: dict[str, Any] = {
    "cheap": ("a/m", "b/m"),
    "first": CASCADE,
    "by": ByTask(rules=(Rule(use=("first",), feature="f"), Rule(use=("d/m",), feature="g")), otherwise=("e/m",)),
    "low": Cheapest(models=("cheap", "z/m")),
    "w": Weighted(weights={"a/m": 1, "b/m": 1}),
}


def test_stored_answers_are_looked_for_in_route_order() -> None:
    """Lists are expanded, a cascade's earlier models need its acceptance, a rule's choice is kept to, weights choose first."""
    assert [(c.model, c.cascade is not None) for c in candidates("first", ROUTES, facts())] == [
        ("a/m", True),
        ("b/m", True),
        ("c/m", False),
    ]
    assert [c.model for c in candidates("by", ROUTES, facts(feature="f"))] == ["a/m", "b/m", "c/m", "e/m"]
    assert [c.model for c in candidates("by", ROUTES, facts(feature="g"))] == ["d/m", "e/m"]
    assert [c.model for c in candidates("low", ROUTES, facts())] == ["a/m", "b/m", "z/m"]
    for n in range(10):
        first = weighted(ROUTES["w"], "w", facts(user=f"u{n}"))[0]
        assert tuple(c.model for c in candidates("w", ROUTES, facts(user=f"u{n}"))) == first
    assert expanded(("by", "low"), ROUTES) == ("a/m", "b/m", "c/m", "d/m", "e/m", "z/m")


def test_a_cascade_asks_for_what_it_judges_by() -> None:
    """Log probabilities are asked for where they decide, and what the caller asked for himself stays."""
    plain = Chat(messages=({"role": "user", "content": "q"},))
    asked = asked_by(CASCADE, plain)
    assert isinstance(asked, Chat)
    assert asked.logprobs is True
    assert asked_by(CASCADE, replace(plain, logprobs=5)).logprobs == 5  # type: ignore[union-attr]
    assert asked_by(Cascade(models=("a/m", "b/m"), accept="valid"), plain) is plain


def test_a_route_that_chooses_stands_alone() -> None:
    """Among other models it could not choose; alone it is handed on to be asked, with all its models in order."""
    with pytest.raises(InvalidRequest, match="first chooses by itself"):
        fixed(("first", "x/m"), routes=ROUTES, model=None, ladder=(), found=None)
    route = fixed(("first",), routes=ROUTES, model=None, ladder=(), found=None)
    assert route is not None
    assert (route.strategy, route.models, route.why.route) == ("first", ("a/m", "b/m", "c/m"), "first")
    again = fixed((), routes=ROUTES, model="low", ladder=(), found=None)
    assert again is not None
    assert again.strategy == "low"
