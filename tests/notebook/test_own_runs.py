"""Which recorded runs are this notebook's: of its session, of its name and of the names that it had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import nbllm
from nbllm import Client, ask, flow
from nbllm.core.messages import Origin
from nbllm.flow_context import CELLS, ORIGIN
from nbllm.notebook.own_runs import own_runs
from tests.client.helpers import fake_client


@flow
def answer(question: str) -> str:
    """A flow of the notebook's."""
    return ask(question).text


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A session that records."""
    with fake_client(tmp_path, recordings=True) as made, nbllm.use(made):
        yield made
    CELLS.former.clear()


def in_notebook(tag: str | None, question: str) -> None:
    """Run the flow in a cell of a notebook."""
    token = ORIGIN.set(None if tag is None else Origin("cell", tag))
    try:
        answer(question)
    finally:
        ORIGIN.reset(token)


def asked(client: Client, tag: str | None) -> tuple[list[str], bool]:
    """What the notebook's own runs asked, and whether they are known to be its own."""
    token = ORIGIN.set(None if tag is None else Origin("cell", tag))
    try:
        own = own_runs(client, ["answer"])
    finally:
        ORIGIN.reset(token)
    return sorted(one.prompt["messages"][0]["content"] for one in own.recordings), own.certain


def test_two_notebooks_of_one_kernel(client: Client) -> None:
    """Each has its own runs, though both are of one session."""
    in_notebook("aaaa", "of a")
    in_notebook("bbbb", "of b")
    assert asked(client, "aaaa") == (["of a"], True)
    assert asked(client, "bbbb") == (["of b"], True)
    assert asked(client, None) == (["of a", "of b"], True)
    assert asked(client, "cccc") == ([], True)


def test_a_renamed_notebook_keeps_its_runs(client: Client) -> None:
    """What was recorded under the old name is its own; what another notebook records under that name later is not."""
    in_notebook("aaaa", "before")
    CELLS.former["bbbb"] = {"aaaa": time.time()}
    in_notebook("bbbb", "after")
    assert asked(client, "bbbb") == (["after", "before"], True)
    client.recordings.keep(replace(client.recordings.newest(1)[0], call_id="other", notebook="aaaa", started_at=time.time() + 9))
    assert asked(client, "bbbb") == (["after", "before"], True)


def test_other_sessions_are_unknown(client: Client) -> None:
    """A run of another session that no notebook is known of counts only while this one has none."""
    in_notebook(None, "of then")
    old = client.recordings.newest(1)[0]
    client.recordings.forget()
    client.recordings.keep(replace(old, session="another"))
    assert asked(client, "aaaa") == (["of then"], False)
    in_notebook("aaaa", "of now")
    assert asked(client, "aaaa") == (["of now"], True)
