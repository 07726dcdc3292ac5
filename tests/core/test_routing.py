"""Routes as functions: what a request says, what numbers say, and how helpers' words are read."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbllm.core.asking_helpers import classify_messages, criterion, label_in, shortened, verdict_in
from nbllm.core.cascade import by_logprob, mean_logprob
from nbllm.core.language import LANGUAGES, language_of
from nbllm.core.messages import Chat, Embed, Options
from nbllm.core.pricing import Price
from nbllm.core.records import Seen
from nbllm.core.routing import fixed
from nbllm.core.routing_candidates import asked_by, candidates, expanded
from nbllm.core.routing_facts import Facts, facts_of
from nbllm.core.routing_numbers import GUESSED_TOKENS, KEPT, Numbers, cheapest, fastest, spilled
from nbllm.core.routing_rules import by_task, canary, share_of, weighted
from nbllm.errors import InvalidRequest
from nbllm.settings.strategies import ByTask, Canary, Cascade, Cheapest, Rule, Weighted
from tests.pipeline.making import rung

SMALL, LARGE = ("sim/small",), ("sim/large",)


def facts(text: str = "hello", **options: Any) -> Facts:
    return facts_of(Chat(messages=({"role": "user", "content": text},)), Options(**options))


# ---------------------------------------------------------------------------------------------------- facts and rules


def test_facts_are_of_the_last_thing_that_the_user_said() -> None:
    """The text is that of the last user message, parts included; characters are those of all messages."""
    messages = (
        {"role": "system", "content": "four"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url", "image_url": {}}]},
        {"role": "tool", "content": "tool"},
    )
    found = facts_of(Chat(messages=messages), Options())
    assert found.text == "second"
    assert found.chars == len("fourfirstsecondtool")
    assert facts_of(Embed(texts=("a", "bc")), Options()).chars == 3


RULES: list[tuple[Rule, dict[str, Any], dict[str, Any]]] = [
    (Rule(use=SMALL, feature="sum*"), {"feature": "summaries"}, {"feature": "other"}),
    (Rule(use=SMALL, user="ann"), {"user": "ann"}, {}),
    (Rule(use=SMALL, tag="x*"), {"tags": ("a", "xy")}, {"tags": ("a",)}),
    (Rule(use=SMALL, longer_than=5), {"text": "longer"}, {"text": "short"}),
    (Rule(use=SMALL, shorter_than=6), {"text": "short"}, {"text": "longer"}),
    (Rule(use=SMALL, contains=("SQL", "table")), {"text": "an sql query"}, {"text": "a query"}),
    (Rule(use=SMALL, matches=r"\bsql\b"), {"text": "an sql query"}, {"text": "sqlite"}),
    (Rule(use=SMALL, language="de"), {"text": "Was ist das für ein Haus und wie alt ist es?"}, {"text": "What is that house?"}),
    (Rule(use=SMALL, feature="f", longer_than=3), {"feature": "f", "text": "long"}, {"feature": "f", "text": "x"}),
    (Rule(use=SMALL), {}, {"text": "\0never"}),
]


@pytest.mark.parametrize(("rule", "yes", "no"), RULES, ids=str)
def test_a_rule_holds_when_all_of_it_does(rule: Rule, yes: dict[str, Any], no: dict[str, Any]) -> None:
    """The first rule that holds chooses, with `otherwise` behind it and the reason said; else `otherwise` chooses."""
    spec = ByTask(rules=(Rule(use=("never/m",), feature="never"), rule), otherwise=LARGE)
    names, reason = by_task(spec, facts(**yes))
    assert names == (*SMALL, *LARGE)
    assert reason.startswith("rule 2 (")
    if no != {"text": "\0never"}:
        assert by_task(spec, facts(**no)) == (LARGE, "no rule holds")


SAID = {
    "en": "What is the capital of France, and how old is it?",
    "de": "Bitte fasse den folgenden Text zusammen und erkläre, was er bedeutet.",
    "fr": "Quelle est la capitale de la France et pourquoi ?",
    "es": "¿Cuál es la capital de Francia y por qué es tan grande?",
    "it": "Qual è la capitale della Francia e perché non è una città piccola?",
    "pt": "Você sabe qual é a capital do Brasil e por que não é o Rio?",
    "nl": "Wat is de hoofdstad van Nederland en waarom is het niet Den Haag?",
    "ru": "Какая столица Франции?",
    "ja": "フランスの首都はどこですか。",
    "zh": "法国的首都是哪里？",
    "ko": "프랑스의 수도는 어디입니까?",
    "ar": "ما هي عاصمة فرنسا؟",
}


@pytest.mark.parametrize(("code", "text"), SAID.items())
def test_languages_are_told_apart(code: str, text: str) -> None:
    """A sentence is enough for the commonest languages."""
    assert language_of(text) == code


@given(st.text(max_size=300))
def test_any_text_has_a_known_language_or_none(text: str) -> None:
    """Whatever a text is, the answer is one of the codes or None; nothing is raised."""
    assert language_of(text) in (None, *LANGUAGES)


@pytest.mark.parametrize("text", ["", "42", "OK", "xyzzy plugh", "import numpy as np", "print(x)"])
def test_what_is_no_running_text_has_no_language(text: str) -> None:
    """Numbers, single words and code are not guessed at."""
    assert language_of(text) is None


# ---------------------------------------------------------------------------------------------------- spreading


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_share_is_stable(name: str, who: str) -> None:
    """A route and a user always have the same place, in [0, 1)."""
    assert 0 <= share_of(name, who) < 1
    assert share_of(name, who) == share_of(name, who)


def test_weights_are_kept_over_many_users() -> None:
    """2,000 users spread by weight within 3 standard errors; each user always meets the same model, whatever is asked."""
    spec = Weighted(weights={"a/m": 3, "b/m": 1, "c/m": 0})
    chosen = [weighted(spec, "r", facts(f"q{n}", user=f"u{n}"))[0] for n in range(2000)]
    counts = Counter(names[0] for names in chosen)
    assert counts["c/m"] == 0
    assert abs(counts["a/m"] / 2000 - 0.75) < 3 * (0.75 * 0.25 / 2000) ** 0.5
    assert {weighted(spec, "r", facts(f"q{n}", user="ann"))[0] for n in range(20)} == {weighted(spec, "r", facts(user="ann"))[0]}
    assert set(chosen) == {("a/m", "b/m"), ("b/m", "a/m")}


def test_without_a_user_requests_are_spread() -> None:
    """The same request meets the same model, different ones are spread; by="request" ignores the user."""
    spec = Weighted(weights={"a/m": 1, "b/m": 1})
    found = {weighted(spec, "r", facts(f"q{n}"))[0][0] for n in range(30)}
    assert found == {"a/m", "b/m"}
    by_request = replace_by(spec)
    assert weighted(by_request, "r", facts("q", user="u1")) == weighted(by_request, "r", facts("q", user="u2"))


def replace_by(spec: Weighted) -> Weighted:
    from dataclasses import replace as copy_with

    return copy_with(spec, by="request")


@given(st.floats(0, 1), st.text(max_size=10))
def test_a_canary_grows_and_never_drops_who_was_in_it(share: float, user: str) -> None:
    """Who is in a canary's share is in every larger one; 0 is nobody and 1 everybody."""
    inside = [
        canary(Canary(stable=SMALL, canary=LARGE, share=s), "r", facts(user=user))[0][0] == "sim/large" for s in (0, share, 1)
    ]
    assert inside[0] is False
    assert inside[2] is True
    smaller = canary(Canary(stable=SMALL, canary=LARGE, share=share / 2), "r", facts(user=user))[0][0] == "sim/large"
    assert not smaller or inside[1]


def test_stable_is_no_canary() -> None:
    """Who is not in the canary meets the stable models alone; who is has them behind it."""
    assert canary(Canary(stable=SMALL, canary=LARGE, share=0), "r", facts())[0] == SMALL
    assert canary(Canary(stable=SMALL, canary=LARGE, share=1), "r", facts())[0] == (*LARGE, *SMALL)


# ---------------------------------------------------------------------------------------------------- numbers

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


# ---------------------------------------------------------------------------------------------------- log probabilities


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


# ---------------------------------------------------------------------------------------------------- helpers' words

LABELS = ("urgent", "not urgent", "other")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("urgent", "urgent"),
        (' "Urgent". ', "urgent"),
        ("**other**", "other"),
        ("The label is: not urgent", "not urgent"),
        ("It is urgent, I think.", "urgent"),
        ("urgent or other", None),
        ("no idea", None),
        ("", None),
        ("others", None),
        ("insurgent", None),
    ],
)
def test_a_label_is_read_out_of_an_answer(answer: str, label: str | None) -> None:
    """One label, however it is dressed; none or several are no answer."""
    assert label_in(answer, LABELS) == label


@given(st.text(max_size=60))
def test_whatever_a_classifier_says_only_a_label_comes_of_it(answer: str) -> None:
    """No words of a model reach anything but a choice among the labels."""
    assert label_in(answer, LABELS) in (None, *LABELS)
    assert verdict_in(answer) in (None, True, False)


@pytest.mark.parametrize(
    ("answer", "said"), [("YES", True), (" no.", False), ("**Yes**, because", True), ("Nothing", None), ("", None)]
)
def test_a_verdict_is_its_first_word(answer: str, said: bool | None) -> None:
    """Yes and no as a word of their own; anything else is no verdict."""
    assert verdict_in(answer) is said


def test_a_long_request_is_shown_in_part() -> None:
    """What a helper is shown has a bound, and its beginning and its end are in it; verdicts belong to who was asked what."""
    text = "begin " + "x" * 10_000 + " end"
    short = shortened(text, 1000)
    assert len(short) < 1100
    assert short.startswith("begin")
    assert short.endswith("end")
    assert "begin" in str(classify_messages(text, LABELS, "Say.", 500))
    assert len({criterion("a", ""), criterion("b", ""), criterion("a", "x")}) == 3


# ---------------------------------------------------------------------------------------------------- what may stand in

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
