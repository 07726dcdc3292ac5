"""Which cell a call belongs to in a real kernel: in the cell that loads nbllm, and in the callback of another notebook's widget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notebook.kernel import Kernel, kernel_with_a_home
from tests.notebook.lab.fronts import Front

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

WIDGET = """
def target(comm, message):
    from nbllm.flow_context import cache_mode_here, origin_now
    seen.append((*origin_now(), cache_mode_here()))
seen = []
get_ipython().kernel.comm_manager.register_target('widget', target)
"""


@pytest.fixture
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel that has not loaded the extension yet."""
    with kernel_with_a_home(tmp_path_factory) as made:
        yield made


def test_a_call_belongs_to_its_cell_and_a_callback_to_none(kernel: Kernel) -> None:
    """The loading cell's call has its id; a widget's callback has neither tag nor cache mode of the notebook that ran last."""
    first, second = Front(kernel.manager, "a.ipynb"), Front(kernel.manager, "b.ipynb")
    try:
        load = "%load_ext nbllm\nimport nbllm\nfor one in ('x', 'y'): nbllm.ask(one, model='sim/small')"
        assert first.run(load, "loading")["status"] == "ok"
        first.hello().until(lambda: first.state and first.state["calls"])
        assert [line["cell_id"] for line in first.state["calls"]] == ["loading", "loading"]
        second.hello().until(lambda: second.state)
        assert second.command("cache_mode", mode="off")["ok"]
        assert first.run(WIDGET, "widget")["status"] == "ok"
        for code in ("1", "await __import__('asyncio').sleep(0)"):
            assert second.run(code, "other")["status"] == "ok"
            comm_id, first.comm_id = first.comm_id, f"w{len(code)}"
            first.raw("comm_open", {"target_name": "widget", "data": {}})
            first.comm_id = comm_id
            # Behind it on the same connection, so that it is over.
            assert first.run("pass", "behind")["status"] == "ok"
        assert kernel.literal("seen") == [(None, None, None)] * 2
    finally:
        first.close(), second.close()


BESIDE = """
import asyncio, threading, time
from nbllm.flow_context import origin_now
{wait}
in_thread, after = [], origin_now()
thread = threading.Thread(target=lambda: in_thread.append(origin_now()))
thread.start(), thread.join()
"""
UNTIL = "end_s = time.monotonic() + 15\nwhile not seen and time.monotonic() < end_s: "
WAITS = {"a subshell": f"{UNTIL}time.sleep(0.01)", "the cell's own thread": f"{UNTIL}await asyncio.sleep(0.01)"}


@pytest.mark.parametrize("where", WAITS)
def test_a_callback_beside_the_cell_of_another_notebook_is_not_of_that_cell(kernel: Kernel, where: str) -> None:
    """A widget's callback on a subshell, or between two steps of a cell that awaits: the cell keeps its calls, it has none."""
    first = Front(kernel.manager, "a.ipynb", subshell=where == "a subshell")
    second = Front(kernel.manager, "b.ipynb")
    try:
        assert second.run("%load_ext nbllm", "loading")["status"] == "ok"
        second.hello().until(lambda: second.state)
        assert second.command("cache_mode", mode="off")["ok"]
        assert second.run(WIDGET, "widget")["status"] == "ok"
        asked = second.execute(BESIDE.format(wait=WAITS[where]), "busy")
        second.until(lambda: any(m["msg_type"] == "execute_input" and "in_thread" in m["content"]["code"] for m in second.seen))
        first.comm_id = "widget"
        first.raw("comm_open", {"target_name": "widget", "data": {}})
        assert second.replied(asked)["status"] == "ok"
        assert kernel.literal("seen") == [(None, None, None)]
        own = kernel.literal("[tuple(one) for one in (after, *in_thread)]")
        assert own == [("busy", second.tag)] * 2
    finally:
        first.close(), second.close()


def test_a_renamed_notebook_keeps_its_rows(kernel: Kernel) -> None:
    """The page that greets under another name, as after a rename, finds all of its calls, and drops all of their answers."""
    front, other = Front(kernel.manager, "a.ipynb"), Front(kernel.manager, "b.ipynb")
    try:
        ask = "r = nbllm.ask({!r}, model='sim/small')"
        assert front.run("%load_ext nbllm\nimport nbllm")["status"] == "ok"
        front.hello().until(lambda: front.state)
        assert front.run(ask.format("before"))["status"] == "ok"
        assert other.run(ask.format("of another"))["status"] == "ok"
        front.until(lambda: len(front.state["calls"]) == 2)
        old, front.notebook = front.tag, "renamed.ipynb"
        front.hello().until(lambda: front.tag not in (None, old))
        assert front.run(ask.format("after"))["status"] == "ok"
        front.until(lambda: len(front.state["calls"]) == 3)
        assert [line["notebook"] for line in front.state["calls"]] == [front.tag, None, front.tag]
        for do in ("count_cache", "clear_cache"):
            assert front.command(do)["data"] == {"entries": 2}
    finally:
        front.close(), other.close()
