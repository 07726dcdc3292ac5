"""Which files code reads and writes, as far as their paths can be seen: by the calls that do so, and by texts that name a file."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nbllm.export.imports import full_name, imported
from nbllm.export.path_texts import Naming, PathTexts

_OPENS = {"open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open", "tarfile.open", "zipfile.ZipFile", "h5py.File"}
"""Calls with a path and a mode."""
_READS = {
    "numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile", "numpy.memmap", "joblib.load", "torch.load",
    "sqlite3.connect", "duckdb.connect", "glob.glob", "glob.iglob", "os.listdir", "os.scandir", "os.walk", "os.open",
    "PIL.Image.open", "cv2.imread", "shelve.open", "dotenv.load_dotenv", "linecache.getlines", "fileinput.input",
    "dotenv.dotenv_values", "pyarrow.parquet.read_table", "imageio.imread", "matplotlib.pyplot.imread",
}  # fmt: skip
_READ_GROUPS = ("pandas.read_", "polars.read_", "polars.scan_", "duckdb.read_", "geopandas.read_")
_NO_FILE = {"pandas.read_sql", "pandas.read_sql_query", "pandas.read_sql_table", "pandas.read_clipboard", "pandas.read_gbq"}
_READ_METHODS = {"read_text", "read_bytes", "iterdir", "glob", "rglob"}
_WRITES = {"os.makedirs", "os.mkdir", "numpy.save", "numpy.savez", "numpy.savez_compressed", "numpy.savetxt", "torch.save"}
_WRITE_METHODS = {"write_text", "write_bytes", "mkdir", "touch", "unlink"}
_WRITERS = {"to_csv", "to_excel", "to_parquet", "to_json", "to_pickle", "to_feather", "to_hdf", "to_html", "savefig", "write_csv"}
"""Methods of tables and figures whose first argument is a path."""
_KEYWORDS = (
    "file", "path", "filename", "filepath_or_buffer", "io", "fname", "database", "pathname", "top", "path_or_buf", "source",
    "excel_writer", "name", "dotenv_path", "fp", "f",
)  # fmt: skip
_MODES = frozenset("wax")


@dataclass(frozen=True, slots=True)
class FileRead:
    """What a kept cell does with a file: the cell's number (0: a module beside the notebook, whose path is `module`), and the path
    as the code has it, up to the first part that is not written out.

    how: "reads"; "writes"; "names": a text that is perhaps a path, which only a look into the folder tells. line: in the cell or
    module. later: whether a function does it, when it is called.
    """

    cell: int
    path: str
    line: int = 0
    how: Literal["reads", "writes", "names"] = "reads"
    later: bool = False
    module: str = ""

    @property
    def place(self) -> str:
        """Where it stands: "Cell 3, line 2", or the module's file and line."""
        return f"{self.module or f'Cell {self.cell}'}, line {self.line}"


def file_uses(trees: Sequence[tuple[int, ast.Module]], naming: Naming) -> list[FileRead]:
    """Return what kept cells do with files, each path of a cell once. trees: numbers of cells, and their code."""
    texts = PathTexts([tree for _, tree in trees], naming)
    return list(_each_once(one for number, tree in trees for one in _uses(tree, naming, texts, number, "")))


def file_uses_of_modules(modules: Mapping[str, bytes]) -> list[FileRead]:
    """Return what modules that are copied do with files. modules: their path -> their text."""
    found: list[FileRead] = []
    for path, data in modules.items():
        tree = ast.parse(data)
        imports = {one.bound: one.stands_for for n in ast.walk(tree) if isinstance(n, ast.stmt) for one in imported(n)}

        def naming(node: ast.AST, imports: Mapping[str, str] = imports) -> str:
            return full_name(node, imports)

        found += _uses(tree, naming, PathTexts([tree], naming, path), 0, path)
    return list(_each_once(found))


def _each_once(uses: Iterator[FileRead] | Sequence[FileRead]) -> Iterator[FileRead]:
    """Yield each path of a cell once; one that is read or written is not merely named."""
    every = list(uses)
    sure = {one.path for one in every if one.how != "names"}
    seen: set[tuple[object, ...]] = set()
    for one in every:
        key = (one.cell, one.module, one.path, one.how)
        doubtful = one.how == "names" and one.path in sure
        if key not in seen and not doubtful:
            seen.add(key)
            yield one


def _uses(tree: ast.Module, naming: Naming, texts: PathTexts, cell: int, module: str) -> Iterator[FileRead]:
    later = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
             for inner in ast.walk(node) if inner is not node}  # fmt: skip
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        found: list[tuple[Literal["reads", "writes", "names"], ast.AST | None]] = []
        if isinstance(node, ast.Call):
            found = list(_of_call(node, naming))
        if isinstance(node, ast.Constant | ast.BinOp | ast.JoinedStr | ast.Call) and id(node) not in silent:
            found.append(("names", node))
        for how, value in found:
            for path in filter(None, map(_seen_part, texts.of(value))):
                yield FileRead(cell, path, getattr(node, "lineno", 1), how, id(node) in later, module)


def _of_call(call: ast.Call, naming: Naming) -> Iterator[tuple[Literal["reads", "writes"], ast.AST | None]]:
    """Yield how a call uses which path."""
    name = naming(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    first = call.args[0] if call.args else next((k.value for word in _KEYWORDS for k in call.keywords if k.arg == word), None)
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name in _OPENS:
        yield ("writes" if _writes(call, 1) else "reads"), first
    elif name in _WRITES or method in _WRITERS:
        yield "writes", first
    elif name == "joblib.dump" and len(call.args) > 1:
        yield "writes", call.args[1]
    elif name in _READS or (name.startswith(_READ_GROUPS) and name not in _NO_FILE):
        yield "reads", first
    elif method in _READ_METHODS:
        yield "reads", call if method.endswith("glob") else owner
    elif method in _WRITE_METHODS:
        yield "writes", owner
    elif method == "open":
        yield ("writes" if _writes(call, 0) else "reads"), owner


def _writes(call: ast.Call, position: int) -> bool:
    """Whether the mode of an open says so."""
    given = call.args[position] if len(call.args) > position else next((k.value for k in call.keywords if k.arg == "mode"), None)
    return isinstance(given, ast.Constant) and isinstance(given.value, str) and bool(_MODES & set(given.value))


def _seen_part(path: str) -> str:
    """Return a path up to its first part with a wildcard, or that pattern when nothing stands before it; "" for what is no path."""
    if "://" in path or path.startswith(":") or "\n" in path or "\0" in path or len(path) > 300:
        return ""
    parts = posixpath.normpath(path.replace("\\", "/")).split("/") if path else []
    known = [part for number, part in enumerate(parts) if not any(set("*?[") & set(p) for p in parts[: number + 1])]
    whole = "/".join(known) or (parts[0] if parts and len(parts) == 1 and parts[0].strip("*?") else "")
    return "" if whole in {"", ".", ".."} else whole
