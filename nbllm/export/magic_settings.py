"""What `%llm_config` and `%llm_budget` lines of a notebook file set, read as the magics read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from nbllm.errors import ConfigurationError
from nbllm.export.cells import Cell
from nbllm.export.lexer import Magic, read_code
from nbllm.export.refusals import Refusal
from nbllm.settings import Settings, reading
from nbllm.settings.flags import BadLine, Flag, Manual, parse
from nbllm.settings.option import BadValue

_CONFIG = Manual(
    name="%llm_config", summary="", usage=(), examples="", flags=(Flag(names=("--reset",), dest="reset", help=""),)
)  # fmt: skip
_SOFT = Flag(names=("--soft",), dest="soft", read=reading.amount_or_share, metavar="SHARE|USD", help="")
_BUDGET = Manual(name="%llm_budget", summary="", usage=(), examples="", flags=(_SOFT,))
NAMES = frozenset({"llm_config", "llm_budget"})


def with_magics(settings: Settings, cells: Sequence[Cell]) -> tuple[Settings, list[Refusal]]:
    """Return the settings as the notebook's own lines leave them, in document order, and what cannot be read.

    A session's cells (`live`) are passed over: its client has these settings already.
    """
    before, refusals = settings, []
    for cell, magic in _magics(cells):
        try:
            settings = _config(settings, before, magic) if magic.name == "llm_config" else _budget(settings, magic)
        except (BadLine, BadValue, ConfigurationError) as error:
            reason = str(error).split("\n", 1)[0].rstrip(".")
            refusals.append(Refusal(kind="settings", cell=cell.number, line=magic.line, reason=reason, todo="Correct the line"))
    return settings, refusals


def _magics(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Magic]]:
    for cell in cells:
        if cell.kind == "code" and not cell.live and not cell.left_out:
            yield from ((cell, m) for m in read_code(cell.source).magics if m.kind == "line" and m.name in NAMES)


def _config(settings: Settings, before: Settings, magic: Magic) -> Settings:
    parsed = parse(_CONFIG, re.sub(r"(?<=\w)\s*=\s*(?=\S)", "=", magic.rest))
    words = parsed.words
    if "reset" in parsed.values or words[:1] == ("reset",):
        names = words if "reset" in parsed.values else words[1:]
        old = before.flat()
        reset = names or [name for name in settings.flat() if settings.origin(name) == "%llm_config"]
        for name in reset:
            settings = settings.replace_values(before.origin(name), **{name: old.get(name)})
        return settings
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name):
            raise BadLine(f"%llm_config {word!r} sets nothing: it is written key=value")
        values[name] = value
    return settings.with_values("%llm_config", values)


def _budget(settings: Settings, magic: Magic) -> Settings:
    parsed = parse(_BUDGET, magic.rest)
    if not parsed.words:
        return settings
    kind, *rest = parsed.words
    named = kind in {"feature", "user"}
    if kind not in {"request", "session", "day", "feature", "user"} or len(rest) != (2 if named else 1):
        raise BadLine(f"%llm_budget {' '.join(parsed.words)!r} is none that it knows")
    amount = reading.usd_or_off(rest[-1])
    values: dict[str, object] = {f"budget.{kind}s.{rest[0]}" if named else f"budget.{kind}_usd": amount}
    soft = parsed.values.get("soft")
    if soft is not None and amount:
        values["budget.soft"] = float(soft / amount) if isinstance(soft, Decimal) else soft
    return settings.replace_values("%llm_budget", **values)
