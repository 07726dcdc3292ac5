"""Which models and routes the calls in a module's text can name."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nbllm.export.checks import asks
from nbllm.export.imports import imported

_MOST_CHARS = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What a module says of models.

    texts: every text in it. calls: whether a call that asks can be seen. all_named: each call names its model. hidden: a call
    takes a model or options from a value that cannot be seen here, so that it may be any.
    """

    texts: frozenset[str]
    calls: bool
    all_named: bool
    hidden: bool

    def models(self, names: Collection[str]) -> set[str]:
        """Return the texts that are model ids of these endpoints and providers."""
        return {t for t in self.texts if is_model_id(t) and t.partition("/")[0] in names}


def is_model_id(text: str) -> bool:
    """Whether a text may be `<endpoint or provider>/<model>`."""
    return "/" in text and len(text) < _MOST_CHARS and not re.search(r"\s", text)


def asked(flows: str) -> Asked:
    """Read a module's text."""
    tree = ast.parse(flows)
    nodes = list(ast.walk(tree))
    texts = frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    imports = {one.bound: one.stands_for for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for one in imported(n)}
    calls = [n for n in nodes if isinstance(n, ast.Call) and asks(n, imports)]
    given = [k for call in calls for k in call.keywords if k.arg in {"model", None}]
    named = [k.value for k in given if k.arg == "model"]
    constants = _constants(tree)
    hidden = len(named) < len(given) or any(not _is_visible(value, constants) for value in named)
    return Asked(texts, bool(calls), bool(calls) and len(named) == len(calls), hidden)


def _constants(tree: ast.Module) -> set[str]:
    """Return the names that a module binds once, at its top, to texts that can be seen."""
    bound = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    tops: Iterable[ast.Assign] = (s for s in tree.body if isinstance(s, ast.Assign))
    return {
        t.id for s in tops for t in s.targets if isinstance(t, ast.Name) and bound.count(t.id) == 1 and _is_visible(s.value, set())
    }


def _is_visible(value: ast.expr, constants: set[str]) -> bool:
    match value:
        case ast.Constant():
            return True
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return all(_is_visible(item, constants) for item in items)
        case ast.Name(id=name):
            return name in constants
    return False
