"""%%llm and %llm as a person uses them, with a client that plays scripts."""

from __future__ import annotations

import html
import sys
from _thread import interrupt_main
from decimal import Decimal
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm import Client
from nbllm.core.messages import Delta, Partial
from nbllm.core.meter_line import meter_line
from nbllm.core.reply import Reply
from nbllm.errors import (
    AllRungsFailed,
    AuthenticationFailed,
    BudgetExceeded,
    ConfigurationError,
    ConnectionFailed,
    StreamInterrupted,
)
from nbllm.live import Restarted, Started
from nbllm.notebook.progress import Progress
from tests.notebook.fakes import FakeClient, Publisher, attempt, delta, reply


def test_a_cell_asks_with_its_options_and_keeps_the_reply(shell: Any, client: FakeClient) -> None:
    """Everything on the line reaches the client; the variable holds the Reply."""
    shell.user_ns["doc"] = "a text"
    shell.run_cell_magic("llm", "-m sim/large -o answer --feature f --set top_p=0.9 --set mode=fast", "Summarise {{ doc }}.")
    prompt, options = client.asked[0]
    assert prompt == "Summarise a text."
    assert options == {"model": ("sim/large",), "feature": "f", "top_p": 0.9, "extra": {"mode": "fast"}}
    assert isinstance(shell.user_ns["answer"], Reply)


def test_without_out_the_reply_is_in_underscore(shell: Any, client: FakeClient) -> None:
    """As with any expression whose value was not given a name."""
    shell.run_cell("%%llm\nHi")
    assert shell.user_ns["_"].text == "Hello."


def test_with_out_underscore_is_left_alone(shell: Any, client: FakeClient) -> None:
    """As with any assignment."""
    shell.run_cell("1 + 1")
    shell.run_cell("%%llm -o x\nHi")
    assert shell.user_ns["_"] == 2


def test_a_raw_prompt_is_sent_as_it_stands(shell: Any, client: FakeClient) -> None:
    """Braces stay braces, and undefined names are no matter."""
    shell.run_cell_magic("llm", "--raw", "Explain {{ nothing }} and {% raw %}.")
    assert client.asked[0][0] == "Explain {{ nothing }} and {% raw %}."


def test_braces_in_a_prompt_need_no_escaping_and_shell_variables_are_not_expanded(shell: Any, client: FakeClient) -> None:
    """IPython would expand {x} and $x in a line; a prompt keeps them."""
    shell.user_ns["x"] = 7
    shell.run_cell('%%llm -s "be {x} $x"\n{"a": {x}} costs $x')
    prompt, options = client.asked[0]
    assert (prompt, options["system"]) == ('{"a": {x}} costs $x', "be {x} $x")


def test_only_names_that_the_template_uses_are_looked_at(shell: Any, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's other variables never reach the template."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("nbllm.core.templates.render", lambda template, values, **_: (seen.update(values), template)[1])
    shell.user_ns.update(doc="a", secret="b")
    shell.run_cell_magic("llm", "", "{{ doc }}")
    assert seen == {"doc": "a"}


@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("", "  \n", "The prompt is empty"),
        ("--schema Persn", "x", "Did you mean Person?"),
        ("--schema numbers", "x", "not a list"),
        ("--schema Person.nothing", "x", "there is no nothing"),
        ("--check numbers", "x", "a function is needed"),
        ("--check nope", "x", "nope is not defined"),
        ("--set temperature=1 -t 0", "x", "temperature is given twice"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    shell: Any, client: FakeClient, line: str, cell: str, said: str
) -> None:
    """A UsageError names the value; the client is not asked."""
    shell.user_ns.update(Person=type("Person", (), {}), numbers=[1])
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        shell.run_cell_magic("llm", line, cell)
    assert client.asked == []


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


def test_a_line_in_a_function_sees_its_locals(shell: Any, client: FakeClient) -> None:
    """Templates use the names that are in sight where the magic stands."""
    shell.run_cell("def f(word):\n    return get_ipython().run_line_magic('llm', 'Define {{ word }}')\nf('ECDF')")
    assert client.asked[0][0] == "Define ECDF"


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


def _failed(*causes: Exception) -> AllRungsFailed:
    error = AllRungsFailed("No model answered.", causes, hint="Start the server, or set a key.")
    error.spent_usd, error.call_id = None, "call0001"
    return error


def test_a_failure_is_a_few_lines_and_the_cell_fails(shell: Any, client: FakeClient, capsys: Any) -> None:
    """What happened, on which rung, what was spent, what to do; none of our frames."""
    client.play(
        end=_failed(ConnectionFailed("Connection refused.", rung="lab/qwen"), AuthenticationFailed("No key.", rung="openai/x"))
    )
    result = shell.run_cell("%%llm -o x\nHi")
    assert isinstance(result.error_in_exec, AllRungsFailed)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) <= 8, "two of them are the fake's own frame"
    shown = "\n".join(lines)
    for part in (
        "AllRungsFailed",
        "lab/qwen: ConnectionFailed: Connection refused.",
        "openai/x: ",
        "Spent: unknown. %llm_calls call0001",
        "Start the server",
    ):
        assert part in shown
    assert "Traceback" not in shown


def test_the_users_own_frames_stay_and_ours_go(shell: Any, client: FakeClient, capsys: Any) -> None:
    """Which line of theirs asked is what a person needs to know."""
    client.refuses = ConnectionFailed("Connection refused.", rung="lab/qwen")
    shell.user_ns["start"] = client.start
    shell.run_cell("def mine():\n    return start('x')\nmine()")
    shown = capsys.readouterr().out
    assert "in mine" in shown
    assert "return start('x')" in shown
    assert len(shown.splitlines()) < 12


def test_frames_of_a_flow_stay(shell: Any, client: FakeClient, capsys: Any) -> None:
    """A function of the user's that nbllm calls is the user's too: where a flow went wrong is in sight, and ours is not."""
    client.refuses = ConnectionFailed("Connection refused.", rung="lab/qwen")
    shell.user_ns["start"] = client.start
    shell.run_cell("from nbllm import flow\n@flow\ndef mine():\n    return start('x')\nmine()")
    shown = capsys.readouterr().out
    assert "in mine" in shown
    assert "current.py" not in shown


@pytest.mark.parametrize(("state", "said"), [("ended", "lab has ended"), ("wedged", "lab is wedged"), ("ready", "")])
def test_a_server_of_the_session_that_failed_is_named(
    shell: Any, client: FakeClient, capsys: Any, monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    """A call that fails because its server has ended or is wedged says so, and where more is said."""
    known = {name: SimpleNamespace(name=name, state=state) for name in ("lab", "other", "b")}
    monkeypatch.setattr("nbllm.engines.engine._running", known)
    client.refuses = ConnectionFailed("Connection refused.", rung="lab/qwen")
    shell.user_ns["start"] = client.start
    shell.run_cell("start('x')")
    shown = capsys.readouterr().out
    assert ("%serve status says more." in shown) == bool(said)
    assert shown.count("says more") == bool(said)
    assert said in shown


def test_after_a_restart_it_is_said_that_no_server_runs(
    shell: Any, client: FakeClient, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that asks a server of the kernel before: how it is started, not only that there is no such endpoint."""
    monkeypatch.setattr("nbllm.engines.engine._running", {})
    with Client(home=tmp_path / "home") as own:
        shell.user_ns["own"] = own
        shell.run_cell("own.ask('Hi', model='sim-server/large')")
    assert "%serve start sim-server MODEL starts one." in " ".join(capsys.readouterr().out.split())
    client.refuses = ConfigurationError("vllm/tiny: LiteLLM needs the package 'vllm' for this provider. Nothing was sent.")
    shell.user_ns["start"] = client.start
    shell.run_cell("start('x')")
    assert "No server vllm runs in this session: %serve start vllm MODEL" in " ".join(capsys.readouterr().out.split())


def test_code_that_a_library_has_written_is_no_frame_of_the_users(shell: Any, client: FakeClient, capsys: Any) -> None:
    """A dataclass of ours that refuses a value: no line of a file called <string>; the user's own exec stays in sight."""
    shell.run_cell("%serve attach banana")
    assert capsys.readouterr().out.startswith("ConfigurationError: ")
    shell.run_cell("from nbllm import Endpoint\ndef mine():\n    exec('Endpoint(base_url=chr(45))')\nmine()")
    shown = capsys.readouterr().out
    assert "in mine" in shown
    assert shown.count("<string>") == 1


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


def test_budget_errors_say_that_nothing_was_sent(shell: Any, client: FakeClient, capsys: Any) -> None:
    """The message of a budget is about money and what to do."""
    client.refuses = BudgetExceeded(
        scope="session", limit_usd=Decimal(1), spent_usd=Decimal("0.9"), reserved_usd=Decimal(0), needed_usd=Decimal("0.2")
    )
    shell.run_cell("%%llm\nHi")
    shown = capsys.readouterr().out
    assert "Nothing was sent" in shown
    assert "%llm_budget session" in shown


def test_full_tracebacks_can_be_had(shell: Any, client: FakeClient, capsys: Any) -> None:
    """`%config LLMMagics.full_traceback = True` is for those who debug us."""
    shell.run_line_magic("config", "LLMMagics.full_traceback = True")
    client.play(end=_failed(ConnectionFailed("Connection refused.", rung="lab/qwen")))
    shell.run_cell("%%llm\nHi")
    shell.run_line_magic("config", "LLMMagics.full_traceback = False")
    assert "runner.py" in capsys.readouterr().out


def test_a_question_on_a_line_is_asked_and_not_taken_for_help(shell: Any, client: FakeClient) -> None:
    """IPython reads a line that ends in ? as a call for help; a prompt may end so all the same, and %llm? is still the manual."""
    shell.run_cell("y = %llm -m sim/small What's an ECDF?")
    shell.run_cell("%llm Why??")
    assert [prompt for prompt, _ in client.asked] == ["What's an ECDF?", "Why??"]
    assert shell.user_ns["y"].text == "Hello."
    shell.run_cell("%llm?")
    shell.run_cell("%%llm -m sim/small\n%llm is a magic?")
    assert len(client.asked) == 3


def test_a_comment_may_stand_on_the_line(shell: Any, client: FakeClient) -> None:
    """As the examples of the manual have it."""
    shell.run_cell("%%llm --cache refresh   # ask anew\nHi")
    assert client.asked == [("Hi", {"cache": "refresh"})]


def _cut_then_refused() -> tuple[Any, ...]:
    error = _failed(ConnectionFailed("Connection refused.", rung="lab/x"))
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


def test_a_misspelt_option_of_set_is_refused_and_a_strange_one_is_noted(shell: Any, client: FakeClient) -> None:
    """A near miss is a mistake; anything else is a field for the provider, and the reply says so."""
    with pytest.raises(UsageError, match="Did you mean temperature"):
        shell.run_cell_magic("llm", "--set temprature=3", "Hi")
    assert client.asked == []
    shell.run_cell_magic("llm", "--set foo=1 -o x", "Hi")
    assert client.asked[0][1]["extra"] == {"foo": 1}
    assert shell.user_ns["x"].notes == ("foo is no option of nbllm: it goes to the provider as it is.",)


def test_advice_comes_before_the_pointer_to_the_call(shell: Any, client: FakeClient, capsys: Any) -> None:
    """Cause and advice belong together."""
    client.play(end=_failed(ConnectionFailed("Connection refused.", rung="lab/qwen")))
    shell.run_cell("%%llm\nHi")
    shown = capsys.readouterr().out
    assert shown.index("Start the server") < shown.index("%llm_calls call0001")


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


def test_a_budget_that_is_used_up_gives_advice_that_helps() -> None:
    """Fewer tokens do not help there; where they do, it says what the worst case is."""
    money = {"scope": "session:x", "limit_usd": Decimal("0.001"), "reserved_usd": Decimal(0), "needed_usd": Decimal("0.1")}
    over = BudgetExceeded(spent_usd=Decimal("0.0068"), **money)
    assert "used up" in over.hint
    assert "max-tokens" not in over.hint
    assert "worst case: without --max-tokens" in BudgetExceeded(spent_usd=Decimal(0), **money).hint
