"""Marking answers of a cascade that met a similar question, and what the panel says such a match saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm import Client
from nbllm.notebook.why_view import why_view
from nbllm.panels.semantic import read
from nbllm.testing import FakeProvider
from tests.steady import STEADY


def test_marking_an_answer_behind_a_rejected_hit_marks_that_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade rejected a similar question's answer: what is marked wrong is the other model's, and the pair is not blocked."""
    monkeypatch.chdir(tmp_path)
    rule = {"strategy": "cascade", "models": ["sim/small", "sim/large"], "accept": "valid", "check": lambda text: "large" in text}
    with Client(
        home=tmp_path / "home",
        model="sim/small",
        routes={"r": rule},
        providers={"simulated": FakeProvider(default=lambda wire: f"from {wire.rung.id}")},
    ) as asking:
        asking.semantic.import_pairs(
            [(f"How do I heat room {'x' * n}", f"How do I heat room {'x' * n}?", True) for n in range(200)]
        )
        asking.semantic.apply(asking.semantic.calibrate(), accept_foreign=True)
        asking.configure(**STEADY)
        asking.ask("How do I paint the kitchen?")
        reply = asking.ask("How do I paint the kitchen ?", model="r")
        assert (reply.source, reply.text, reply.rejected) == ("model", "from sim/large", 1)
        shown = " ".join(str(why_view(asking, reply, None)).split())
        assert "the cascade did not accept it" in shown
        assert "bound in force" not in shown
        assert read(asking).saved_usd.tolist() == [0.0], "a rejected hit saves nothing"
        marked = asking.semantic.mark(reply)
        assert (marked.evicted, marked.blocked) == (1, False)
        assert asking.ask("How do I paint the kitchen?").source == "cache"
        assert asking.ask("How do I paint the kitchen ?").source == "semantic"
        assert asking.ask("How do I paint the kitchen ?", model="r").source == "model", "bought anew"


def test_a_match_saves_what_its_own_model_costs(tmp_path: Path) -> None:
    """In shadow a cascade asks both models: what the cheap one's match would have saved is the cheap one's cost."""
    rule = {"strategy": "cascade", "models": ["sim/small", "sim/large"], "accept": "valid", "check": lambda text: "large" in text}
    provider = FakeProvider(default=lambda wire: f"from {wire.rung.id}")
    with Client(
        home=tmp_path, routes={"r": rule}, providers={"simulated": provider}, **{"semantic_cache.mode": "shadow"}
    ) as asking:
        asking.ask("How do I paint the kitchen?", model="r")
        small, large = asking.ask("How do I paint the kitchen ?", model="r").attempts
        saved = dict(zip((match.rung for match in asking.semantic.matches()), read(asking).saved_usd.tolist(), strict=True))
        assert saved == {"sim/small": pytest.approx(float(small.cost_usd)), "sim/large": pytest.approx(float(large.cost_usd))}
