"""Rows of usage that show themselves as a table: in a notebook, in a terminal, as a DataFrame."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from html import escape
from typing import Any, overload

from nbllm.core.ports import UsageRow
from nbllm.core.safe_inline import DOLLAR
from nbllm.money import format_usd

_COLUMNS = ("calls", "failed", "hits", "attempts", "in", "out", "cost", "saved")


class UsageTable(Sequence[UsageRow]):
    """Sums by one column of the ledger, dearest first. A sequence of UsageRow; `.to_pandas()` where pandas is installed.

    note: what is to be read with the numbers.
    """

    def __init__(self, by: str, rows: Sequence[UsageRow], note: str = "") -> None:
        self.by = by
        self.rows = tuple(rows)
        self.note = note

    @overload
    def __getitem__(self, index: int) -> UsageRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[UsageRow]: ...
    def __getitem__(self, index: int | slice) -> UsageRow | Sequence[UsageRow]:
        """Return one row, or several."""
        return self.rows[index]

    def __len__(self) -> int:
        """Return how many groups there are."""
        return len(self.rows)

    def __iter__(self) -> Iterator[UsageRow]:
        """Yield the rows."""
        return iter(self.rows)

    def to_pandas(self) -> Any:
        """Return a DataFrame with one row a group; money as float. ImportError without pandas."""
        import pandas as pd

        frame = pd.DataFrame([asdict(row) for row in self.rows]).rename(columns={"group": self.by})
        for name in ("cost_usd", "estimated_usd", "saved_usd"):
            if name in frame:
                frame[name] = frame[name].astype(float)
        return frame

    def _cells(self) -> list[tuple[str, ...]]:
        return [(named_group(row.group), *_numbers(row)) for row in self.rows]

    def __repr__(self) -> str:
        """Return the table as text."""
        if not self.rows:
            return "No calls yet."
        table = [(self.by, *_COLUMNS), *self._cells()]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        ]
        return "\n".join([*lines, *(["", textwrap.fill(self.note, 80)] if self.note else [])])

    def _repr_markdown_(self) -> str:
        if not self.rows:
            return "No calls yet."
        head = f"| {self.by} | " + " | ".join(_COLUMNS) + " |\n|:--|" + "--:|" * len(_COLUMNS)
        body = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in self._cells()]
        return "\n".join([head, *body, *(["", without_math(escape(self.note))] if self.note else [])])


def simulated_usd(models: Sequence[UsageRow]) -> tuple[Decimal, bool]:
    """Return what simulated models cost, and whether that is all there is. models: the calls in question, summed by model.

    A call that a static answer rescued is in no model's row; where every model is simulated, so is what it cost.
    """
    ours = [row for row in models if row.group.startswith("sim/")]
    real = [row for row in models if "/" in row.group and row not in ours]
    if ours and not any(row.attempts or row.cost_usd or row.saved_usd for row in real):
        return sum((row.cost_usd for row in models), Decimal(0)), True
    return sum((row.cost_usd for row in ours), Decimal(0)), False


def simulated_note(models: Sequence[UsageRow]) -> str:
    """Return what must be said of sums that hold calls of simulated models, "" for others. models: as in simulated_usd."""
    if not any(row.group.startswith("sim/") for row in models):
        return ""
    cost_usd, is_all = simulated_usd(models)
    how_much = "All of it is" if is_all else f"{format_usd(cost_usd)} of the cost is"
    return f"{how_much} simulated (models that begin with sim/): nobody is billed, yet it counts on budgets."


def named_group(group: str | None) -> str:
    """Return a group's name; what simulated models cost must not be taken for a bill."""
    if group and group.startswith("sim/"):
        return f"{group} (simulated)"
    return group or "(none)"


def _numbers(row: UsageRow) -> tuple[str, ...]:
    cost = format_usd(row.cost_usd)
    if row.estimated_usd:
        cost = f"~{cost}"
    if row.unknown_cost_calls:
        cost += f" + {row.unknown_cost_calls} unknown"
    counts = (row.calls, row.failed, row.hits, row.attempts, row.input_tokens, row.output_tokens)
    saved = f"{format_usd(row.saved_usd)}, {row.saved_s:.1f} s" if row.hits else "-"
    return (*(f"{n:,}" for n in counts), cost, saved)


def _cell(text: str) -> str:
    """Return text for a Markdown table: names come from users, so nothing in them may act as markup."""
    shown = "".join(f"&#{ord(char)};" if char in "|`*_[]()!~#:@" else char for char in escape(text).replace("\n", " "))
    return without_math(shown)


def without_math(markdown: str) -> str:
    """Return Markdown whose dollars and backslashes begin no formula: pages look for these after all entities are read.

    In an element of its own neither pairs with another; an entity would.
    """
    return markdown.replace("\\", "<span>&#92;</span>").replace("$", DOLLAR)
