"""Worlds with a semantic cache: a plan in force, questions that are near or far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from nbllm.core.semantic import Question, question_of
from nbllm.core.semantic.plan import SemanticPlan
from tests.pipeline.world import World

ASKED = "How can I reset my password?"
NEAR = "how do I reset the password?"
NEARER = "How can I reset my password please?"
FAR = "Where is my parcel?"


class Likening(World):
    """A world whose semantic cache is on, in shadow, or off; `audit` and `chance` decide what is audited."""

    def __init__(self, folder: Path, mode: str = "on", *, threshold: float = 0.8, **more: Any) -> None:
        settings = {
            "semantic_cache.mode": mode,
            "semantic_cache.plan": str(folder / "plan.json"),
            "semantic_cache.audit_share": 0.0,
            **more.pop("settings", {}),
        }
        self.folder = folder
        super().__init__(settings=settings, **more)
        if mode == "on":
            self.plan(threshold=threshold)

    def question(self, text: str, *models: str, embedder: str = "lexical/1", **options: Any) -> Question:
        """What the stage makes of a text."""
        request = self.request(text, **options)
        found = question_of(request.content, request.options, self.rung((models or ("one/m",))[0]), embedder=embedder)
        assert isinstance(found, Question)
        return found

    def guards(self) -> str:
        """The name of the guards in use."""
        name: str = self.road.semantic.matching.guards_name(self.now.semantic_cache)
        return name

    def plan(self, *scopes: str, **changes: Any) -> SemanticPlan:
        """Write a plan and return it."""
        plan = SemanticPlan(
            plan_id="p1",
            made_on="2026-11-21",
            threshold=0.8,
            error_upper=0.04,
            max_error=0.05,
            confidence=0.95,
            origin="audit",
            embedder="lexical/1",
            guards=self.guards(),
            scopes=scopes or (self.question(ASKED).scope,),
            index_rows=100,
            calibration={},
        )
        plan = replace(plan, **changes)
        (self.folder / "plan.json").write_text(plan.to_json())
        self.road.semantic.plans.changed()
        return plan
