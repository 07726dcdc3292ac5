"""Prompt templates: Jinja2 in an immutable sandbox, undefined names refused by name, values never rendered again.

What differs from plain Jinja2, and why:
- Comments are off: `{#` is common in LaTeX and CSS. `{` and `}` need no escaping; `{{` and `{%` do (`{% raw %}`, or --raw).
- A trailing newline stays, and nothing is escaped for HTML: this is a prompt.
- A name may be missing only where the template itself asks (`x is defined`, `x | default(...)`).
- pandas objects are written whole, where str() would leave out rows; everything else as str() writes it. `tojson` writes plain
  JSON.
- Modules in the namespace cannot be reached into. Rendering stops at 16 MB of text, 1,000,000 steps of range() and 10 s: a
  template is written by the user, but a typo must not freeze the kernel. Objects may still take long in their own code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from nbllm.errors import TemplateError
from nbllm.settings.suggest import did_you_mean

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.exceptions import TemplateSyntaxError

MAX_CHARS = 16 * 1024 * 1024
RAW_HINT = "To send braces as they are: --raw (no templating), or {% raw %} ... {% endraw %} around the part."


def render(template: str, values: Mapping[str, Any], *, known: Iterable[str] = ()) -> str:
    """Return the template with `values` filled in; raises TemplateError before anything is rendered for names it does not have.

    known: further names that may have been meant, for "did you mean".
    """
    if not _has_tags(template):
        return template
    environment = _environment(_comment_mark(template))
    required, optional = _names(environment, template)
    missing = sorted(name for name in required - optional if name not in values)
    if missing:
        _refuse(template, missing, {*values, *known})
    return _rendered(environment, template, values)


def names_in(template: str) -> set[str]:
    """Return the names that a template takes from outside, those that it can do without included; raises TemplateError."""
    if not _has_tags(template):
        return set()
    required, optional = _names(_environment(_comment_mark(template)), template)
    return required | optional


def required_names_in(template: str) -> set[str]:
    """Return the names that a template takes from outside and cannot do without; raises TemplateError."""
    if not _has_tags(template):
        return set()
    required, optional = _names(_environment(_comment_mark(template)), template)
    return required - optional


names = names_in


def _has_tags(template: str) -> bool:
    return "{{" in template or "{%" in template


def _comment_mark(template: str) -> str:
    """Return a text that does not occur in the template: comments begin with it, so there are none."""
    mark = "\x00#"
    while mark in template:
        mark += "#"
    return mark


@lru_cache(maxsize=4)
def _environment(comment_mark: str) -> Environment:
    from nbllm.core.template_sandbox import PromptEnvironment

    return PromptEnvironment(comment_mark)


def _names(environment: Environment, template: str) -> tuple[set[str], set[str]]:
    """Return the names from outside, and those among them that the template can do without; raises TemplateError."""
    from jinja2 import meta, nodes
    from jinja2.exceptions import TemplateSyntaxError

    try:
        tree = environment.parse(template)
        outside = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError as error:
        _syntax(error, template)
    except RecursionError:
        raise TemplateError("The template is nested too deeply.", hint=RAW_HINT) from None
    optional = {
        node.node.name
        for node in tree.find_all((nodes.Filter, nodes.Test))
        if node.name in {"default", "d", "defined", "undefined"} and isinstance(node.node, nodes.Name)
    }
    return outside, outside & optional


def _refuse(template: str, missing: list[str], available: set[str]) -> NoReturn:
    lines = [_line_with(template, name) for name in missing]
    where = ", ".join(f"{name!r} (line {line})" if line else repr(name) for name, line in zip(missing, lines, strict=True))
    one = len(missing) == 1
    offered = {name for name in available if not name.startswith("_")}
    hints = [did_you_mean(name, offered, limit=8) for name in missing[:3]]
    raise TemplateError(
        f"The template uses {where}, and there {'is no such variable' if one else 'are no such variables'}. Nothing was sent.",
        hint=" ".join(dict.fromkeys(filter(None, (*hints, "Define it first, or use --raw to send the text as it is.")))),
    )


def _line_with(template: str, name: str) -> int | None:
    """Return the first line where a tag holds the name."""
    for tag in re.finditer(r"\{[{%]", template):
        end = template.find("}", tag.end())
        inside = template[tag.end() : end if end >= 0 else len(template)]
        if match := re.search(rf"\b{re.escape(name)}\b", inside):
            return template.count("\n", 0, tag.end() + match.start()) + 1
    return None


def _syntax(error: TemplateSyntaxError, template: str) -> NoReturn:
    lines = template.splitlines()
    line = error.lineno
    shown = lines[line - 1].strip()[:80] if 0 < line <= len(lines) else ""
    raise TemplateError(
        f"Line {line} of the template is no valid {{{{ }}}} or {{% %}} tag: {error.message}" + (f"\n    {shown}" if shown else ""),
        hint=RAW_HINT,
    ) from None


def _rendered(environment: Environment, template: str, values: Mapping[str, Any]) -> str:
    from nbllm.core.template_sandbox import Limit, limits

    try:
        compiled = environment.from_string(template)
        with limits():
            return "".join(_within(compiled.generate(dict(values))))
    except Limit as error:
        raise TemplateError(f"{error}. Nothing was sent.", hint="Shorten the loop or the text.") from None
    except Exception as error:
        line = _line_of(error)
        place = f" (line {line})" if line else ""
        problem = str(error).rstrip(".") or type(error).__name__
        raise TemplateError(f"The template cannot be filled in{place}: {problem}.", hint=RAW_HINT) from error


def _within(pieces: Iterator[str]) -> Iterator[str]:
    """Yield the pieces while size and time allow."""
    from nbllm.core.template_sandbox import Limit, step

    total = 0
    for piece in pieces:
        step()
        total += len(piece)
        if total > MAX_CHARS:
            raise Limit(f"The filled-in template is longer than {MAX_CHARS // 2**20} MB")
        yield piece


def _line_of(error: BaseException) -> int | None:
    """Return the template's line in which an error was raised."""
    line, at = None, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == "<template>":
            line = at.tb_lineno
        at = at.tb_next
    return line
