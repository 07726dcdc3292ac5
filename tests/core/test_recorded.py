"""Whose recorded runs count: a notebook's own; others' never; unknown ones where there is nothing better, and that is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.ports import Recording
from nbllm.core.recorded import of_file, own_recordings, runs_of, tag_of


def call(number: int, run: str, *, session: str | None = None, notebook: str | None = None, flow: str = "f") -> Recording:
    """A call of a run that came to its end with this one call."""
    return Recording(
        call_id=f"c{number}",
        started_at=float(number),
        model="m",
        prompt={"messages": [{"role": "user", "content": run}]},
        answer={},
        flow={"name": flow, "run": run, "arguments": {}, "ended": {"status": "done", "calls": 1}},
        session=session,
        notebook=notebook,
    )


def test_only_its_own_count() -> None:
    """Where a notebook has runs of its own, neither others' nor unknown ones are taken."""
    calls = [call(1, "own", notebook="here"), call(2, "others", notebook="there"), call(3, "unknown")]
    own = own_recordings(calls, ["f"], lambda one: None if one.notebook is None else one.notebook == "here")
    assert ([one.call_id for one in own.recordings], own.certain, own.notes) == (["c1"], True, ())


def test_another_notebooks_are_not_taken() -> None:
    """Where there are others' alone, none is, and it is said how many there are."""
    own = own_recordings([call(1, "a", notebook="there"), call(2, "b", notebook="there")], ["f"], lambda _: False)
    assert own.recordings == ()
    assert own.notes == ("2 recorded runs in this home are of f in another notebook: not used.",)


def test_unknown_ones_are_taken_of_one_session() -> None:
    """Of unknown ones the newest session's with the flow, so that two notebooks' are not mixed; with a word on it."""
    calls = [call(1, "a", session="old"), call(2, "b", session="new"), call(3, "c", session="newest", flow="g")]
    own = own_recordings(calls, ["f"], lambda _: None)
    assert ([one.call_id for one in own.recordings], own.certain) == (["c2"], False)
    assert "(new, last at 1970-01-01 00:00 UTC)" in own.notes[0]
    assert "--notebook" in own_recordings(calls, ["f"], None).notes[0]


def test_a_file_is_known_by_its_path(tmp_path: Path) -> None:
    """Its own tag is its own, another one is not, none is unknown."""
    is_own = of_file(tmp_path / "a.ipynb")
    tags = (tag_of(str(tmp_path / "a.ipynb")), tag_of(str(tmp_path / "b.ipynb")), None)
    assert [is_own(call(1, "a", notebook=tag)) for tag in tags] == [True, False, None]


LACKING = {
    "vectors": ({"texts": ["a"]}, "the vectors of its embeddings are not kept"),
    "logprobs": ({"messages": [], "logprobs": True}, "its log probabilities are not kept"),
}


@pytest.mark.parametrize("what", LACKING)
def test_a_run_without_its_answers_is_not_run_again(what: str) -> None:
    """With other vectors or log probabilities it might go on differently: it says why it is no run to be run again."""
    prompt, said = LACKING[what]
    one = replace(call(1, "a"), prompt=prompt)
    assert runs_of([one], "f")[0].problem.startswith(said)
    assert not runs_of([replace(one, answer={what: "here"})], "f")[0].problem


names = st.sampled_from("fgh")


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(names, st.sampled_from("123456")), min_size=1, max_size=4, unique=True), st.booleans()),
        max_size=12,
    )
)
def test_each_call_is_of_every_flow_around_it(made: list[tuple[list[tuple[str, str]], bool]]) -> None:
    """Whatever flows call each other: each run has all calls of which it is in the chain, in their order, and no other."""
    calls, chains = [], []
    for number, (chain, is_chat) in enumerate(made):
        told = [{"name": name, "run": name + run} for name, run in chain]
        prompt = {"messages": []} if is_chat else {"texts": []}
        flow = {**told[0], "outer": told[1:]}
        calls.append(Recording(call_id=str(number), started_at=float(number), model="m", prompt=prompt, answer={}, flow=flow))
        chains.append({name + run for name, run in chain})
    for run in runs_of(reversed(calls), "fg"):
        of_it = [one for one, chain in zip(calls, chains, strict=True) if run.run in chain]
        assert [one.call_id for one in run.calls] == [one.call_id for one in of_it]
        assert run.calls
        assert run.flow in "fg"
        assert run.problem == "it did not come to its end"
