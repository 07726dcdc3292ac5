"""%%llm that breaks off, by an interrupt or a failure: what had come is kept and marked as a part."""

from __future__ import annotations

from _thread import interrupt_main
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from nbllm import Client
from nbllm.core.messages import Partial
from nbllm.errors import (
    CallFailed,
    ConnectionFailed,
    StreamInterrupted,
)
from nbllm.live import Restarted, Started
from tests.notebook.fakes import FakeClient, Publisher, attempt, delta, failed, reply


def test_an_interrupt_stops_the_call_keeps_the_text_and_goes_on(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """Cancelled upstream, what came is in the variable and marked, the display says so, the cell ends."""
    live = client.play(delta("Half an ans"), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        shell.run_cell_magic("llm", "-o x", "Hi")
    assert live.cancelled
    assert (shell.user_ns["x"].text, shell.user_ns["x"].interrupted) == ("Half an ans", True)
    assert "Stopped by you after 11 characters; what came is in x." in publisher.shown[-1][0]["text/plain"]
    assert len(caught.value._render_traceback_()) <= 3  # type: ignore[attr-defined]


def test_an_interrupt_before_anything_came_leaves_the_variable_as_it_was(shell: Any, client: FakeClient) -> None:
    """As with an assignment whose right side was interrupted."""
    shell.user_ns["x"] = "before"
    client.play(None, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        shell.run_cell_magic("llm", "-o x", "Hi")
    assert shell.user_ns["x"] == "before"


def test_an_interrupt_while_the_last_state_is_shown_loses_nothing(
    shell: Any, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole reply was there: it is kept before it is shown."""
    client.play(delta("Hello."), end=reply("Hello."))
    monkeypatch.setattr("nbllm.notebook.screens.Terminal.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        shell.run_cell_magic("llm", "-o x", "Hi")
    assert (shell.user_ns["x"].text, shell.user_ns["x"].interrupted) == ("Hello.", False)


def test_a_failed_call_keeps_what_came(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """A partial answer is never thrown away and never passed off as whole."""
    client.play(delta("Half"), end=StreamInterrupted("The stream ended early.", rung="sim/small"))
    with pytest.raises(StreamInterrupted):
        shell.run_cell_magic("llm", "-o x", "Hi")
    assert shell.user_ns["x"].interrupted
    assert "Failed (StreamInterrupted) after 4 characters; what came is in x." in publisher.shown[-1][0]["text/plain"]


def _cut() -> StreamInterrupted:
    return StreamInterrupted("The stream ended early.", rung="sim/small")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, _cut, lambda: failed(_cut())], ids=["stopped", "cut", "every rung failed"])
@pytest.mark.parametrize(("cost_usd", "written"), [(Decimal("0.0007"), "0.0007"), (None, None)])
def test_what_was_broken_off_has_its_badge(
    shell: Any,
    client: FakeClient,
    publisher: Publisher,
    ending: Callable[[], BaseException],
    cost_usd: Decimal | None,
    written: str | None,
) -> None:
    """A stopped or failed call cost money, too: its last display says model, call and cost, null where that is unknown."""
    live = client.play(Started(attempt()), delta("Half"), ending())
    live.known = {"cost_usd": cost_usd}
    with pytest.raises((KeyboardInterrupt, CallFailed)):
        shell.run_cell_magic("llm", "-o x", "Hi")
    badge = {"v": 1, "model": "sim/small", "cost_usd": written, "source": "model", "call_id": "call0001"}
    assert publisher.metadata[-1] == {"nbllm": badge}
    assert not any(publisher.metadata[:-1])


@pytest.mark.parametrize("known", [{"call_id": ""}, {"rung": "", "model": "", "cost_usd": Decimal(0)}])
def test_what_asked_no_model_has_no_badge(shell: Any, client: FakeClient, publisher: Publisher, known: dict[str, Any]) -> None:
    """Broken off while it waited, or on the way of a stored answer: no model, no cost, so nothing is claimed."""
    live = client.play(None, KeyboardInterrupt())
    live.known = known
    with pytest.raises(KeyboardInterrupt):
        shell.run_cell_magic("llm", "-o x", "Hi")
    assert publisher.metadata
    assert not any(publisher.metadata)


def test_an_interrupt_of_a_call_is_one_line_and_the_users_frames(shell: Any, tmp_path: Path, capsys: Any) -> None:
    """Ctrl-C in `for piece in stream(...)`: which line it was and that the call was stopped, none of our frames; %tb has them."""
    with Client(home=tmp_path / "home") as own:
        shell.user_ns["own"] = own
        shell.user_ns["interrupt_soon"] = Timer(0.15, interrupt_main).start  # once the call is on its way, however long that took
        shell.run_cell(
            "def mine():\n"
            "    pieces = own.stream('Hi', model='sim/small?fault=stall')\n"
            "    interrupt_soon()\n"
            "    for piece in pieces:\n"
            "        print(piece)"
        )
        shell.run_cell("mine()")
    shown = capsys.readouterr().out
    assert "in mine" in shown
    assert "KeyboardInterrupt: the call was stopped; the kernel is ready." in shown
    assert len(shown.splitlines()) <= 6
    assert "live.py" not in shown
    shell.run_cell("%tb")
    assert "live.py" in capsys.readouterr().out


def test_an_interrupt_of_the_users_own_code_looks_as_ever(shell: Any, capsys: Any) -> None:
    """Nothing is hidden or renamed where nbllm was not waiting, not even in a flow."""
    shell.run_cell("import nbllm\n@nbllm.flow\ndef mine():\n    raise KeyboardInterrupt\nmine()")
    shown = capsys.readouterr().out
    assert "Traceback (most recent call last)" in shown
    assert "the call was stopped" not in shown


def _cut_then_refused() -> tuple[Any, ...]:
    error = failed(ConnectionFailed("Connection refused.", rung="lab/x"))
    error.partial = Partial(text="Thirty words had come")
    return (
        Started(attempt(1, "lab/x")), delta("Thirty words "), delta("had come"), Restarted("interrupted"),
        Started(attempt(2, "lab/x")), None, error,
    )  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
def test_the_text_of_an_attempt_that_broke_off_is_kept_when_no_other_answers(
    shell: Any, client: FakeClient, publisher: Publisher, capsys: Any, *, known: bool
) -> None:
    """A server that dies in mid-answer leaves its words on screen and in the variable, marked; the message says so."""
    *steps, error = _cut_then_refused()
    error.partial = error.partial if known else None
    client.play(*steps, end=error)
    shell.run_cell("%%llm -m lab/x -o ans\nHi")
    assert (shell.user_ns["ans"].text, shell.user_ns["ans"].interrupted) == ("Thirty words had come", True)
    last = publisher.shown[-1][0]["text/plain"]
    assert last.startswith("Thirty words had come")
    assert "stopped: this is a part of the answer" in " ".join(last.split())
    assert "broke off in mid-answer after 21 characters; what came is in ans." in " ".join(last.split())
    assert "A part of the answer had come: its 21 characters are kept in ans." in capsys.readouterr().out


def test_an_interrupt_after_a_break_keeps_what_had_come_before_it(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """While the next attempt waits for its first token, the text of the one that broke off is all there is."""
    client.play(*_cut_then_refused()[:-1], KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        shell.run_cell_magic("llm", "-o ans", "Hi")
    assert shell.user_ns["ans"].text == "Thirty words had come"
    assert "Stopped by you." in publisher.shown[-1][0]["text/plain"]
