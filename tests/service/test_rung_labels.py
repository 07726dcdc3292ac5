"""Rungs as labels of metrics: those of the settings and those that flows name, and never more than a few."""

from __future__ import annotations

from nbllm.service.metrics import Metrics


def test_rungs_of_flows_are_labels_up_to_a_bound() -> None:
    """What a flow's code names shows as itself; names without end become "other"; those of the settings always show."""
    metrics = Metrics({"lab/qwen"})
    assert metrics._rung("vllm/qwen") == "vllm/qwen"
    shown = {metrics._rung(f"vllm/{number}") for number in range(1000)}
    assert "other" in shown
    assert len(shown) <= 51
    assert (metrics._rung("lab/qwen"), metrics._rung("vllm/qwen"), metrics._rung(None)) == ("lab/qwen", "vllm/qwen", "other")


def test_counts_of_known_rungs_begin_at_zero() -> None:
    """Before the first call each series of a rung is there: an alert on an increase sees the first one, too."""
    text = Metrics({"lab/qwen"}).text().decode()
    for series in (
        'nbllm_calls_total{rung="lab/qwen",source="model",status="done"} 0.0',
        'nbllm_calls_total{rung="lab/qwen",source="cache",status="done"} 0.0',
        'nbllm_calls_total{rung="lab/qwen",source="none",status="failed"} 0.0',
        'nbllm_ttft_seconds_count{rung="lab/qwen"} 0.0',
        'nbllm_call_seconds_count{rung="lab/qwen"} 0.0',
        'nbllm_tokens_total{direction="output",rung="lab/qwen"} 0.0',
        'nbllm_cost_usd_total{rung="lab/qwen"} 0.0',
        'nbllm_attempts_of_unknown_cost_total{rung="lab/qwen"} 0.0',
    ):
        assert series in text
