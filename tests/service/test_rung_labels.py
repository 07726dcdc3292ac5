"""Rungs as labels of metrics: those of the settings and those that flows name, and never more than a few."""

from __future__ import annotations

from nbllm.service.metrics import Metrics


def test_rungs_of_flows_are_labels_up_to_a_bound() -> None:
    """What a flow's code names shows as itself; names without end become "other"; those of the settings always show."""
    metrics = Metrics(lambda: {"lab/qwen"})
    assert metrics._rung("vllm/qwen") == "vllm/qwen"
    shown = {metrics._rung(f"vllm/{number}") for number in range(1000)}
    assert "other" in shown
    assert len(shown) <= 51
    assert (metrics._rung("lab/qwen"), metrics._rung("vllm/qwen"), metrics._rung(None)) == ("lab/qwen", "vllm/qwen", "other")
