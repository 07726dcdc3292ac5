"""Options of engines: an allow-list with types. What is not on it is refused, so that no value becomes another argument.

An option's value is checked as a setting's is (nbllm.settings.option) and becomes exactly one word of the argument list, or one
variable, that the row of the table names (nbllm.engines.option_table). A text may not begin with a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.engines.catalog import EngineKind
from nbllm.engines.option_table import OPTIONS, EngineOption, word
from nbllm.errors import EngineNotPossible
from nbllm.settings.option import BadValue
from nbllm.settings.suggest import did_you_mean

__all__ = ["OPTIONS", "Chosen", "EngineOption", "choose", "options_of", "word"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Options of one launch: as checked values, as words of the argument list, as variables, and those that change answers."""

    values: Mapping[str, Any]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    answers: Mapping[str, Any]


def options_of(kind: EngineKind) -> list[EngineOption]:
    """Return the options that an engine takes."""
    return [row for row in OPTIONS.values() if kind.name in row.spelled]


def choose(kind: EngineKind, given: Mapping[str, Any]) -> Chosen:
    """Check options. Text is read as a person writes it ("4096", "true"). Raises EngineNotPossible; nothing is started then."""
    values: dict[str, Any] = {}
    words: list[str] = []
    environment: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for asked, value in given.items():
        row = _row(kind, asked, [one.name for one in options_of(kind)])
        try:
            checked = row.option.parse(value) if isinstance(value, str) else row.option.value(value)
            if checked is None:
                continue
            text = row.check(row.name, checked) if row.check else _plain(checked)
        except BadValue as error:
            raise EngineNotPossible(f"{error.problem}. Nothing was started.", hint=error.hint or row.option.help) from None
        if row.name in values:
            raise EngineNotPossible(f"{row.name} is given twice. Nothing was started.")
        values[row.name] = checked
        if row.answers:
            answers[row.name] = text
        spelled = row.spelled[kind.name]
        if spelled.startswith("$"):
            environment[spelled[1:]] = {"true": "1", "false": "0"}.get(text, text)
        elif row.option.kind == "flag":
            yes, _, no = spelled.partition("|")
            words += [flag for flag in ([yes] if checked else [no]) if flag]
        else:
            words += [spelled, text]
    return Chosen(values, tuple(words), environment, answers)


def _row(kind: EngineKind, asked: str, known: Iterable[str]) -> EngineOption:
    name = asked.strip().removeprefix("--").replace("-", "_")
    row = OPTIONS.get(name)
    if row is not None and kind.name in row.spelled:
        return row
    elsewhere = f" ({', '.join(sorted(row.spelled))} has it.)" if row is not None else ""
    raise EngineNotPossible(
        f"{kind.title} has no option {asked!r:.80} here.{elsewhere} Nothing was started.", hint=did_you_mean(name, known, limit=40)
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
