"""What the road has to say becomes an NbllmWarning at the user's own line, once per place."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client, NbllmWarning
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client

SOFT = {"budget_session_usd": "0.01", "budget.soft": 0.00001}


def here() -> int:
    """The line of the caller."""
    return sys._getframe(1).f_lineno


def ask(client: Client) -> int:
    """By the client."""
    return client.ask("hello") and here()


def ask_of_the_package(client: Client) -> int:
    """By the package's own door."""
    return nbllm.ask("hello") and here()


def stream(client: Client) -> int:
    """At the end of a stream."""
    return list(client.stream("hello")) and here()


def stream_of_the_package(client: Client) -> int:
    """At the end of a stream of the package."""
    return list(nbllm.stream("hello")) and here()


def aask(client: Client) -> int:
    """In a coroutine."""

    async def main() -> int:
        return (await client.aask("hello")) and here()

    return asyncio.run(main())


def aask_of_the_package(client: Client) -> int:
    """In a coroutine, by the package's own door."""

    async def main() -> int:
        return (await nbllm.aask("hello")) and here()

    return asyncio.run(main())


def astream(client: Client) -> int:
    """At the end of an async stream."""

    async def main() -> int:
        return [piece async for piece in client.astream("hello")] and here()

    return asyncio.run(main())


def embed(client: Client) -> int:
    """With embeddings."""
    return len(client.embed(["hello"])) and here()


def in_a_thread(client: Client) -> int:
    """On a thread of a pool."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, client).result()


DOORS: list[Callable[[Client], int]] = [
    ask, ask_of_the_package, stream, stream_of_the_package, aask, aask_of_the_package, astream, embed, in_a_thread,
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_warning_points_at_the_callers_line(door: Callable[[Client], int], tmp_path: Path) -> None:
    """A soft budget that is passed warns once, in the file and line of the user's own call."""
    with fake_client(tmp_path, FakeProvider(default=lambda _: "one two three"), **SOFT) as client, nbllm.use(client):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            line = door(client)
        (warning,) = caught
        assert warning.category is NbllmWarning
        assert "budget" in str(warning.message)
        assert (warning.filename, warning.lineno) == (__file__, line)


def test_once_per_place(tmp_path: Path) -> None:
    """Python's own filter shows a note once per place: a loop of calls does not fill the screen."""
    with fake_client(tmp_path, budget_request_usd="0.0004") as client, warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for number in range(5):
            client.ask(f"hello number {number}", cache="off")
        client.ask("hello number 9", cache="off")
    lowered = [warning for warning in caught if "max_tokens" in str(warning.message)]
    assert len(lowered) == 2, "one for the loop, one for the line after it"
    assert len({warning.lineno for warning in lowered}) == 2


def test_the_reply_holds_what_was_said(tmp_path: Path) -> None:
    """Faces that show notes themselves find them in the reply; a live call warns of nothing."""
    with fake_client(tmp_path, **SOFT) as client:
        live = client.start("hello")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reply = live.reply
        assert len(reply.notes) == 1
        assert "budget" in reply.notes[0]
        assert live.notes == list(reply.notes)


def test_notes_of_the_settings_are_said_with_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was odd about variables is said once, with the first call, a hit too."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NBLLM_FROM_ANOTHER_PLANET", "1")
    monkeypatch.setenv("NBLLM_MODEL", "sim/small")
    for source in ("model", "cache"):
        with Client(providers={"simulated": FakeProvider()}) as client:
            with pytest.warns(NbllmWarning, match="NBLLM_FROM_ANOTHER_PLANET") as caught:
                assert client.ask("hello").source == source
            assert len(caught) == 1
            client.ask("hello")


_SCRIPT = """
import sys
from nbllm import Client
with Client(home=sys.argv[1], model="sim/small", **{"budget_session_usd": "0.01", "budget.soft": 0.00001}) as client:
    for number in range(3):
        client.ask(f"Say {number}", cache="off")
"""


def test_on_the_screen(tmp_path: Path) -> None:
    """In a plain script the warning is one line that names the script's own line."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    environment: dict[str, Any] = {"PYTHONPATH": str(Path(nbllm.__file__).parents[1]), "NBLLM_SIM_SPEED": "0", "PATH": ""}
    command = [sys.executable, str(script), str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"{script}:6: NbllmWarning: The session budget")
    assert len(rest) == 1


def dropped(client: Client) -> int:
    """As a statement."""
    nbllm.use(client)
    return here() - 1


def raised(client: Client) -> int:
    """As an argument that is made and never used, by a line that fails."""
    with pytest.raises(ZeroDivisionError):
        print(nbllm.use(client), 1 / 0)
    return here() - 1


@pytest.mark.parametrize("door", [dropped, raised], ids=lambda door: door.__name__)
def test_use_without_with_says_that_nothing_changed(door: Callable[[Client], int], tmp_path: Path) -> None:
    """`nbllm.use(client)` written as a statement warns at that line, with both ways to do what was meant."""
    with fake_client(tmp_path) as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = door(client)
        gc.collect()
    (warning,) = caught
    assert warning.category is NbllmWarning
    assert "without a with block" in str(warning.message)
    assert "with nbllm.use(client): ..." in str(warning.message)
    assert "nbllm.set_process_client(client)" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_use_shown_by_a_notebook_says_how_to_enter_it(tmp_path: Path) -> None:
    """A notebook keeps what a cell ends with, so that it is never dropped: what is shown of it says the same."""
    with fake_client(tmp_path) as client:
        scope = nbllm.use(client)
        assert "with nbllm.use(client): ..." in repr(scope)
        with scope as entered:
            assert entered is nbllm.get_client() is client
            assert "with nbllm.use" not in repr(scope)


def test_use_that_was_entered_is_quiet_and_gives_back_what_was_there(tmp_path: Path) -> None:
    """Blocks nest, of one object too, end when something is raised as well, and leave no warning behind."""
    with (
        fake_client(tmp_path / "a") as first,
        fake_client(tmp_path / "b") as second,
        nbllm.use(first),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        scope = nbllm.use(second)
        with scope, nbllm.use(first):
            with scope:
                assert nbllm.get_client() is second
            assert nbllm.get_client() is first
        with pytest.raises(ZeroDivisionError), scope:
            raise ZeroDivisionError
        assert nbllm.get_client() is first
        del scope
        gc.collect()
    assert caught == []


def test_use_with_a_wrong_argument_is_only_the_error() -> None:
    """A call that fails leaves no half-made object that would complain a second time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TypeError):
            nbllm.use()  # type: ignore[call-arg]  # the mistake that is tested
        gc.collect()
    assert caught == []
