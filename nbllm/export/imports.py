"""Imports of the notebook, one name at a time: which module each is of, and how they stand at the top of a file."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

_WIDTH = 88


@dataclass(frozen=True, slots=True, order=True)
class Imported:
    """One imported name: `import module [as asname]` (name is "") or `from module import name [as asname]`."""

    module: str
    name: str = ""
    asname: str = ""
    level: int = 0

    @property
    def bound(self) -> str:
        """The name that it binds."""
        return self.asname or self.name or self.module.partition(".")[0]

    @property
    def stands_for(self) -> str:
        """What the bound name is, in full: `numpy`, `nbllm.ask`; of `import a.b` the bound name is `a`."""
        if self.name:
            return f"{self.module}.{self.name}"
        return self.module if self.asname else self.bound


def imported(node: ast.stmt | None) -> list[Imported]:
    """Return what an import statement imports, [] for other statements."""
    if isinstance(node, ast.Import):
        return [Imported(a.name, asname=a.asname or "") for a in node.names]
    if isinstance(node, ast.ImportFrom):
        return [Imported(node.module or "", a.name, a.asname or "", node.level) for a in node.names]
    return []


def full_name(node: ast.AST, imports: Mapping[str, str]) -> str:
    """Return what an expression names in full, such as `sqlite3.connect`; a plain name that is not imported is itself, else ""."""
    if isinstance(node, ast.Name):
        return imports.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (inner := full_name(node.value, imports)):
        return f"{inner}.{node.attr}"
    return ""


def import_block(wanted: Iterable[Imported], comments: Mapping[Imported, str], local: Collection[str] = ()) -> str:
    """Return the imports as text: sections __future__, standard library, others, `local` modules; sorted as isort does."""
    sections: dict[int, set[Imported]] = defaultdict(set)
    for one in wanted:
        sections[_section(one, local)].add(one)
    return "\n".join(_section_text(sections[number], comments) for number in sorted(sections))


def _section(one: Imported, local: Collection[str]) -> int:
    top = one.module.partition(".")[0]
    if top == "__future__":
        return 0
    return 3 if top in local else 1 if top in sys.stdlib_module_names else 2


def _section_text(section: Collection[Imported], comments: Mapping[Imported, str]) -> str:
    lines: list[str] = []
    for one in sorted((i for i in section if not i.name), key=lambda i: (_folded(i.module), i.asname)):
        comment = f"  {comments[one]}" if one in comments else ""
        lines.append(f"import {one.module}{f' as {one.asname}' if one.asname else ''}{comment}\n")
    by_module: dict[str, list[Imported]] = defaultdict(list)
    for one in section:
        if one.name:
            by_module[one.module].append(one)
    for module in sorted(by_module, key=_folded):
        plain = sorted((i for i in by_module[module] if not i.asname), key=lambda i: _member(i.name))
        renamed = sorted((i for i in by_module[module] if i.asname), key=lambda i: (_member(i.name), i.asname))
        groups = [plain] if plain else []
        groups += [[one] for one in renamed]
        for group in sorted(groups, key=lambda g: _member(g[0].name)):
            lines.append(_from_text(module, group, comments))  # noqa: PERF401 - it reads better so
    return "".join(lines)


def _from_text(module: str, group: Sequence[Imported], comments: Mapping[Imported, str]) -> str:
    members = [i.name + (f" as {i.asname}" if i.asname else "") for i in group]
    said = list(dict.fromkeys(comments[i] for i in group if i in comments))
    line = f"from {module} import {', '.join(members)}"
    if len(group) == 1 and len(said) == 1:
        return f"{line}  {said[0]}\n"
    above = "".join(f"{comment}\n" for comment in said)
    if len(line) <= _WIDTH:
        return f"{above}{line}\n"
    return f"{above}from {module} import (\n{''.join(f'    {member},{chr(10)}' for member in members)})\n"


def _folded(name: str) -> tuple[str, str]:
    return name.casefold(), name


def _member(name: str) -> tuple[int, str, str]:
    """Constants, then classes, then the rest, as isort's order-by-type has it."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name.casefold(), name
