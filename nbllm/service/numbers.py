"""What a running service counted, read from its page for Prometheus."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

_ASKED = ("/flows/", "/v1/chat/", "/v1/embeddings")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What an app counted since its start. refused: requests that ended with a status of 400 or more."""

    requests: int = 0
    refused: int = 0
    calls: int = 0
    hits: int = 0
    cost_usd: Decimal = Decimal(0)
    unknown_costs: int = 0
    running: int = 0


def numbers_on(page: str) -> Numbers:
    """Return the numbers of a Prometheus page."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "nbllm_requests_total" and labels.get("route", "").startswith(_ASKED):
                sums["requests"] += sample.value
                sums["refused"] += sample.value * (labels.get("status", "0") >= "400")
            elif sample.name == "nbllm_calls_total":
                sums["calls"] += sample.value
                sums["hits"] += sample.value * (labels.get("source") in {"cache", "semantic"})
            elif sample.name in {"nbllm_cost_usd_total", "nbllm_attempts_of_unknown_cost_total", "nbllm_requests_running"}:
                sums[sample.name] += sample.value
    return Numbers(
        requests=round(sums["requests"]), refused=round(sums["refused"]), calls=round(sums["calls"]), hits=round(sums["hits"]),
        cost_usd=Decimal(repr(round(sums["nbllm_cost_usd_total"], 12))),
        unknown_costs=round(sums["nbllm_attempts_of_unknown_cost_total"]),
        running=round(sums["nbllm_requests_running"]),
    )  # fmt: skip
