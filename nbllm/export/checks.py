"""What of a kept cell cannot go into a module that a service imports. Each function returns refusals; none decides alone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nbllm.export.imports import full_name, imported
from nbllm.export.lexer import Code, Magic
from nbllm.export.magic_settings import NAMES as MAGICS_OF_SETTINGS
from nbllm.export.names import Definition, root_of
from nbllm.export.refusals import Refusal

DROPPED = {"load_ext", "reload_ext", "unload_ext", "matplotlib", "autoreload", "precision", "colors"} | MAGICS_OF_SETTINGS
"""Magics that only change how the notebook looks or loads, or whose settings travel: left out of the module without a word."""
_ASKS = {f"nbllm.{name}" for name in ("ask", "aask", "stream", "astream", "embed", "aembed")}
_ASKING_METHODS = {"ask", "aask", "astream", "embed", "aembed"}
_WRAPPERS = {"nbllm.flow", "functools.partial", "functools.wraps", "functools.lru_cache", "functools.cache", "partial", "callable"}
_OPENED = {
    "open", "io.open", "sqlite3.connect", "socket.socket", "socket.create_connection", "requests.Session", "requests.session",
    "httpx.Client", "httpx.AsyncClient", "aiohttp.ClientSession", "psycopg.connect", "psycopg2.connect", "pymysql.connect",
    "duckdb.connect", "redis.Redis", "redis.StrictRedis", "redis.from_url", "redis.Redis.from_url", "pymongo.MongoClient",
    "shelve.open", "zipfile.ZipFile", "tarfile.open", "tempfile.TemporaryFile", "tempfile.NamedTemporaryFile", "h5py.File",
    "subprocess.Popen", "multiprocessing.Pool", "concurrent.futures.ThreadPoolExecutor",
    "concurrent.futures.ProcessPoolExecutor", "threading.Thread", "gzip.open", "bz2.open", "lzma.open", "codecs.open",
}  # fmt: skip
_NOTEBOOK_ONLY = {"get_ipython", "In", "Out", "_", "__", "___", "_i", "_ii", "_iii", "_oh", "_ih", "_dh"}
_NOTEBOOK_MODULES = {"IPython", "ipywidgets", "ipykernel", "google.colab"}


Refuse = Callable[[str, ast.AST, str, str], None]
"""Notes a refusal: kind, node, reason, what to do."""


@dataclass(frozen=True, slots=True)
class World:
    """What the checks know of the whole notebook.

    imports: bound name -> what it stands for in full. rebound: names that cells bind. buys: functions that ask a model when called.
    """

    imports: Mapping[str, str]
    rebound: frozenset[str]
    buys: frozenset[str]

    def name(self, node: ast.AST) -> str:
        """Return what an expression names in full; "" for what the notebook binds itself."""
        root = root_of(node)[0]
        return "" if root in self.rebound and root not in self.imports else full_name(node, self.imports)


def executed_now(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a statement runs: not the bodies of its functions, but those of its classes."""
    todo = [node]
    while todo:
        one = todo.pop()
        yield one
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [*one.decorator_list, *one.args.defaults, *(d for d in one.args.kw_defaults if d)]
        elif isinstance(one, ast.Lambda):
            todo += [*one.args.defaults, *(d for d in one.args.kw_defaults if d)]
        else:
            todo += ast.iter_child_nodes(one)


def asks(call: ast.Call, imports: Mapping[str, str]) -> bool:
    """Whether a call asks a model: one of nbllm's doors, or a client's method of such a name."""
    if full_name(call.func, imports) in _ASKS:
        return True
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _ASKING_METHODS:
        return False
    root = root_of(call.func)[0]
    return root is None or imports.get(root, "nbllm").partition(".")[0] == "nbllm"


def magic_refusals(number: int, code: Code) -> list[Refusal]:
    """Refuse magics, shell lines, help and cell magics."""
    found = [_magic(number, magic) for magic in code.magics if magic.kind != "line" or magic.name not in DROPPED or magic.binds]
    cell = code.cell_magic
    if cell is not None and (cell.name not in {"time", "serve", "capture"} or (cell.name == "capture" and cell.rest)):
        found.append(
            Refusal(kind="cell magic", cell=number, line=cell.line, reason=f"%%{cell.name:.40} is IPython's; a service has none",
                    todo="Write what it does in Python, in a cell of its own")
        )  # fmt: skip
    return found


def _magic(number: int, magic: Magic) -> Refusal:
    if magic.kind == "shell":
        return Refusal(kind="shell", cell=number, line=magic.line, reason=f"{magic.text!r:.60} runs a shell command",
                       todo="Move it to a cell that the flow does not need, or use subprocess inside the flow")  # fmt: skip
    if magic.kind == "line" and magic.name in {"llm", "nbllm"} and magic.binds:
        todo = f"Use a cell that begins with %%llm -o {magic.binds[0]}, or nbllm.ask(...) inside the flow"
    else:
        todo = "Move it to a cell that the flow does not need"
    return Refusal(kind="magic", cell=number, line=magic.line, reason=f"{magic.text!r:.60} is IPython's; a service has none",
                   todo=todo)  # fmt: skip


def code_refusals(number: int, tree: ast.Module, world: World) -> list[Refusal]:
    """Refuse what no module of a service may hold, wherever in the cell it stands."""
    found: list[Refusal] = []

    def refuse(kind: str, node: ast.AST, reason: str, todo: str) -> None:
        found.append(Refusal(kind=kind, cell=number, line=getattr(node, "lineno", None), reason=reason, todo=todo))

    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _call(node, world, refuse)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _import(node, refuse)
        elif (
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and is_notebooks(node.id) and node.id not in world.rebound
        ):
            refuse(
                "notebook only", node, f"{node.id} is the notebook's own, and a service has none", "Keep the value in a variable"
            )
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
            _hidden_store(node, refuse)
    for statement in tree.body:
        _at_start(statement, world, refuse)
    return found


def is_notebooks(name: str) -> bool:
    """Whether a name is one that only a notebook's session has."""
    return name in _NOTEBOOK_ONLY or (name.startswith("_") and name.lstrip("_").lstrip("i").isdigit() and name[1:2] != "_")


def _call(node: ast.Call, world: World, refuse: Refuse) -> None:
    name = world.name(node.func)
    if name in {"input", "getpass.getpass"}:
        refuse("input", node, f"{name}() waits for a person, and a service has none", "Make it a parameter of the flow")
    elif name in {"display", "IPython.display.display", "IPython.core.display.display"}:
        refuse("display", node, "display() shows something in a notebook, and a service has none", "Move it to a cell of its own")
    elif name in {"exec", "eval", "builtins.exec", "builtins.eval"}:
        refuse("exec", node, f"{name}() runs code that nobody can see here", "Write the code out")
    elif name in {"globals", "builtins.globals"}:
        refuse(
            "namespace", node, "globals() reads or writes names that nobody can see here", "Use the names, or a dict of your own"
        )


def _import(node: ast.Import | ast.ImportFrom, refuse: Refuse) -> None:
    if isinstance(node, ast.ImportFrom) and node.level:
        refuse("relative import", node, "a relative import has no package to be relative to", "Import the module by its name")
    for one in imported(node):
        if any(one.module == m or one.module.startswith(f"{m}.") for m in _NOTEBOOK_MODULES):
            refuse("notebook only", node, f"{one.module} belongs to the notebook, and a service has none",
                   "Move what uses it to a cell that the flow does not need")  # fmt: skip


def _hidden_store(node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete, refuse: Refuse) -> None:
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
    for target in (inner for t in targets for inner in ast.walk(t)):
        if isinstance(target, ast.Subscript) and not isinstance(target.ctx, ast.Load) and _hides_names(target.value):
            refuse(
                "namespace", node, "a write into locals() or vars() sets names that nobody can see here", "Use a dict of your own"
            )


def _hides_names(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"locals", "vars"} and not node.args


def _at_start(statement: ast.stmt, world: World, refuse: Refuse) -> None:
    """Refuse what would happen each time when the service starts."""
    if isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test) and "__name__" in ast.unparse(statement.test):
        refuse("namespace", statement, 'what is under `if __name__ == "__main__"` runs in a notebook and not in a service',
               "Take it out of the if")  # fmt: skip
    for call in (n for n in executed_now(statement) if isinstance(n, ast.Call)):
        name = world.name(call.func)
        if name in {"locals", "vars"} and not call.args:
            refuse(
                "namespace", call, f"{name}() outside of a function reads or writes names that nobody can see here", "Use the names"
            )
        if asked := bought(call, world):
            refuse("buys at start", call, f"{asked} would ask a model each time when the service starts",
                   "Move it into the flow, or to a cell of its own that the flow does not need (tag it no-export)")  # fmt: skip
    opened = opened_by(statement, world)
    if opened:
        refuse("open resource", statement, f"{opened}(...) is kept open from the start of the service on",
               "Open it inside the flow, in a with block")  # fmt: skip


def bought(call: ast.Call, world: World) -> str:
    """Return what of a call asks a model, as it stands in the code, "" for nothing."""
    if asks(call, world.imports):
        return f"{ast.unparse(call.func)!s:.60}(...)"
    if isinstance(call.func, ast.Name) and call.func.id in world.buys:
        return f"{call.func.id}(...)"
    if isinstance(call.func, ast.Attribute) and f".{call.func.attr}" in world.buys and root_of(call.func)[0] not in world.imports:
        return f"{ast.unparse(call.func)!s:.60}(...)"
    if world.name(call.func) in _WRAPPERS:
        return ""
    handed = [a.id for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Name) and a.id in world.buys]
    return f"{handed[0]}, handed to {ast.unparse(call.func)!s:.60}(...)," if handed else ""


def opened_by(statement: ast.stmt, world: World) -> str:
    """Return what a statement opens and keeps, such as `sqlite3.connect`, "" for nothing."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return ""
    value = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    for one in value.elts if isinstance(value, ast.Tuple | ast.List) else [value]:
        if isinstance(one, ast.Call):
            name = world.name(one.func)
            if name in _OPENED or (isinstance(one.func, ast.Attribute) and one.func.attr == "open"):
                return name or "open"
    return ""


def buying_names(trees: list[ast.Module], imports: Mapping[str, str]) -> frozenset[str]:
    """Return the functions that ask a model when they are called, also through others; of classes, those that do when made.

    Methods that ask are there with a dot in front.
    """
    called: dict[str, set[str]] = {}
    for statement in (s for tree in trees for s in tree.body):
        bodies: list[ast.AST] = []
        name = ""
        if isinstance(statement, Definition):
            name = statement.name
            makers = {"__init__", "__new__", "__post_init__"}
            bodies = list(statement.body)
            if isinstance(statement, ast.ClassDef):
                methods = [b for b in bodies if isinstance(b, ast.FunctionDef | ast.AsyncFunctionDef)]
                bodies = [b for b in methods if b.name in makers]
                for method in methods:
                    inner = (n for n in ast.walk(method) if isinstance(n, ast.Call))
                    called.setdefault(f".{method.name}", set()).update(
                        "?" if asks(c, imports) else full_name(c.func, imports) for c in inner
                    )
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            bodies = [n for n in ast.walk(statement.value) if isinstance(n, ast.Lambda)]
            made = statement.value
            if isinstance(made, ast.Call) and full_name(made.func, imports) in _WRAPPERS:
                called.setdefault(name, set()).update(a.id for a in made.args if isinstance(a, ast.Name))
        for call in (n for body in bodies for n in ast.walk(body) if isinstance(n, ast.Call)):
            called.setdefault(name, set()).add("?" if asks(call, imports) else full_name(call.func, imports))
    buys = {"?"}
    while more := {name for name, inner in called.items() if name not in buys and inner & buys}:
        buys |= more
    return frozenset(buys - {"?"})
