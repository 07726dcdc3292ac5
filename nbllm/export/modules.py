"""Where a flow's imports come from: the standard library, distributions that are installed here, modules beside the notebook."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

from nbllm.export.cells import Cell
from nbllm.export.imports import imported
from nbllm.export.keys import key_refusals
from nbllm.export.lexer import Code, read_code
from nbllm.export.module_checks import module_notes, module_refusals
from nbllm.export.refusals import Refusal
from nbllm.settings.suggest import nearest

TAKEN = frozenset({"app", "flows", "tests", "nbllm"})
"""Names of modules that an export has itself."""
_COMPILED = {".so", ".pyd", ".dylib", ".dll", ".pyx"}
_MOST_MODULE_BYTES = 1_000_000
_NO_MODULE = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


@dataclass(frozen=True, slots=True)
class Origins:
    """What a flow imports. distributions: canonical names of those that provide it. local: path in the export -> bytes. notes: what
    a person should know of modules that are copied.
    """

    distributions: frozenset[str] = frozenset()
    local: Mapping[str, bytes] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def local_modules(self) -> frozenset[str]:
        """The top names of the modules that are copied."""
        return frozenset(path.partition("/")[0].removesuffix(".py") for path in self.local)


def origins(flows: str, cells: Sequence[Cell], folder: Path | None) -> Origins:
    """Return where the imports of a module's text come from, those of copied modules included.

    cells: of the notebook, to say where an import stands. folder: the notebook's; None: no module is local.
    """
    finder = _Finder(folder, _places(cells))
    finder.read(flows, "flows.py")
    return Origins(frozenset(finder.distributions), dict(sorted(finder.local.items())), tuple(finder.refusals), tuple(finder.notes))


def _places(cells: Sequence[Cell]) -> Mapping[str, tuple[int, int]]:
    """Return where modules are imported first: full name -> cell and line."""
    found: dict[str, tuple[int, int]] = {}
    for cell in cells:
        if cell.kind != "code" or cell.left_out:
            continue
        for node in read_code(cell.source).nodes():
            if isinstance(node, ast.Import | ast.ImportFrom):
                for one in imported(node):
                    found.setdefault(one.module, (cell.number, node.lineno))
    return found


class _Finder:
    """Follows imports from the flow's module into the modules beside the notebook."""

    def __init__(self, folder: Path | None, places: Mapping[str, tuple[int, int]]) -> None:
        self._folder = folder
        self._places = places
        self.distributions: set[str] = set()
        self.local: dict[str, bytes] = {}
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        self._seen: set[str] = set()

    def read(self, text: str, path: str) -> None:
        """Follow every import of a module's text. path: within the export; relative imports stay within its package."""
        nodes = list(ast.walk(ast.parse(text)))
        optional = {id(inner) for node in nodes if isinstance(node, ast.Try) for inner in _tried_imports(node)}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
                for one in imported(node):
                    self._follow(one.module, one.name, path, node.lineno, optional=id(node) in optional)

    def _follow(self, module: str, name: str, path: str, line: int, *, optional: bool) -> None:
        top = module.partition(".")[0]
        where = f"{module}.{name}" if name else module
        if where in self._seen:
            return
        self._seen.add(where)
        beside = self._beside(top)
        if top in sys.stdlib_module_names:
            if beside is not None:
                self._refuse(
                    module, path, line, f"{beside.name} beside the notebook stands in the way of Python's own {top}", "Rename it"
                )
        elif top == "nbllm":
            return
        elif beside is not None:
            self._copy(top, beside, module, path, line)
        else:
            self._installed(module, name, path, line, optional=optional)

    def _beside(self, top: str) -> Path | None:
        """Return the module of that name beside the notebook, None without one; a mere folder gives way to what is installed."""
        if self._folder is None:
            return None
        package, single = self._folder / top, self._folder / f"{top}.py"
        if (package / "__init__.py").is_file():
            return package
        if single.is_file():
            return single
        bare = package.is_dir() and any(package.glob("*.py")) and top not in self._by_module
        return package if bare else None

    def _copy(self, top: str, found: Path, module: str, path: str, line: int) -> None:
        if top in TAKEN:
            self._refuse(
                module, path, line, f"the module {top} beside the notebook has a name that the export needs itself", "Rename it"
            )
            return
        files = [found] if found.is_file() else sorted(p for p in found.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        compiled = [p.name for p in files if p.suffix in _COMPILED]
        if compiled:
            self._refuse(module, path, line, f"the module {top} beside the notebook holds compiled code ({compiled[0]})",
                         "Make a package of it that can be installed")  # fmt: skip
            return
        for file in files:
            if file.suffix == ".py":
                self._copy_file(file, module, path, line)

    def _copy_file(self, file: Path, module: str, path: str, line: int) -> None:
        assert self._folder is not None  # noqa: S101 - a module was found in it
        inside = file.relative_to(self._folder).as_posix()
        if inside in self.local:
            return
        if file.is_symlink() or file.stat().st_size > _MOST_MODULE_BYTES:
            self._refuse(module, path, line, f"{inside} is a link, or larger than 1 MB", "Put a plain file there")
            return
        try:
            data = file.read_bytes()
            text = data.decode("utf-8")
            tree = ast.parse(text)
        except (OSError, ValueError, SyntaxError, RecursionError) as error:
            self._refuse(module, path, line, f"{inside} cannot be read as Python: {type(error).__name__}", "Repair it")
            return
        for key in key_refusals(0, Code(text, tree), ""):
            self._refuse(
                module, path, line, f"{inside}, line {key.line}, holds what looks like a key", key.todo, kind="literal key"
            )
        self.refusals += module_refusals(inside, tree)
        self.notes += module_notes(inside, tree)
        self.local[inside] = data
        self.read(text, inside)

    def _installed(self, module: str, name: str, path: str, line: int, *, optional: bool) -> None:
        top = module.partition(".")[0]
        names = sorted(set(self._by_module.get(top, ())))
        if len(names) > 1:  # several share a namespace: those that hold the module
            narrow = [n for n in names if _holds(n, module, name)]
            names = narrow or names
        if not names and optional:
            return  # the code does without it here, and so it does there
        if not names:
            meant = nearest(top, self._by_module, cutoff=0.8)
            hint = f"Did you mean {meant}?" if meant else "Install it here, or put the module beside the notebook"
            self._refuse(module, path, line, f"the module {top} is neither installed here nor beside the notebook", hint)
        for one in names:
            if _from_a_folder(one):
                self._refuse(module, path, line, f"{one} is installed from a folder or a repository, and no index has it",
                             "Put the module beside the notebook, or install a release of it")  # fmt: skip
            else:
                self.distributions.add(one)

    @cached_property
    def _by_module(self) -> Mapping[str, Sequence[str]]:
        from packaging.utils import canonicalize_name

        found: defaultdict[str, list[str]] = defaultdict(list)
        for top, names in metadata.packages_distributions().items():
            found[top] += [canonicalize_name(name) for name in names]
        return dict(found)

    def _refuse(self, module: str, path: str, line: int, reason: str, todo: str, *, kind: str = "module") -> None:
        cell, at = self._places.get(module, (None, None)) if path == "flows.py" else (None, None)
        beside = "" if path == "flows.py" else f" (imported by {path}, line {line})"
        self.refusals.append(Refusal(kind=kind, cell=cell, line=at, reason=f"{reason}{beside}", todo=todo))


def _tried_imports(node: ast.Try) -> Iterator[ast.AST]:
    """Yield what is in a try that goes on without a module that is not there."""
    caught = [n for h in node.handlers for n in ([h.type] if not isinstance(h.type, ast.Tuple) else h.type.elts)]
    if any(n is None or (isinstance(n, ast.Name) and n.id in _NO_MODULE) for n in caught):
        for statement in node.body:
            yield from ast.walk(statement)


def _holds(distribution: str, module: str, name: str) -> bool:
    """Whether a distribution has files of a module, or of `name` in it."""
    places = {module.replace(".", "/")} | ({f"{module}.{name}".replace(".", "/")} if name else set())
    return any(str(file).startswith((f"{place}/", f"{place}.")) for file in _files(distribution) for place in places)


def _files(distribution: str) -> Iterator[object]:
    yield from metadata.distribution(distribution).files or ()


def _from_a_folder(distribution: str) -> bool:
    """Whether it was installed from a path or a repository (PEP 610), so that name and version do not lead to it."""
    text = metadata.distribution(distribution).read_text("direct_url.json")
    return text is not None
