"""Which cell a call belongs to in a real kernel: in the cell that loads nbllm, and in the callback of another notebook's widget."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.notebook.kernel import Kernel, running_kernel
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("JPY_SESSION_NAME", raising=False)
        with running_kernel(tmp_path_factory.mktemp("work")) as made:
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
            # Behind it on the same connection, so that it is over: beside a cell that awaits it would count to that one.
            assert first.run("pass", "behind")["status"] == "ok"
        assert ast.literal_eval(kernel.value("seen")) == [(None, None, None)] * 2
    finally:
        first.close(), second.close()
