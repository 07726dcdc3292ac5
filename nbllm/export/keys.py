"""Literal keys in cells: nothing that looks like one goes into an export."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nbllm.export.lexer import Code
from nbllm.export.refusals import Refusal
from nbllm.export.rewriting import comments_of
from nbllm.redaction import redact

_WITH_DEFAULT = {"get", "getenv", "setdefault", "pop"}
"""Functions whose second argument stands in for what their first one names."""


def key_refusals(number: int, code: Code, body: str) -> list[Refusal]:
    """Refuse literal keys: in texts, behind names that say so, in comments and in prompts."""
    lines: set[int] = set()
    if code.tree is not None:
        for node in ast.walk(code.tree):
            lines |= {line for line, text in _texts(node) if redact(text) != text}
        lines |= {line for line, text in comments_of(code.python) if redact(text) != text}
    if code.cell_magic is not None:
        first = code.cell_magic.line
        texts = [code.cell_magic.text, *body.split("\n")]
        lines |= {first + number for number, text in enumerate(texts) if redact(text) != text}
        lines |= {first} if not lines and redact(body) != body else set()
    return [
        Refusal(kind="literal key", cell=number, line=line, reason="it holds what looks like a key",
                todo='Read it from the environment, such as os.environ["LAB_KEY"], and make the old key invalid')
        for line in sorted(lines)
    ]  # fmt: skip


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what in a node may be a key: texts as they are, and behind the names that they are given to."""
    named: list[tuple[str, ast.expr | None]] = []
    match node:
        case ast.Constant():
            yield node.lineno, _as_text(node) or ""
        case ast.keyword(arg=str(name)):
            named = [(name, node.value)]
        case ast.Assign(targets=targets):
            named = [(ast.unparse(t.slice if isinstance(t, ast.Subscript) else t).strip("'"), node.value) for t in targets]
        case ast.AnnAssign(target=target):
            named = [(ast.unparse(target), node.value)]
        case ast.Dict(keys=keys, values=values):
            named = [(_as_text(key) or "", value) for key, value in zip(keys, values, strict=True) if key is not None]
        case ast.Call(func=ast.Attribute(attr=method) | ast.Name(id=method), args=[ast.Constant(value=str(name)), *rest]):
            # What stands in for a variable that is not set: os.environ.get("API_KEY", "...").
            named = [(name, k.value) for k in node.keywords if k.arg == "default"] if method in _WITH_DEFAULT else []
            named += [(name, rest[0])] if rest and method in _WITH_DEFAULT else []
        case ast.arguments():
            plain = [*node.posonlyargs, *node.args][::-1]
            named = [(parameter.arg, default) for parameter, default in zip(plain, node.defaults[::-1], strict=False)]
            named += [(parameter.arg, default) for parameter, default in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
    for name, value in named:
        for one in _choices(value):
            text = _as_text(one)
            if text is not None:
                yield one.lineno, f'{name}="{text}"'


def _choices(value: ast.expr | None) -> Iterator[ast.expr]:
    """Yield what an expression may come to: both sides of an `or`, of an `if`."""
    match value:
        case ast.BoolOp(values=several):
            for one in several:
                yield from _choices(one)
        case ast.IfExp(body=body, orelse=other):
            yield from (*_choices(body), *_choices(other))
        case ast.expr():
            yield value


def _as_text(node: ast.expr | None) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else None
