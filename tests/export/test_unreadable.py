"""Cells that cannot be parsed: told as that, with cell and line."""

from __future__ import annotations

import pytest

from tests.export.making import HEAD, refused

BROKEN = "x = 1\n\ny = = 2\n@flow\ndef f(t): return t"


@pytest.mark.parametrize("source", [BROKEN, f"%%time\n{BROKEN[:-1]}t", "y = = 2\nf = flow(g)", "y = = 2\nasync def f(t): return t"])
def test_a_flow_in_a_cell_that_cannot_be_read(source: str) -> None:
    """The syntax error is the reason, with its line; not that there is no flow."""
    (refusal,) = refused(HEAD, source).refusals
    assert (refusal.kind, refusal.cell) == ("not python", 2)
    assert refusal.line == source.split("\n").index("y = = 2") + 1
    assert "it is no Python, as Python 3." in refusal.reason


def test_other_cells_that_cannot_be_read_are_in_nobodys_way() -> None:
    """A broken cell that only calls the flow hides nothing: the flow is looked for elsewhere."""
    (refusal,) = refused(HEAD, "y = = f(1)", "@flow\ndef g(t): return t").refusals
    assert refusal.kind == "no such flow"
