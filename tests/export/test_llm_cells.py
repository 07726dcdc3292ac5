"""%%llm cells as functions: they ask what the cell asked, once in a call of a flow."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbllm
from nbllm import Client, flow
from nbllm.export import history_cells, render_flows, slice_notebook
from nbllm.export.literals import literal
from nbllm.flow_context import once_in_a_flow
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client
from tests.export.making import HEAD, module_of, reasons, refused, run


@pytest.fixture
def fake() -> FakeProvider:
    """Answers anything."""
    return FakeProvider(default="an answer")


@pytest.fixture(autouse=True)
def client(tmp_path: Path, fake: FakeProvider) -> Iterator[Client]:
    """The current client, on the fake provider."""
    with fake_client(tmp_path, fake, cache="off") as made, nbllm.use(made):
        yield made


def asked(fake: FakeProvider) -> list[list[dict[str, str]]]:
    """The messages of every request."""
    return [[dict(m) for m in wire.content.messages] for wire in fake.requests]


def test_a_cell_is_a_function_that_is_called_where_it_was_read(fake: FakeProvider) -> None:
    """Plain code, f-strings, comprehensions and inner functions call it; parameters, attributes and texts of its name stay."""
    text = module_of(
        HEAD,
        "tone = 'dry'\ndocs = ['a', 'b']",
        '%%llm -m sim/small -o facts -s "Be {{ tone }}." -t 0.5 --set stop=["x"] --feature notes --budget 1.5\n'
        "List {{ docs | join(', ') }} {{ style | default('plainly') }}:\n  {\"a\": 1}\n",
        "def helper(facts, o=None):\n    return facts, 'facts', {'facts': 1}, o",
        "@flow\ndef f(t):\n    inner = lambda: facts.text\n"
        "    x = [facts.text for _ in 'ab'] + [f'{facts.text} and {{facts}} {t}']\n"
        '    return helper(facts=t), inner(), x, f"""{\n    facts.text}"""',
    )
    assert "helper(facts=t), inner(), x" in text
    assert text.count("facts()") == 5  # its def, and four reads
    one = "an answer"
    assert run(text)["f"]("T") == (("T", "facts", {"facts": 1}, None), one, [one, one, f"{one} and {{facts}} T"], one)
    assert asked(fake) == [[{"role": "system", "content": "Be dry."},
                            {"role": "user", "content": 'List a, b plainly:\n  {"a": 1}'}]]  # fmt: skip
    assert (fake.requests[0].content.temperature, fake.requests[0].content.stop) == (0.5, ("x",))


def test_answers_in_prompts_schemas_and_raw(fake: FakeProvider) -> None:
    """A template that takes another cell's answer calls it; a schema is passed by name; --raw sends braces as they are."""
    fake.enqueue("one", '{"n": 2}')
    text = module_of(
        HEAD, "from dataclasses import dataclass\n@dataclass\nclass N:\n    n: int",
        "%%llm -o first --raw\n{{ no template }}", "%%llm -o second --schema N\nCount {{ first.text }}",
        "@flow\ndef f(): return second.data.n",
    )  # fmt: skip
    assert run(text)["f"]() == 2
    assert [m[-1]["content"].split("\n")[0] for m in asked(fake)] == ["{{ no template }}", "Count one"]


def test_names_of_ours_give_way() -> None:
    """A user's own nbllm, once_in_a_flow or ask keeps its name, and the function still asks."""
    text = module_of("from nbllm import flow\nnbllm = 'mine'\nask = once_in_a_flow = 1", "%%llm -o x\nhi",
                     "@flow\ndef f(): return x.text, nbllm, ask, once_in_a_flow")  # fmt: skip
    assert run(text)["f"]() == ("an answer", "mine", 1, 1)


def test_once_in_a_call_of_a_flow(fake: FakeProvider) -> None:
    """Calls of one run share one answer, flows that it calls and threads included; another run asks again, and so does no flow."""
    calls: list[int] = []

    @once_in_a_flow
    def answer() -> int:
        calls.append(1)
        return len(calls)

    @flow
    def inner() -> int:
        return answer()

    @flow
    def outer() -> tuple[int, ...]:
        import contextvars

        found: list[int] = []
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(lambda: found.append(answer()),)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (*found, inner(), answer())

    assert (outer(), outer(), answer(), answer()) == ((1,) * 10, (2,) * 10, 3, 4)


def test_a_failed_run_is_not_kept() -> None:
    """What raised is asked again by who asks again."""
    tries: list[int] = []

    @once_in_a_flow
    def answer() -> int:
        tries.append(1)
        return 1 // (len(tries) - 1)

    @flow
    def two() -> int:
        with pytest.raises(ZeroDivisionError):
            answer()
        return answer()

    assert two() == 1


def test_who_waits_for_itself_is_told() -> None:
    """A function that needs its own answer, alone, through another or over two threads, raises instead of waiting for ever."""
    import contextvars

    begun = [threading.Event(), threading.Event()]
    done: list[object] = []

    @once_in_a_flow
    def alone() -> int:
        return alone()

    @once_in_a_flow
    def one() -> int:
        begun[0].set()
        begun[1].wait(30)
        return other()

    @once_in_a_flow
    def other() -> int:
        begun[1].set()
        begun[0].wait(30)
        return one()

    @flow
    def asks() -> None:
        with pytest.raises(nbllm.errors.InvalidRequest, match=r"alone\(\) needs its own answer"):
            alone()

        def ask(function: Callable[[], int]) -> None:
            try:
                function()
            except nbllm.errors.InvalidRequest as error:
                done.append(error)

        threads = [threading.Thread(target=contextvars.copy_context().run, args=(ask, f), daemon=True) for f in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)

    asks()
    assert done


REFINED = ("topic = 'tea'", "%%llm -o draft\nDraft {{ topic }}", "%%llm -o verdict\nJudge {{ draft.text }}",
           "%%llm -o draft\nRefine {{ draft.text }} by {{ verdict.text }}")  # fmt: skip


def test_a_cell_that_refines_its_own_answer_calls_the_one_before(fake: FakeProvider) -> None:
    """Two cells of one output name are two functions: who stands between them has the first answer, who comes after the second."""
    fake.enqueue("one", "good", "two")
    text = module_of(HEAD, *REFINED, "@flow\ndef f(): return draft.text")
    assert run(text)["f"]() == "two"
    assert [m[-1]["content"] for m in asked(fake)] == ["Draft tea", "Judge one", "Refine one by good"]


def test_a_cell_that_ran_three_times_asks_three_times(fake: FakeProvider) -> None:
    """A session's history says how often a cell refined its answer: each run is a function; a run that failed is none."""
    fake.enqueue("one", "two", "three")
    ran = [HEAD, "%%llm -o draft\nDraft", *["%%llm -o draft\nRefine {{ draft.text }}"] * 3, "@flow\ndef f(): return draft.text"]
    text = render_flows(slice_notebook(history_cells(["", *ran], failed=[3]), flow="f"))
    assert run(text)["f"]() == "three"
    assert [m[-1]["content"] for m in asked(fake)] == ["Draft", "Refine one", "Refine two"]


def test_an_answer_that_needs_itself_is_refused() -> None:
    """Nothing to begin with, code that sets the name before, a circle of two, a schema of the answer's name: cell, line, reason."""
    end = "@flow\ndef f(): return draft.text"
    assert reasons(HEAD, "%%llm -o draft\nMore of\n{{ draft.text }}", end) == [("llm cell", 2, 3)]
    assert reasons(HEAD, "draft = 'x'", "%%llm -o draft\nMore of {{ draft }}", end) == [("llm cell", 3, 2)]
    circle = reasons(HEAD, "%%llm -o a\n{{ draft.text }}", "%%llm -o draft\n{{ a.text }}", end)
    assert {("llm cell", 2, 2), ("llm cell", 3, 2)} <= set(circle)
    assert reasons(HEAD, "class draft: n: int", "%%llm -o draft --schema draft\nhi", end) == [("llm cell", 3, 1)]
    told = str(refused(HEAD, "%%llm -o draft\nMore of {{ draft.text }}", end))
    assert "no %%llm cell before it asked for that" in told
    assert "another name (-o)" in told


def test_an_answer_that_is_replaced_may_not_be_bought_at_start() -> None:
    """Code that reads the first of two answers when the module is loaded is refused as it is for a single one."""
    found = reasons(HEAD, "%%llm -o g\nhello", "x = g.text", "%%llm -o g\nRefine {{ g.text }}", "@flow\ndef f(): return x, g.text")
    assert found == [("buys at start", 3, 1)]


@given(st.text(), st.booleans())
def test_any_text_reads_back(text: str, bare: bool) -> None:
    """A prompt of any characters is written so that Python reads the same text, whatever it looks like."""
    shown = literal(text, 2, bare=bare)
    assert eval(f"(\n{shown}\n)") == text  # noqa: S307 - that is what is tested
    shown.encode("utf-8")


def test_what_is_ours_passes_ruff(tmp_path: Path) -> None:
    """The header, the imports and the functions of %%llm cells have no finding of the linter, import order included."""
    text = module_of(
        "import os, numpy as np, json\nfrom nbllm import Reply, flow, ask\n"
        "from collections import OrderedDict, abc as A, defaultdict",
        "d = [os, np, json, Reply, ask, OrderedDict, A, defaultdict]", "%%llm -o x --set seed=3\n{{ d }}\nmore",
        "@flow\ndef f():\n    return x.text",
    )  # fmt: skip
    (tmp_path / "flows.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "E,F,W,I,UP,B,Q", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + text
