"""The session's report, as Markdown that is pasted anywhere: what users named stays text in it."""

from __future__ import annotations

import re
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm import Client
from nbllm.core.ports import UsageRow
from nbllm.core.usage_table import UsageTable
from nbllm.notebook.lab.report import report

FORMULAS = ("$\\href{javascript:alert(1)}{x}$", "\\(x\\)", "\\begin{align}x\\end{align}", "costs $5 or $10")


def bare(markdown: str) -> str:
    """What is left without the dollars and backslashes that stand in elements of their own."""
    return re.sub("<span>&#(36|92);</span>", "", markdown)


def test_no_name_and_no_price_of_a_report_becomes_a_formula(client: Client) -> None:
    """A page looks for formulas after it has read all entities: dollars and backslashes stand where none can pair."""
    for text in FORMULAS:
        client.ask("x", feature=text, user=text, cache="off")
        client.set_budget("feature", Decimal(5), name=text)
    said = report(client, "0")
    assert said.count("<span>&#36;</span>") > 10
    assert said.count("<span>&#92;</span>") >= 5
    assert re.findall(r"\$|\\|&#36;|&#92;|<(?!/?span>)", bare(said)) == []


@given(st.text(alphabet="ab$\\|<>&#;`[]()!\n36", max_size=40))
@settings(max_examples=200)
def test_a_table_holds_names_as_text(text: str) -> None:
    """Whatever a group is called, its table has one row for it, and no markup, entity or formula of its own."""
    costs = {"cost_usd": Decimal(1), "estimated_usd": Decimal(1), "unknown_cost_calls": 1, "saved_usd": Decimal(1), "saved_s": 1.0}
    counts = dict.fromkeys(("calls", "failed", "hits", "attempts", "input_tokens", "output_tokens"), 1)
    row = UsageRow(group=text, **counts, **costs)  # type: ignore[arg-type]
    lines = UsageTable("feature", [row])._repr_markdown_().splitlines()
    assert len(lines) == 3
    assert re.findall(r"[$\\`\[\]()!]|&#36;|&#92;|<", bare(lines[2])) == []
