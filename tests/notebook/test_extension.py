"""Loading, unloading, neighbours, help and Tab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm.notebook import extension
from nbllm.notebook.completion import offered
from nbllm.notebook.manuals import MANUALS
from nbllm.preparing import PREPARE
from tests.notebook.fakes import FakeClient

NAMES = {
    "models": lambda: ["sim/large", "sim/small", "lab/"], "settings": lambda: ["deadline_s=", "model="],
    "names": lambda: ["answer"], "models and providers": lambda: ["openai", "sim/small"],
    "schemas": lambda: ["Person"], "functions": lambda: ["check_it"], "sets": lambda: ["top_p="],
}  # fmt: skip


def test_unloading_takes_everything_out_again(one_shell: Any, client: FakeClient) -> None:
    """Magics, completion, error messages, configurables: as before."""

    def state() -> tuple[Any, ...]:
        table = one_shell.magics_manager.magics
        return (
            sorted(table["cell"]), sorted(table["line"]), len(one_shell.Completer.custom_matchers), one_shell.custom_exceptions,
            len(one_shell.configurables),
        )  # fmt: skip

    before = state()
    extension.load_ipython_extension(one_shell)
    extension.load_ipython_extension(one_shell)
    assert set(MANUALS) - {"llm", "nbllm"} <= set(one_shell.magics_manager.magics["line"])
    extension.unload_ipython_extension(one_shell)
    assert state() == before


def test_a_magic_of_somebody_else_is_left_alone(one_shell: Any, client: FakeClient, capsys: Any) -> None:
    """If %%llm has an owner, that is said and %%nbllm is there instead."""

    def theirs(line: str, cell: str) -> str:
        return "theirs"

    one_shell.register_magic_function(theirs, "cell", "llm")
    try:
        extension.load_ipython_extension(one_shell)
        said = capsys.readouterr().out
        assert "%%llm belongs to tests here and stays so. Use %%nbllm" in said
        assert one_shell.run_cell_magic("llm", "", "x") == "theirs"
        one_shell.run_cell_magic("nbllm", "-o mine", "x")
        assert one_shell.user_ns["mine"].text == "Hello."
        extension.unload_ipython_extension(one_shell)
        assert one_shell.run_cell_magic("llm", "", "x") == "theirs"
    finally:
        del one_shell.magics_manager.magics["cell"]["llm"]


def test_another_extensions_exceptions_still_reach_their_handler(one_shell: Any, client: FakeClient) -> None:
    """IPython has one place for such handlers; ours passes on what is not ours and gives the place back."""
    seen = []

    def handler(self: Any, etype: Any, value: Any, tb: Any, tb_offset: Any = None) -> list[str]:
        seen.append(etype)
        return []

    one_shell.set_custom_exc((ZeroDivisionError,), handler)
    try:
        extension.load_ipython_extension(one_shell)
        one_shell.run_cell("1 / 0")
        extension.unload_ipython_extension(one_shell)
        one_shell.run_cell("1 / 0")
        assert seen == [ZeroDivisionError] * 2
    finally:
        one_shell.set_custom_exc((), None)


def test_question_mark_shows_the_manual(shell: Any, capsys: Any) -> None:
    """%%llm? is the manual: examples and every option."""
    for name in ("%%llm", "%llm", "%llm_budget"):
        info = shell.object_inspect(name)
        assert info["found"]
        assert "Examples" in info["docstring"]
    assert "--max-tokens N" in shell.object_inspect("%%llm")["docstring"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%llm --ca", ["--cache"]),
        ("%%llm --cache ", ["use", "refresh", "off"]),
        ("%%llm --cache=r", ["refresh"]),
        ("%%llm -m sim/", ["sim/large", "sim/small"]),
        ("%%llm -m sim/large,l", ["sim/large,lab/"]),
        ("%%nbllm --schema P", ["Person"]),
        ("%%llm --check ", ["check_it"]),
        ("%%llm -m sim/large --mod", []),
        ("%llm --set t", ["top_p="]),
        ("x = %llm -m lab", ["lab/"]),
        ("%llm_plot la", ["latency"]),
        ("%llm_plot latency --since to", ["today"]),
        ("%llm_config de", ["deadline_s="]),
        ("%llm_config --reset de", ["deadline_s"]),
        ("%llm_models op", ["openai"]),
        ("%llm_budget ", ["request", "session", "day", "feature", "user"]),
        ("%llm_cache pur", ["purge"]),
    ],
)
def test_tab_offers_what_fits(line: str, expected: list[str]) -> None:
    """Options, their values, models, endpoints and words; an option that is given is not offered again."""
    found = offered(line, NAMES)
    assert found is not None
    assert found[1] == expected


@pytest.mark.parametrize("line", ["%llm -m sim/large tell me --ca", "%time x", "x = 3", "%llm hello wor"])
def test_tab_keeps_out_of_prompts_and_of_other_code(line: str) -> None:
    """Where the words are the user's, nothing is offered."""
    found = offered(line, NAMES)
    assert found is None


def test_tab_works_through_ipythons_completer(shell: Any) -> None:
    """On the first line of a cell magic and in a line magic, and not in the prompt below."""

    def complete(code: str, at: int) -> list[str]:
        return [c.text for c in shell.Completer.completions(code, at)]

    with pytest.warns(match="provisional|experimental"):
        assert complete("%%llm --max\nprompt", 11) == ["--max-tokens"]
    with pytest.warns(match="provisional|experimental"):
        assert "--cache" not in complete("%%llm\nuse --ca", 14)


def test_loading_is_light() -> None:
    """No litellm, no matplotlib, no aiohttp, no templates, no socket: those come with their first use."""
    code = (
        "import socket, sys\n"
        "def no(*a, **k): raise AssertionError('a socket')\n"
        "socket.socket.connect = no\n"
        "from IPython.testing.globalipapp import get_ipython\n"
        "ip = get_ipython()\n"
        "before = set(sys.modules)\n"
        "from nbllm.notebook.extension import load_ipython_extension\n"
        "load_ipython_extension(ip)\n"
        "heavy = 'litellm matplotlib pydantic jsonschema jinja2 aiohttp numpy diskcache sqlite3 asyncio'.split()\n"
        "print(sorted(set(sys.modules).difference(before).intersection(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["before", "after"])
def test_functions_are_recorded_from_the_first_call(
    one_shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Loaded before or after the first `nbllm.ask`, no magic needed: the runs of a flow are there for an export."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("nbllm.current._process", None)
    answer = nbllm.flow(lambda: nbllm.ask("Say hello.", model="sim/small?ttft_s=0&tok_s=100000"))
    if first == "before":
        answer()
    extension.load_ipython_extension(one_shell)
    try:
        reply = answer()
        client = nbllm.get_client()
        assert client.recordings.get(reply.call_id) is not None
        client.close()
    finally:
        extension.unload_ipython_extension(one_shell)
    assert PREPARE == []
