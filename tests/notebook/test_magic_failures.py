"""What a person reads when a call from a notebook fails: a few lines with cause and advice, and none of our frames."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbllm import Client
from nbllm.engines.supervised import Running
from nbllm.errors import (
    AllRungsFailed,
    AuthenticationFailed,
    BudgetExceeded,
    ConfigurationError,
    ConnectionFailed,
)
from tests.notebook.fakes import FakeClient, failed


def test_a_failure_is_a_few_lines_and_the_cell_fails(shell: Any, client: FakeClient, capsys: Any) -> None:
    """What happened, on which rung, what was spent, what to do; none of our frames."""
    client.play(
        end=failed(ConnectionFailed("Connection refused.", rung="lab/qwen"), AuthenticationFailed("No key.", rung="openai/x"))
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
    known: Running[Any] = Running()
    for name in ("lab", "other", "b"):
        known.add(SimpleNamespace(name=name, state=state, forget=lambda: None))
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
    monkeypatch.setattr("nbllm.engines.engine._running", Running())
    with Client(home=tmp_path / "home") as own:
        shell.user_ns["own"] = own
        shell.run_cell("own.ask('Hi', model='sim-server/large')")
    assert "%serve start sim-server MODEL starts one." in " ".join(capsys.readouterr().out.split())
    client.refuses = ConfigurationError("'vllm/tiny': no server is known here as 'vllm'.")
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
    client.play(end=failed(ConnectionFailed("Connection refused.", rung="lab/qwen")))
    shell.run_cell("%%llm\nHi")
    shell.run_line_magic("config", "LLMMagics.full_traceback = False")
    assert "runner.py" in capsys.readouterr().out


def test_advice_comes_before_the_pointer_to_the_call(shell: Any, client: FakeClient, capsys: Any) -> None:
    """Cause and advice belong together."""
    client.play(end=failed(ConnectionFailed("Connection refused.", rung="lab/qwen")))
    shell.run_cell("%%llm\nHi")
    shown = capsys.readouterr().out
    assert shown.index("Start the server") < shown.index("%llm_calls call0001")


def test_a_budget_that_is_used_up_gives_advice_that_helps() -> None:
    """Fewer tokens do not help there; where they do, it says what the worst case is."""
    money = {"scope": "session:x", "limit_usd": Decimal("0.001"), "reserved_usd": Decimal(0), "needed_usd": Decimal("0.1")}
    over = BudgetExceeded(spent_usd=Decimal("0.0068"), **money)
    assert "used up" in over.hint
    assert "max-tokens" not in over.hint
    assert "worst case: without --max-tokens" in BudgetExceeded(spent_usd=Decimal(0), **money).hint
