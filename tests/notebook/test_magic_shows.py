"""What %%llm and %llm show of an answer: in a terminal, in a kernel, on one line, or nothing at all."""

from __future__ import annotations

import html
import sys
from decimal import Decimal
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.core.messages import Delta
from nbllm.core.meter_line import meter_line
from nbllm.live import Restarted, Started
from nbllm.notebook.progress import Progress
from tests.notebook.fakes import FakeClient, Publisher, attempt, delta, reply


def test_a_line_shows_its_answer_as_it_comes_and_once(shell: Any, client: FakeClient, capsys: Any) -> None:
    """One line prints like a cell, alone and in an assignment; the Reply does not show itself a second time, and is kept."""
    client.play(delta("Hel"), delta("lo."))
    shell.run_cell("%llm -m sim/small What's up?", store_history=True)
    shown = capsys.readouterr().out
    assert client.asked[0][0] == "What's up?"
    assert shown.startswith("Hello.\n\nsim/small (simulated) ·")
    assert shown.count("Hello.") == 1
    assert shell.user_ns["_"].text == "Hello."
    shell.run_cell("x = %llm -m sim/small And now?\n'of its own'")
    assert shell.user_ns["x"].text == "Hello."
    shown = capsys.readouterr().out
    assert shown.count("Hello.") == 1
    assert "'of its own'" in shown
    shell.run_cell("x")
    assert "Hello." in capsys.readouterr().out, "shown anew when asked for"
    with pytest.raises(UsageError, match="needs a prompt"):
        shell.run_line_magic("llm", "-m sim/small")


def test_a_quiet_line_shows_nothing(shell: Any, client: FakeClient, capsys: Any) -> None:
    """--quiet on one line: nothing while it runs, nothing at the end; the Reply is in `_`; no hook stays behind."""
    before = sys.displayhook
    shell.run_cell("%llm --quiet Hi", store_history=True)
    assert capsys.readouterr().out == ""
    assert shell.user_ns["_"].text == "Hello."
    assert shell.run_line_magic("llm", "--quiet Hi").text == "Hello."
    assert sys.displayhook is before


def test_a_terminal_prints_the_pieces_then_the_meter(shell: Any, client: FakeClient, capsys: Any) -> None:
    """Each piece once, no repainting, escape sequences taken out."""
    client.play(Started(attempt()), delta("Hel"), None, delta("lo\x1b]0;x\x07 you."), end=reply("Hello]0;x you."))
    shell.run_cell_magic("llm", "", "Hi")
    out = capsys.readouterr().out
    assert out.startswith("Hello]0;x you.\n\nsim/small (simulated) ·")
    assert "\x1b" not in out


def test_a_terminal_says_when_the_answer_begins_anew(shell: Any, client: FakeClient, capsys: Any) -> None:
    """What was printed cannot be taken back, so that it is void must be said."""
    client.play(delta("Wrong"), Restarted("repair"), delta("Right"), end=reply("Right"))
    shell.run_cell_magic("llm", "", "Hi")
    assert "Wrong\n[the answer begins anew: repair]\nRight\n\n" in capsys.readouterr().out


def test_quiet_shows_nothing(shell: Any, client: FakeClient, capsys: Any, publisher: Publisher) -> None:
    """Neither answer nor meter, in a kernel or a terminal."""
    shell.run_cell_magic("llm", "--quiet -o x", "Hi")
    assert shell.user_ns["x"].text == "Hello."
    assert (capsys.readouterr().out, publisher.shown) == ("", [])


def test_a_kernel_gets_one_display_that_is_updated_and_ends_whole(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """One output; its last state holds the whole answer, the meter and the notes, as Markdown and as text."""
    client.play(Started(attempt()), *[delta(f"word{n} ") for n in range(50)], end=reply("The whole.", notes=("80% is used",)))
    shell.run_cell_magic("llm", "-o x", "Hi")
    assert [update for _, update in publisher.shown] == [False] + [True] * (len(publisher.shown) - 1)
    assert len(publisher.shown) <= 3
    last = publisher.shown[-1][0]
    assert last["text/plain"].startswith("The whole.\n\nsim/small (simulated)")
    assert last["text/plain"].endswith("Note: 80% is used")
    assert 'role="status"' in last["text/markdown"]
    assert "Note: 80% is used" in html.unescape(last["text/markdown"])


def test_the_running_line_says_that_it_is_a_part_and_what_it_waits_for() -> None:
    """A kernel that is restarted in mid-stream leaves this line for ever: it must not pass for a whole answer."""
    progress = Progress("sim/large?fault=429&fault_times=1&retry_after_s=1", 0.0)
    assert "nothing sent yet" not in progress.line(0.5)
    assert "nothing sent yet: an identical call" in progress.line(3.0)
    progress.delta(Delta(text="Half"), 0.38)
    assert "a part so far" in progress.line(0.5)
    assert progress.line(0.5).startswith("sim/large?fault=429&… (simulated)")


def test_a_reply_is_one_line_in_a_list() -> None:
    """A plain Python shows who answered and the first words, no dump of fields."""
    shown = repr([reply("word " * 500), reply("Short.")])
    assert "sim/small (simulated)" in shown
    assert len(shown) < 500


def test_a_joined_call_saved_no_time_that_was_waited() -> None:
    """It waited 9.2 s of 10.1 s: 0.9 s were saved, and it says that it joined."""
    line = meter_line(reply(source="cache", coalesced=True, latency_s=9.2, saved_s=10.1, saved_usd=Decimal("0.00035")))
    assert "joined an identical call, saved $0.00035 and 0.90 s" in line
