"""How fast a panel follows its slider: from the change of the slider's value to the new picture, for each panel."""

from __future__ import annotations

import time

from bench.measure import Row
from nbllm.notebook.panel import Panel
from nbllm.notebook.panel_content import Content
from nbllm.notebook.panel_latency import LatencyContent
from nbllm.notebook.panel_routing import RoutingContent
from nbllm.notebook.panel_semantic import SemanticContent
from nbllm.panels.examples import latency_example, routing_example, semantic_example

_MOVES = 100


def panels() -> list[Row]:
    """Move each slider of each panel about, and take the 95th percentile of all moves of a panel."""
    contents: dict[str, Content] = {
        "semantic cache": SemanticContent(None, semantic_example()),
        "latency": LatencyContent(None, latency_example(300.0, 60.0)),
        "routing": RoutingContent(None, routing_example(), None),
    }
    p95_s, whole_s = {}, {}
    for name, content in contents.items():
        began = time.perf_counter()
        panel = Panel(content)
        whole_s[name] = time.perf_counter() - began
        p95_s[name] = _moved(panel)
    slowest = max(p95_s, key=lambda name: p95_s[name])
    each = "; ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in p95_s.items())
    opened = "; ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in whole_s.items())
    what, measured = "slider of a panel to its new picture, p95", f"{1000 * p95_s[slowest]:.0f} ms ({slowest})"
    return [Row(what, "100 ms", measured, f"{each}; opening it, ground drawn: {opened}", p95_s[slowest] <= 0.1)]


def _moved(panel: Panel) -> float:
    took = []
    for move in range(_MOVES):
        slider = panel.sliders[move % len(panel.sliders)]
        before, options = panel.image.value, [value for _, value in slider.options if value != slider.value]
        began = time.perf_counter()
        slider.value = options[(7 * move) % len(options)]
        took.append(time.perf_counter() - began)
        if panel.image.value == before:
            raise RuntimeError("The picture did not follow the slider.")
    return sorted(took)[int(0.95 * len(took))]
