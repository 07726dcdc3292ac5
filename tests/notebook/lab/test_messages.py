"""The protocol of the JupyterLab extension, against the fixtures that jest reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.notebook.lab.messages import BadMessage, to_front, to_kernel

FIXTURES = Path(__file__).parents[2] / "data" / "lab_protocol"
CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIXTURES.glob("*.json"))}
READ = {"to_front": to_front, "to_kernel": to_kernel}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["hello", "command", "delta"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["v", "type", "do", "id", "state", "seq"]) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_fixture_is_taken_or_refused_as_it_says(case: dict[str, Any]) -> None:
    """Both sides of the protocol agree on every message: what is valid, and what is left of it."""
    read = READ[case["direction"]]
    if case["valid"]:
        assert read(case["message"]) == case.get("parsed", case["message"])
    else:
        with pytest.raises(BadMessage):
            read(case["message"])


def test_the_fixtures_cover_both_directions_and_both_outcomes() -> None:
    """There are at least thirty fixtures, with valid and invalid messages each way, and each says why it is there."""
    kinds = [(case["direction"], case["valid"]) for case in CASES.values()]
    assert len(kinds) >= 30
    assert {kind: kinds.count(kind) >= 8 for kind in set(kinds)} == {
        (direction, valid): True for direction in READ for valid in (True, False)
    }
    assert all(case["says"] for case in CASES.values())


@given(ANYTHING)
def test_anything_else_is_refused_in_one_short_line(data: Any) -> None:
    """Whatever arrives, reading it either gives a message or raises BadMessage with one short line, and nothing else."""
    for read in READ.values():
        refusal = ""
        try:
            read(data)
        except BadMessage as exc:
            refusal = str(exc)
        assert len(refusal) < 200
        assert "\n" not in refusal


def test_what_was_refused_is_not_repeated() -> None:
    """The text of a refusal names the place and not what the sender wrote there, which could be anything."""
    secret = "sk-" + "a" * 40
    with pytest.raises(BadMessage) as caught:
        to_kernel({"v": 1, "type": "command", "id": "k1", "do": "set_budget", "usd": secret, secret: 1})
    assert secret not in str(caught.value)
    assert "usd" in str(caught.value)
