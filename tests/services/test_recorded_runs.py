"""Recorded runs and the proof: which count, what they are held against, and what is said of those that are not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Settings, errors
from nbllm.core.ports import Recording
from nbllm.core.recorded import Own
from nbllm.export import prove, render_flows
from nbllm.export.comparing import fits, fixed_pieces, judged
from nbllm.testing import FakeProvider
from tests.export.exporting import exported, refused, tree
from tests.export.kinds import REPLAYED, SEARCH, recorded
from tests.export.making import HEAD, cells, run, sliced

pytestmark = pytest.mark.usefixtures("real_python")


NESTED = (HEAD, "@flow\ndef inner(q: str) -> str:\n    return ask('inner ' + q).text",
          "@flow\ndef f(q: str) -> str:\n    return inner(q) + ask('outer ' + q).text")  # fmt: skip


def test_a_flow_in_a_flow(tmp_path: Path) -> None:
    """A run of an outer flow is proved with the calls of the flow in it, and travels with them; the inner one has its own."""
    recordings = recorded(tmp_path, NESTED, ("'a'",))
    outer = exported(tmp_path / "outer", *NESTED, flow="f", recordings=recordings, examples=["all"])
    assert (outer.proof.runs, outer.examples, outer.compared) == (1, 1, "1 recorded run asked the same")
    (example,) = json.loads(tree(outer.out)["examples.json"])
    assert [call["prompt"]["messages"][0]["content"] for call in example["calls"]] == ["inner a", "outer a"]
    inner = exported(tmp_path / "inner", *NESTED, flow="inner", recordings=recordings, examples=["all"])
    assert (inner.proof.runs, inner.examples) == (1, 1)


@pytest.mark.parametrize("kind", REPLAYED)
def test_answers_of_every_kind_are_replayed(tmp_path: Path, kind: str) -> None:
    """What a flow goes on with is what was recorded: its run is proved and travels."""
    sources, answers, calls = REPLAYED[kind]
    recordings = recorded(tmp_path, sources, ("'Do you ship to Oslo?'",), answers=answers())
    done = exported(tmp_path / "app", *sources, flow="f", recordings=recordings, examples=["all"])
    assert (done.proof.runs, done.examples) == (1, 1)
    (example,) = json.loads(tree(done.out)["examples.json"])
    assert len(example["calls"]) == calls


def test_vectors_that_are_too_large_are_said(tmp_path: Path) -> None:
    """A run whose vectors are not kept proves nothing and is no reason to refuse."""
    large = FakeProvider(default="Yes.", dimensions=80_000)
    recordings = recorded(tmp_path, SEARCH, ("'x'",), answers=large)
    done = exported(tmp_path / "app", *SEARCH, flow="f", recordings=recordings)
    assert done.proof.runs == 0
    assert "(the vectors of its embeddings are not kept (over 1 MB in one call" in done.compared


TYPED = (
    "from dataclasses import dataclass\nfrom datetime import date, datetime\nfrom decimal import Decimal\nfrom enum import Enum\n"
    "from pathlib import Path\nfrom pydantic import BaseModel\n" + HEAD,
    "class Colour(Enum):\n    RED = 'red'",
    "@dataclass\nclass Item:\n    n: int\n    tags: list[str]",
    "class Order(BaseModel):\n    items: list[Item]\n    on: date",
    """@flow
def f(order: Order, at: datetime, price: Decimal, where: Path, colours: list[Colour], one: Item) -> str:
    return ask(f'{order} {order.items[0].tags} {at.year} {price + 1} {where.name} {colours[0].name} {one.n}').text""",
)
GIVEN = ("Order(items=[Item(1, ['x'])], on=date(2026, 1, 2))", "datetime(2026, 1, 2, 3)", "Decimal('1.10')", "Path('a/b')",
         "[Colour.RED]", "Item(2, [])")  # fmt: skip


def test_typed_arguments(tmp_path: Path) -> None:
    """Models, dataclasses, dates, decimals, paths and enums come back as what they were: proved, and an example the app takes."""
    done = exported(
        tmp_path / "app", *TYPED, flow="f", recordings=recorded(tmp_path, TYPED, GIVEN), examples=["all"]
    )  # the app is made with the example, and refuses one that does not fit
    assert (done.proof.runs, done.examples, done.proof.app) == (1, 1, True)
    (example,) = json.loads(tree(done.out)["examples.json"])
    assert example["arguments"]["order"] == {"items": [{"n": 1, "tags": ["x"]}], "on": "2026-01-02"}


def test_an_argument_that_json_changes_is_said(tmp_path: Path) -> None:
    """Such a run is not run again with something else: it proves nothing and does not travel, and both are said."""
    sources = (HEAD, "@flow\ndef f(x: float) -> str:\n    return ask(f'{x}').text")
    done = exported(tmp_path / "app", *sources, flow="f", recordings=recorded(tmp_path, sources, ("1",)), examples=["all"])
    assert (done.proof.runs, done.examples) == (0, 0)
    assert done.compared.startswith("no prompt was compared, because no recorded run of f can be run again")
    assert any("its argument x is an int" in note for note in done.notes)


VARYING = {
    "clock": "from datetime import datetime\nimport time",
    "chance": "import random",
    "uuid": "import uuid",
}
SAYS = {
    "clock": "f'It is {datetime.now()}, {time.time()}. Answer briefly: {q}'",
    "chance": "random.choice(['red', 'green']) + f' {random.randrange(10**9)} is the number. Answer briefly: ' + q",
    "uuid": "f'Request {uuid.uuid4()}. Answer briefly: {q}'",
}


@pytest.mark.parametrize("kind", VARYING)
def test_a_prompt_that_is_another_each_time(tmp_path: Path, kind: str) -> None:
    """It is exported, with a word on it; what stays of the prompt is compared all the same, and the run is no example."""
    sources = (VARYING[kind] + "\n" + HEAD, f"@flow\ndef f(q: str) -> str:\n    return ask({SAYS[kind]}).text")
    recordings = recorded(tmp_path, sources, ("'a'",))
    done = exported(tmp_path / "app", *sources, flow="f", recordings=recordings, examples=["all"])
    assert len(done.proof.varying) == 1
    assert "each time" in done.compared
    assert done.examples == 0
    assert any("does not travel" in note for note in done.notes)
    changed = [source.replace("Answer briefly", "Answer at length") for source in sources]
    error = refused(tmp_path / "no", *changed, flow="f", recordings=recordings)
    assert "at length" in str(error)
    assert "briefly" in str(error)


@pytest.mark.parametrize("said", ["date.today()", "time.strftime('%A %d %B %Y')", "datetime.now().date()", "(DAY, TIME.year)"])
def test_the_date_of_another_day(tmp_path: Path, said: str) -> None:
    """A run of weeks ago is rendered as of then: the date in its prompt is no reason to refuse, and other words are."""
    head = "import time\nfrom datetime import date, datetime\n" + HEAD + "\nDAY = date.today()\nTIME = datetime.now()"
    sources = (head, f"@flow\ndef f(q: str) -> str:\n    day = {said}\n    return ask(f'Today is {{day}}. ' + q).text")
    (call,) = recorded(tmp_path, sources, ("'a'",))
    then = time.time() - 400 * 86_400
    day = run(head.replace("date.today()", f"date.fromtimestamp({then})").replace("now()", f"fromtimestamp({then})"))
    words = {
        "date.today()": day["DAY"],
        "datetime.now().date()": day["DAY"],
        "(DAY, TIME.year)": (day["DAY"], day["TIME"].year),
    }
    shown = words.get(said) or time.strftime("%A %d %B %Y", time.localtime(then))
    old = Recording(
        call_id=call.call_id, started_at=then, model=call.model, answer=call.answer, flow=call.flow,
        prompt={"messages": [{"role": "user", "content": f"Today is {shown}. a"}]},
    )  # fmt: skip
    proof = prove(sliced(*sources), [old])
    how = "in a process that starts as of then" if "DAY" in said else "when the clock says what it said then"
    assert proof.problems == ()
    assert [one.startswith(f"it asks the same {how}") for one in proof.varying.values()] == [True]
    changed = prove(sliced(sources[0], sources[1].replace("Today is", "Now it is")), [old])
    assert "Now it is" in changed.problems[0]


def test_dates_of_another_clock_are_dates(tmp_path: Path) -> None:
    """Code that checks, parses, computes and annotates with dates runs under the other clock as it does under the true one."""
    sources = (
        "from datetime import date, datetime, timedelta\nfrom pydantic import BaseModel\n" + HEAD,
        "class Stay(BaseModel):\n    at: datetime\n    day: date | None = None",
        """@flow
def f(stay: Stay, at: datetime) -> str:
    now = datetime.now()
    assert isinstance(now, datetime) and isinstance(now, date) and isinstance(date.today(), date)
    assert not isinstance(date.today(), datetime) and datetime.fromisoformat("2020-01-01") == datetime(2020, 1, 1)
    again = Stay.model_validate_json(Stay(at=now, day=now.date()).model_dump_json())
    assert again.at == now and datetime.strptime("2020", "%Y") < now - timedelta(days=1)
    return ask(f"{stay} {at} {now} and some fixed words").text""",
    )
    given = ("Stay(at=datetime(2020, 1, 1))", "datetime(2021, 2, 3)")
    proof = prove(sliced(*sources), recorded(tmp_path, sources, given))
    assert proof.problems == ()
    assert "each time" in next(iter(proof.varying.values()))


TWO = (HEAD, "@flow\ndef f(q: str) -> str:\n    return ask('first ' + q).text + ask('second ' + q).text")


def test_runs_that_broke_off_do_not_count(tmp_path: Path) -> None:
    """The newest run that came to its end counts: a later one that failed or was interrupted is neither proof nor example."""
    failed = (FakeProvider("a", "b", "c", errors.ConnectionFailed("gone")), TWO)
    stops = (
        HEAD,
        TWO[1].replace("    return", "    if q == 'broken':\n        ask('before')\n        raise KeyboardInterrupt\n    return"),
    )
    for number, (answers, sources) in enumerate((failed, (FakeProvider(default="a"), stops))):
        home = tmp_path / f"s{number}"
        recordings = recorded(home, sources, ("'whole'",), ("'broken'",), answers=answers)
        assert len(recordings) == 3
        done = exported(home / "app", *sources, flow="f", recordings=recordings, examples=["all"])
        assert (done.proof.runs, done.examples) == (1, 1)
        assert b"broken" not in tree(done.out)["examples.json"]


def test_only_a_run_that_failed(tmp_path: Path) -> None:
    """Then nothing is compared, which is said with what helps, and the export is written."""
    recordings = recorded(tmp_path, TWO, ("'broken'",), answers=FakeProvider("a", errors.ConnectionFailed("gone")))
    done = exported(tmp_path / "app", *TWO, flow="f", recordings=recordings)
    assert "no prompt was compared" in done.compared
    assert "(it did not come to its end): mend that and run it once more" in done.compared


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    """A proof without a recorded run says that no prompt was compared, and how to get one."""
    done = exported(tmp_path / "app", *TWO, "%llm_config model=sim/small", flow="f")
    assert done.compared == "no prompt was compared, because no run of f is recorded: run it once in the notebook and export again"


def test_old_runs_are_left_out(tmp_path: Path) -> None:
    """`--examples all` takes the runs that fit the code as it is now, each once, and names the others with the reason."""
    before = (TWO[0], TWO[1].replace("second", "old"))
    takes_less = (TWO[0], TWO[1].replace("q: str", "p: str").replace("+ q", "+ p"))
    recordings = [
        *recorded(tmp_path / "1", before, ("'a'",)),
        *recorded(tmp_path / "2", takes_less, ("'a'",)),
        *recorded(tmp_path / "3", TWO, ("'a'",), ("'b'",), ("'a'",)),
    ]
    done = exported(tmp_path / "app", *TWO, flow="f", recordings=recordings, examples=["all"])
    assert [row["arguments"] for row in json.loads(tree(done.out)["examples.json"])] == [{"q": "b"}, {"q": "a"}]
    left = [note for note in done.notes if "does not travel" in note]
    assert len(left) == 2
    assert any("second" in note and "old" in note for note in left)
    assert any("its arguments do not fit the flow any more" in note for note in left)


def test_all_examples_may_be_too_old(tmp_path: Path) -> None:
    """Where none fits, the app is made without examples."""
    recordings = recorded(tmp_path, (TWO[0], TWO[1].replace("second", "old")), ("'a'",))
    done = exported(tmp_path / "app", *TWO, flow="f", recordings=Own(tuple(recordings), certain=False), examples=["all"])
    assert done.examples == 0
    assert "examples.json" not in tree(done.out)
    assert "examples" not in tree(done.out)["app.py"].decode()


def test_a_run_that_may_be_anothers_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """A run of an unknown notebook that asks something else is named, its prompt is not shown, and the export is written."""
    others = (HEAD, "@flow\ndef f(q: str) -> str:\n    return ask('The salary of ' + q).text")
    recordings = recorded(tmp_path, others, ("'Bob'",))
    own = Own(tuple(recordings), certain=False, notes=("Taken.",))
    done = exported(tmp_path / "app", *TWO, flow="f", recordings=own, examples=["all"])
    assert "may be another notebook's" in done.compared
    assert "Taken." in done.notes
    assert "salary" not in f"{done.compared} {done.notes}"
    assert "salary" in str(refused(tmp_path / "no", *TWO, flow="f", recordings=recordings))


def test_cells_are_numbered() -> None:
    """The slice of these notebooks is what is proved: the module's text holds the flow."""
    assert "def f(" in render_flows(sliced(*TWO))
    assert len(cells(*TWO)) == 2


def test_chance_is_not_taken_for_the_clock() -> None:
    """One rendering that is the recorded one by chance does not make the difference one of the clock."""
    lucky = judged(["x"], ["y"], [["x"], ["z"], ["x"], ["y"]])
    assert "each time" in lucky.varies
    assert "clock says" in judged(["x"], ["y"], [["x"], ["x"], ["x"], ["z"]]).varies
    assert judged(["x"], ["y"], [["y"]] * 12).problem == "Recorded: x Now: y"
    assert "how many calls" in judged(["x"], ["y"], [["y", "z"], ["y"]]).varies
    assert judged(["x", "x"], ["y"], [["z"], ["y"]]).problem.startswith("2 recorded, 1 now.")


@given(st.lists(st.text("ab, \n", max_size=12), min_size=2, max_size=6), st.text(max_size=20), st.text(max_size=20))
def test_what_is_fixed_fits_each_rendering(middles: list[str], before: str, after: str) -> None:
    """Whatever differs between renderings, each of them fits what they have in common."""
    texts = [f"{before} {middle} {after}" for middle in middles]
    pieces = fixed_pieces(texts)
    assert all(fits(pieces, text) for text in texts)
    assert len(pieces) == 1 or len(set(texts)) > 1


def test_what_is_fixed_is_held_against_others() -> None:
    """Another text in the place that differs fits; another word in what stays does not."""
    pieces = fixed_pieces([f"It is {n}. Answer in one word: x {n * 7} end" for n in (123, 4567, 89)])
    assert fits(pieces, "It is 5. Answer in one word: x y end")
    assert not fits(pieces, "It is 5. Answer in two words: x y end")
    assert not fits(pieces, "It was 5. Answer in one word: x y end")


UNSTEADY = {
    "the date in a prompt": ("", "return ask(f'{date.today()} {q}').text", ["'a'"]),
    "the date of the start": ("DAY = date.today()", "return ask(f'{DAY} {q}').text", ["'a'"]),
    "the date in a result": ("", "return ask(q).text + str(date.today())", ["'a'"]),
    "a cached answer": ("@cache\ndef said(t): return ask(t).text", "return said('fixed') + ask(q).text", ["'a'", "'b'"]),
    "what was said before": ("said = []", "said.append(q)\n    return ask(' '.join(said)).text", ["'a'", "'b'"]),
}


@pytest.mark.parametrize("kind", UNSTEADY)
def test_a_run_that_another_day_would_not_repeat_does_not_travel(tmp_path: Path, kind: str) -> None:
    """It asks the same today, and is proved; tests and parity of the app would fail tomorrow, or the second time."""
    before, body, runs = UNSTEADY[kind]
    sources = (
        "from datetime import date\nfrom functools import cache\n" + HEAD,
        before,
        f"@flow\ndef f(q: str) -> str:\n    {body}",
    )
    recordings = recorded(tmp_path, sources, *((one,) for one in runs))
    done = exported(tmp_path / "app", *sources, flow="f", recordings=recordings, examples=["all"])
    assert done.examples == 0
    assert sum("does not travel" in note and "another day or a second time" in note for note in done.notes) == len(runs)


SETS = (HEAD, "TAGS = {'alpha', 'beta'}", "@flow\ndef f(q: str) -> str:\n    return ask(f'{TAGS} {q}').text")


def test_the_order_of_a_set(tmp_path: Path) -> None:
    """It is another in each process, however small the set: that is no reason to refuse, and no example."""
    recordings = recorded(tmp_path, SETS, ("'a'",))
    (one,) = recordings
    for order in ("{'alpha', 'beta'} a", "{'beta', 'alpha'} a"):
        told = replace(one, prompt={"messages": [{"role": "user", "content": order}]})
        done = exported(tmp_path / order[2], *SETS, flow="f", recordings=[told], examples=["all"])
        assert done.examples == 0
        assert "order of a set" in done.compared or "a second time" in str(done.notes)


PRICED = "@flow\ndef f(q: str) -> float:\n    return float(ask(q, model='own/m').cost_usd)"


def test_a_result_with_what_it_cost(tmp_path: Path) -> None:
    """An endpoint's prices hold in the clean process, too: the flow returns there what it returns in the app."""
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "input_usd_per_mtok": "2", "output_usd_per_mtok": "4"}
    settings = Settings(home=tmp_path / "home").with_values("test", {"endpoints.own": endpoint})
    one = replace(recorded(tmp_path, (HEAD, PRICED.replace("own/m", "sim/large")), ("'a'",))[0], model="own/m")
    done = exported(tmp_path / "app", HEAD, PRICED, flow="f", recordings=[one], examples=["all"], settings=settings)
    assert (done.proof.runs, done.examples) == (1, 1)
    assert json.loads(tree(done.out)["examples.json"])[0]["result"] > 0
