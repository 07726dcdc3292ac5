"""A `%%llm -o x` cell, read as the magic reads it, and the function `x()` that it becomes."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbllm.core.templates import names_in
from nbllm.errors import TemplateError
from nbllm.export.lexer import Magic
from nbllm.export.literals import literal
from nbllm.settings.flags import BadLine, parse
from nbllm.settings.llm_manual import LLM, asked_options

MAGICS = {"llm", "nbllm"}


@dataclass(frozen=True, slots=True)
class LlmCell:
    """What a %%llm cell asks. out: the variable of its answer, "" without one. code: options that name something of the notebook.

    templates: texts by place ("prompt", "system") with the names that they take. problem: why it cannot be exported. earlier: those
    of its names that are answers which were asked for anew since, each with the function of the one that it had. function: what its
    own answer is called in the module, where that is not `out` because a later cell's is.
    """

    out: str
    prompt: str
    options: Mapping[str, Any]
    code: Mapping[str, str]
    names: frozenset[str]
    raw: bool
    problem: str = ""
    earlier: Mapping[str, str] = field(default_factory=dict)
    function: str = ""

    @property
    def called(self) -> str:
        """The name of its function, "" for a cell whose answer has no name."""
        return self.function or self.out

    @property
    def reads(self) -> frozenset[str]:
        """The names of the module that it takes: those of its templates, its schema and its check."""
        taken = {self.earlier.get(name, name) for name in self.names}
        return frozenset(taken | {name.partition(".")[0] for name in self.code.values()})


def read_llm_cell(magic: Magic, body: str) -> LlmCell:
    """Return what a %%llm cell asks; what is wrong with it is in `problem`."""
    prompt = body.rstrip("\n")
    try:
        given = dict(parse(LLM, magic.rest).values)
        options = asked_options(given)
        raw = bool(given.get("raw"))
        names: set[str] = set()
        if not raw:
            names = names_in(prompt) | names_in(options.get("system") or "")
    except (BadLine, TemplateError) as error:
        return LlmCell("", prompt, {}, {}, frozenset(), raw=False, problem=str(error).replace("\n", " ").rstrip("."))
    code: dict[str, str] = {name: given[name] for name in ("schema", "check") if name in given}
    return LlmCell(given.get("out", ""), prompt, options, code, frozenset(names), raw=raw, problem=_problem(prompt, code))


def _problem(prompt: str, code: Mapping[str, str]) -> str:
    if not prompt.strip():
        return "its prompt is empty"
    for flag, name in code.items():
        if any(keyword.iskeyword(part) for part in name.split(".")):
            return f"--{flag} {name} is no name that Python knows"
    return ""


def function_text(cell: LlmCell, number: int, *, defined: frozenset[str], answers: frozenset[str], face: Mapping[str, str]) -> str:
    """Return the source of the function.

    defined: names that the module has; a name that a template can do without and that is not there is left out. answers: names
    that are functions of %%llm cells themselves. face: how the module calls nbllm and `once_in_a_flow`.
    """
    nbllm = face["nbllm"]
    meant = {name: cell.earlier.get(name, name) for name in sorted(cell.names)}
    values = {name: f"{one}()" if one in answers else one for name, one in meant.items() if one in defined}

    def text(template: str, depth: int) -> str:
        tagged = not cell.raw and ("{{" in template or "{%" in template)
        if not tagged:
            return literal(template, depth, bare=depth == 2 and template == cell.prompt)
        pad = "    " * (depth + 1)
        taken = "".join(f"{pad}{name}={value},\n" for name, value in values.items())
        return f"{nbllm}.render(\n{pad}{literal(template, depth + 1, bare=True)},\n{taken}{'    ' * depth})"

    lines = [f"        {text(cell.prompt, 2)},\n"]
    for name, value in sorted(cell.options.items()):
        shown = text(value, 2) if name == "system" and value else _value(value)
        lines.append(f"        {name}={shown},\n")
    lines += [f"        {name}={value},\n" for name, value in sorted(cell.code.items())]
    return (
        f"@{face['once']}\n"
        f"def {cell.called}() -> {nbllm}.Reply:\n"
        f'    """Ask what cell {number} of the notebook asked, at most once in a call of a flow."""\n'
        f"    return {nbllm}.ask(\n{''.join(lines)}    )\n"
    )


def _value(value: Any) -> str:
    """Return an option's value as Python: texts, numbers, JSON; an amount of money as a text, which options take too."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        return literal(str(value))
    if isinstance(value, tuple) and len(value) == 1:
        return literal(value[0])
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(str(k))}: {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return literal(value) if isinstance(value, str) else repr(value)
