"""A model that labels what shadow mode met: `client.semantic.judge`."""

from __future__ import annotations

from pathlib import Path

from nbllm import Client
from nbllm.core.ports import Wire
from nbllm.pipeline.judging import messages
from nbllm.testing import FakeProvider

ROOMS = ("kitchen", "garden", "office", "cellar")
OTHER = ("my", "our", "your")


def judge_of(wire: Wire) -> str:
    """Say yes, save about the cellar (no) and the office (nothing that counts)."""
    asked = str(wire.content.messages[-1]["content"])
    return "Well, perhaps" if "office" in asked else "NO." if "cellar" in asked else "YES"


def test_a_judge_labels_first_what_a_person_has_labelled(tmp_path: Path) -> None:
    """Asked in the semantic cache's own words; agreement is measured on hand labels; what is neither yes nor no is no label."""
    settings = {"semantic_cache.mode": "shadow", "semantic_cache.embed_timeout_s": 30.0}
    answers = FakeProvider(default=lambda wire: judge_of(wire) if wire.rung.model == "large" else "an answer")
    with Client(home=tmp_path / "home", model="sim/small", providers={"simulated": answers}, **settings) as asking:  # type: ignore[arg-type]
        for room in ROOMS:
            for whose in ("the", *OTHER):
                asking.ask(f"How do I paint {whose} {room}?")
        book = asking.semantic
        by_hand = [match for match in book.to_label(100) if "kitchen" in match.query and "kitchen" in match.question]
        for match in by_hand:
            book.label(match, correct=True)
        assert by_hand
        before = answers.calls
        first = book.judge("sim/large", limit=len(by_hand))
        assert (first.labels, first.unclear) == (len(by_hand), 0)
        sent = [wire.content for wire in answers.requests[before:]]
        assert {str(content.messages) for content in sent} == {str(messages(match.query, match.question)) for match in by_hand}
        assert {(content.temperature, content.max_tokens) for content in sent} == {(0, 16)}
        rest = book.judge("sim/large", limit=1000)
        said = {label.query: label.correct for label in book.labels(origin="judge")}
        assert rest.unclear > 0
        assert not any("office" in query for query in said)
        assert {correct for query, correct in said.items() if "cellar" in query} == {False}
        agreement = book.calibrate(max_error=0.2).plan.agreement
        assert agreement is not None
        assert (agreement.n, agreement.agree) == (len(by_hand), 1.0)
