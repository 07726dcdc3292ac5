"""Changes to the user's text, each checked on the syntax tree: statements cut out, answers of %%llm cells called.

Nothing is trusted that was not parsed again: when the tree is not what it should be, the text is not changed.
"""

# ruff: noqa: N815 - ast finds a visitor by the name of its node

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection

from nbllm.export import scopes as sc


def without(source: str, nodes: Collection[ast.stmt]) -> tuple[str, dict[int, str]] | None:
    """Return the text without some of its top-level statements, and the comments that stood behind them, by line.

    None when it cannot be cut cleanly.
    """
    if not nodes:
        return source, {}
    lines = [line.encode() for line in source.split("\n")]
    comments: dict[int, str] = {}
    for node in sorted(nodes, key=lambda n: (n.lineno, n.col_offset), reverse=True):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        behind = after.strip()
        if not before.strip() and (not behind or behind.startswith(b"#")):
            if behind:
                comments[node.lineno] = behind.decode()
            del lines[first : last + 1]
            continue
        if behind.startswith(b";"):
            after = behind[1:].lstrip()
        elif before.rstrip().endswith(b";"):
            before = before.rstrip()[:-1].rstrip()
            after = b"  " + behind if behind else b""
        lines[first : last + 1] = [before + after]
    text = b"\n".join(lines).decode()
    cut = {(node.lineno, node.col_offset) for node in nodes}
    wanted = [node for node in ast.parse(source).body if (node.lineno, node.col_offset) not in cut]
    return (text, comments) if _same(text, wanted) else None


def _same(text: str, wanted: list[ast.stmt]) -> bool:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return ast.dump(tree) == ast.dump(ast.Module(body=wanted, type_ignores=[]))


class _Calls(ast.NodeTransformer):
    """Turns global reads of some names into calls, scope by scope, and notes where they stand."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._scopes = [sc.Scope("module")]
        self._in_text: ast.AST | None = None
        self.places: list[ast.Name] = []
        self.texts: list[ast.AST] = []
        self.in_async: list[ast.Name] = []
        self._async = False

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._names or not isinstance(node.ctx, ast.Load) or not sc.is_global(node.id, self._scopes):
            return node
        if self._in_text is not None:
            if self._in_text not in self.texts:
                self.texts.append(self._in_text)
        else:
            self.places.append(node)
        if self._async:
            self.in_async.append(node)
        return ast.Call(func=node, args=[], keywords=[])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        outer, self._in_text = self._in_text, self._in_text or node
        self.generic_visit(node)
        self._in_text = outer
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> ast.AST:
        scope = sc.function_scope(node)
        if isinstance(node, ast.Lambda):
            node.args = self.visit(node.args)
            self._scopes.append(scope)
            node.body = self.visit(node.body)
            self._scopes.pop()
            return node
        node.decorator_list = [self.visit(part) for part in node.decorator_list]
        node.args = self.visit(node.args)
        outer, self._async = self._async, isinstance(node, ast.AsyncFunctionDef)
        self._scopes.append(scope)
        node.body = [self.visit(part) for part in node.body]
        self._scopes.pop()
        self._async = outer
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(part) for part in node.decorator_list]
        self._scopes.append(sc.body_scope("class", node.body))
        node.body = [self.visit(part) for part in node.body]
        self._scopes.pop()
        return node

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> ast.AST:
        node.generators[0].iter = self.visit(node.generators[0].iter)
        self._scopes.append(sc.comprehension_scope(node.generators))
        for number, generator in enumerate(node.generators):
            if number:
                generator.iter = self.visit(generator.iter)
            generator.ifs = [self.visit(test) for test in generator.ifs]
        if isinstance(node, ast.DictComp):
            node.key, node.value = self.visit(node.key), self.visit(node.value)
        else:
            node.elt = self.visit(node.elt)
        self._scopes.pop()
        return node

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension


def with_calls(source: str, names: Collection[str]) -> tuple[str | None, list[int]]:
    """Return the text with every global read of the names as a call (`facts` becomes `facts()`), and the lines of async code there.

    The text is None when a place cannot be changed for certain (odd f-strings).
    """
    calls = _Calls(names)
    wanted = ast.dump(calls.visit(ast.parse(source)))
    lines = [line.encode() for line in source.split("\n")]
    edits = [(n.end_lineno or n.lineno, n.end_col_offset or 0) for n in calls.places]
    edits += _edits_in_texts(source, calls.texts, names)
    for line, column in sorted(set(edits), reverse=True):
        lines[line - 1] = lines[line - 1][:column] + b"()" + lines[line - 1][column:]
    text = b"\n".join(lines).decode()
    try:
        good = ast.dump(ast.parse(text)) == wanted
    except (SyntaxError, ValueError):
        good = False
    return (text if good else None), sorted({node.lineno for node in calls.in_async})


def _edits_in_texts(source: str, texts: Collection[ast.AST], names: Collection[str]) -> list[tuple[int, int]]:
    """Return where the names end inside the braces of f-strings; Python 3.11 does not say where in them a name stands."""
    spans = [(_start(t), _end(t)) for t in texts]
    pattern = re.compile(rf"(?<![\w.'\"])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w(=])")
    lines = source.split("\n")
    edits: list[tuple[int, int]] = []
    for start, end in spans:
        depth = 0
        for number in range(start[0], end[0] + 1):
            line = lines[number - 1]
            low = len(line.encode()[: start[1]].decode()) if number == start[0] else 0
            high = len(line.encode()[: end[1]].decode()) if number == end[0] else len(line)
            at = low
            while at < high:
                if line.startswith(("{{", "}}"), at) and not depth:
                    at += 2
                    continue
                depth += (line[at] == "{") - (line[at] == "}")
                if depth > 0 and (match := pattern.match(line, at)):
                    edits.append((number, len(line[: match.end()].encode())))
                    at = match.end()
                    continue
                at += 1
    return edits


def _start(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 1), getattr(node, "col_offset", 0)


def _end(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "end_lineno", 1), getattr(node, "end_col_offset", 0)


def comments_of(source: str) -> list[tuple[int, str]]:
    """Return (line, text) of every comment of a text that parses."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]
