"""Routes as functions of the request: facts, rules, languages, shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.language import LANGUAGES, language_of
from nbllm.core.messages import Chat, Embed, Options
from nbllm.core.routing_facts import Facts, facts_of
from nbllm.core.routing_rules import by_task, canary, share_of, weighted
from nbllm.settings.strategies import ByTask, Canary, Rule, Weighted

SMALL, LARGE = ("sim/small",), ("sim/large",)


def facts(text: str = "hello", **options: Any) -> Facts:
    return facts_of(Chat(messages=({"role": "user", "content": text},)), Options(**options))


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
