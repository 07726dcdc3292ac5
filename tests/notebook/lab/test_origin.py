"""Which notebook a session is, which cell runs, and for which calls the cache mode of a notebook holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Client
from nbllm.asking import chat_request
from nbllm.core.messages import CallRecord, CallRow, Origin
from nbllm.flow_context import CALLER, CELLS, ORIGIN, CallerContext, cache_mode_here, origin_now
from nbllm.following import Following
from nbllm.notebook.lab.commands import Commands
from nbllm.notebook.lab.origin import Notebooks, tag_of
from nbllm.notebook.lab.picture import Picture
from nbllm.notebook.lab.reading import SessionRead
from nbllm.notebook.lab.rows import call_line
from nbllm.notebook.lab.watching import Watching
from nbllm.semantic_book import SemanticBook
from nbllm.settings import Settings
from nbllm.testing import FakeProvider
from tests.notebook.lab.fakes import Shell
from tests.notebook.lab.making import row


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    token = ORIGIN.set(None)
    yield
    ORIGIN.reset(token)
    CELLS.running = Origin()
    CELLS.modes.clear()
    CELLS.former.clear()
    CELLS.renamed.clear()


def executing(shell: Shell, request: str, cell: str, session: str = "a") -> None:
    shell.kernel.parent = {"metadata": {"cellId": cell}, "header": {"session": session, "msg_id": request}}


def cells(shell: Shell) -> tuple[Notebooks, Any, Any]:
    notebooks = Notebooks(shell)
    notebooks.named("a", "a.ipynb"), notebooks.named("b", "b.ipynb")
    notebooks.watch_cells()
    (entered,), (left,) = shell.events.callbacks["pre_run_cell"], shell.events.callbacks["post_run_cell"]
    return notebooks, entered, left


def test_the_cell_that_loads_the_extension_is_known() -> None:
    """Calls below %load_ext in the same cell have its id; once it is over, nothing has."""
    shell = Shell()
    executing(shell, "r1", "cell-1")
    _, _, left = cells(shell)
    assert origin_now() == Origin("cell-1", tag_of("a.ipynb"))
    left(SimpleNamespace(info=object()))
    assert origin_now() == CELLS.running == Origin()


def test_loaded_as_the_kernel_starts_no_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no request yet, so what runs then is no notebook's, also where the kernel was started for one."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/a.ipynb")
    cells(Shell())
    assert origin_now() == Origin()


def test_what_runs_after_a_cell_is_not_the_cell() -> None:
    """The callback of another notebook's widget gets neither the tag nor the cache mode of the cell that ran before it."""
    shell = Shell()
    _, entered, left = cells(shell)
    CELLS.modes[tag_of("b.ipynb")] = "off"
    executing(shell, "r1", "cell-b", "b")
    info = object()
    entered(info)
    assert cache_mode_here() == "off"
    left(SimpleNamespace(info=info))
    assert (origin_now(), cache_mode_here()) == (Origin(), None)


def test_a_cell_goes_on_after_the_cells_that_it_runs() -> None:
    """%run of a notebook runs cells within a cell: calls after it still belong to the outer one."""
    shell = Shell()
    _, entered, left = cells(shell)
    executing(shell, "r1", "cell-1")
    outer, inner = object(), object()
    entered(outer)
    for _ in range(2):
        entered(inner)
        left(SimpleNamespace(info=inner))
        assert origin_now() == Origin("cell-1", tag_of("a.ipynb"))
    left(SimpleNamespace(info=outer))
    assert origin_now() == Origin()


@given(st.text(max_size=80))
def test_only_ids_of_cells_are_kept(cell: str) -> None:
    """What is none by the notebook format, an address with a path for one, does not come into the ledger."""
    shell = Shell()
    executing(shell, "r1", cell)
    kept = Notebooks(shell)._executed()[1].cell_id
    valid = 0 < len(cell) <= 64 and cell.isascii() and all(one.isalnum() or one in "-_" for one in cell)
    assert kept == (cell if valid else None)


def test_two_notebooks_of_one_name_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that the kernel was started for is that of the notebook that first says its end, and of no other above it."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/proj/a/Untitled.ipynb")
    notebooks = Notebooks(Shell())
    whole = tag_of("/home/ann/proj/a/Untitled.ipynb")
    assert notebooks._tag("nobody") == whole
    assert notebooks.named("other", "b.ipynb") == tag_of("b.ipynb")
    assert notebooks.named("s1", "proj/a/Untitled.ipynb") == whole
    assert notebooks.named("s2", "Untitled.ipynb") == tag_of("Untitled.ipynb") != whole
    assert notebooks.named("reloaded", "proj/a/Untitled.ipynb") == whole
    assert notebooks.named("console", None) is None
    assert notebooks._tag("console") is None


def test_a_renamed_notebook_keeps_its_mode_and_its_answers() -> None:
    """The session that says another path is the same notebook: also twice, back again, and seen from a second window."""
    notebooks = Notebooks(Shell())
    first = notebooks.named("s", "a.ipynb")
    assert notebooks.named("window", "a.ipynb") == first
    CELLS.modes[first] = "off"
    second = notebooks.named("s", "b.ipynb")
    assert second is not None
    assert CELLS.modes == {second: "off"}
    assert list(CELLS.former[second]) == [first]
    assert notebooks.named("window", "b.ipynb") == second
    assert CELLS.modes == {second: "off"}
    third = notebooks.named("s", "c.ipynb")
    assert third is not None
    assert CELLS.modes == {third: "off"}
    assert set(CELLS.former[third]) == {first, second}
    notebooks.named("s", "a.ipynb")
    assert CELLS.modes == {first: "off"}


def test_a_renamed_notebook_keeps_its_calls() -> None:
    """Those shown, those read, those under way and those that its running cell makes; another of the old name has its own."""
    shell = Shell()
    notebooks, entered, _ = cells(shell)
    executing(shell, "r1", "cell-1")
    entered(object())
    before = Origin("cell-1", tag_of("a.ipynb"))
    assert origin_now() == before
    watching = Watching(lambda: None)
    picture = Picture(watching)

    def shown() -> list[str | None]:
        state = picture.state(0.0, 0.0)
        return [one["notebook"] for one in (*state["calls"], *state["running"])]

    def call(number: int, origin: Origin, **changes: Any) -> CallRow:
        return row(number, started_at=time.time(), cell_id=origin.cell_id, notebook=origin.notebook, **changes)

    picture.take([CallRecord(call=call(1, before), attempts=())])
    watching.found_open([call(2, before)])
    assert shown() == [before.notebook] * 2
    new = notebooks.named("a", "renamed.ipynb")
    assert origin_now() == Origin("cell-1", new)
    other = notebooks.named("another session", "a.ipynb")
    assert other == before.notebook
    executing(shell, "r2", "cell-9", "another session")
    entered(object())
    assert origin_now() == Origin("cell-9", other)
    assert shown() == [new] * 2
    picture.take([CallRecord(call=call(3, origin_now()), attempts=())])
    assert shown() == [other, new, new]
    read = SessionRead(calls=[call_line(call(4, Origin("c", new)), ())])
    newest = notebooks.named("a", "renamed again.ipynb")
    picture.take_session(read)
    assert set(shown()) == {newest, other}
    notebooks.named("a", "renamed.ipynb")
    assert set(shown()) == {new, other}


def test_the_answers_of_a_renamed_notebook_are_dropped_with_its_own(tmp_path: Path) -> None:
    """Those of its calls under the old name too; not those of a notebook that was made under that name since."""
    notebooks = Notebooks(Shell())

    def asked(client: Client, prompt: str, tag: str | None) -> None:
        token = ORIGIN.set(Origin("c", tag))
        client.ask(prompt)
        ORIGIN.reset(token)

    with Client(home=tmp_path / "home", providers={"simulated": FakeProvider()}, model="sim/small") as client:
        commands = Commands(lambda: client, Watching(lambda: None), "0")
        old = notebooks.named("s", "a.ipynb")
        asked(client, "before", old)
        new = notebooks.named("s", "b.ipynb")
        asked(client, "after", new)
        asked(client, "another's", notebooks.named("t", "a.ipynb"))
        for do in ("count_cache", "clear_cache"):
            result = commands.done({"v": 1, "type": "command", "id": "k", "do": do}, new)  # type: ignore[arg-type]
            assert result["data"] == {"entries": 2}, result
        assert [client.ask(one).source for one in ("before", "after", "another's")] == ["model", "model", "cache"]


def test_stored_answers_are_counted_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as would be dropped, each once, many of them too; what takes too long is given up, and said so."""
    token = ORIGIN.set(Origin("c", "a" * 16))
    try:
        with Client(home=tmp_path / "home", providers={"simulated": FakeProvider()}, model="sim/small") as client:
            commands = Commands(lambda: client, Watching(lambda: None), "0")

            def done(do: str, tag: str | None = "a" * 16) -> Any:
                return commands.done({"v": 1, "type": "command", "id": "k", "do": do}, tag)  # type: ignore[arg-type]

            assert done("count_cache")["data"] == {"entries": 0}
            for number in (*range(7), 3):
                client.ask(f"question {number}")
            client.ask("not kept", cache="off")
            monkeypatch.setattr("nbllm.labelling._AT_ONCE", 3)
            assert [done("count_cache")["data"] for _ in range(2)] == [{"entries": 7}] * 2
            assert client.ask("question 3").source == "cache"
            assert done("count_cache", None)["ok"] is False
            with pytest.MonkeyPatch.context() as slow:
                slow.setattr(SemanticBook, "stored", lambda *_, **__: None)
                assert "could not be counted within 1.5 s." in done("count_cache")["message"]
            monkeypatch.setattr("nbllm.notebook.lab.commands.COUNT_S", 0.0)
            late = done("count_cache")
            assert (late["ok"], "could not be counted within" in late["message"]) == (False, True)
            assert done("clear_cache")["data"] == {"entries": 7}
    finally:
        ORIGIN.reset(token)


def test_where_no_notebook_is_known_no_mode_holds() -> None:
    """Neither for calls without an origin, nor for those that a service makes for its callers beside a running cell."""
    CELLS.modes["a"] = CELLS.modes[None] = "off"
    assert cache_mode_here() is None
    CELLS.running = Origin("c", "a")
    assert cache_mode_here() == "off"
    token = CALLER.set(CallerContext("ann"))
    try:
        assert (cache_mode_here(), origin_now()) == (None, Origin())
    finally:
        CALLER.reset(token)


def test_replays_and_faces_of_a_service_know_no_notebook(tmp_path: Path) -> None:
    """A notebook's mode is its own calls': a client that replays, and requests that a service builds, go by the settings."""
    CELLS.modes["a"] = "off"
    CELLS.running = Origin("c", "a")
    options = chat_request("x", {}, Settings(), watched=False, on_interrupt="restart").options
    assert options.cache == "use"
    for kind, sources in ((Client, ["model", "model"]), (Following, ["model", "cache"])):
        with kind(home=tmp_path / kind.__name__, providers={"simulated": FakeProvider()}, model="sim/small") as client:
            assert [client.ask("x").source for _ in range(2)] == sources
