"""The file of a plan."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from nbllm.core.semantic.plan import SemanticPlan
from nbllm.errors import ConfigurationError

PLAN = SemanticPlan(
    plan_id="abc", made_on="2026-11-21", threshold=0.91, error_upper=0.04, max_error=0.05, confidence=0.95, origin="audit",
    embedder="lexical/1", guards="1 all", scopes=("s1", "s2"), index_rows=100, calibration={"n": 500, "look": 1},
)  # fmt: skip


def test_a_plan_comes_back_as_it_was() -> None:
    """What is written is read again, and the same plan is the same text, one value a line."""
    text = PLAN.to_json()
    assert SemanticPlan.from_json(text) == PLAN
    assert text == PLAN.to_json()
    assert '\n  "threshold": 0.91,\n' in text


@pytest.mark.parametrize("cut", [0, 1, 40, 200, -3])
def test_a_file_cut_short_is_no_plan(cut: int) -> None:
    """Half a file serves nothing, and says so."""
    with pytest.raises(ConfigurationError, match=r"plan\.json.*serve"):
        SemanticPlan.from_json(PLAN.to_json()[:cut], where="plan.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "x"), ("version", 2), ("threshold", "0.9"), ("threshold", 7), ("threshold", None), ("error_upper", 0.06),
        ("max_error", 0), ("scopes", "s1"), ("scopes", [1]), ("origin", "marked"), ("index_rows", 1.5), ("embedder", 3),
        ("calibration", []), ("threshold", True), ("error_upper", float("nan")),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(field: str, value: object) -> None:
    """A plan that somebody edited into nonsense serves nothing; a bound above what was asked for is nonsense too."""
    values = json.loads(PLAN.to_json()) | {field: value}
    with pytest.raises(ConfigurationError, match="serve"):
        SemanticPlan.from_json(json.dumps(values))


def test_a_missing_field_is_named() -> None:
    """Who edits a plan is told what is missing."""
    values = json.loads(PLAN.to_json())
    del values["embedder"]
    with pytest.raises(ConfigurationError, match="lacks embedder"):
        SemanticPlan.from_json(json.dumps(values))


def test_a_plan_goes_stale() -> None:
    """Another embedder, other guards, an index four times as large: the labels speak for something else."""
    now = {"embedder": "lexical/1", "guards": "1 all", "index_rows": 400}
    assert PLAN.stale(**now) is None  # type: ignore[arg-type]
    for change, word in (({"embedder": "x"}, "embedder"), ({"guards": "2 all"}, "guards"), ({"index_rows": 401}, "grown")):
        assert word in str(PLAN.stale(**(now | change)))  # type: ignore[arg-type]


def test_a_plan_covers_what_it_was_made_for() -> None:
    """Only the scopes that labels came from; imported pairs have none and cover all, which is why they need accept_foreign."""
    assert PLAN.covers("s1")
    assert not PLAN.covers("s3")
    assert replace(PLAN, origin="imported", scopes=()).covers("s3")
    assert not replace(PLAN, scopes=()).covers("s1")
