"""Importing a module as a container does whose root is read-only: what it writes into its own folder is refused, or noted.

Containers of an export have two places to write to, the folder for temporary files and the home of nbllm. Runs in the clean process
of a proof.
"""

from __future__ import annotations

import ast
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {"os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
           "os.truncate": (0,)}  # fmt: skip
"""Audit events of what changes a file system -> which of their arguments are paths that change."""
_SYSTEM = ("/dev/", "/proc/", "/sys/")
AT_EACH_START = "each time when the service starts"


def write_problem(path: str, place: str) -> str:
    """Return the sentence on a file that an import writes. place: " (line 3 of the module)", or a file and line."""
    inside = place.startswith(" (")
    who, where = ("It", place) if inside or not place else (place, "")
    return f"{who} writes {path!r:.120} {AT_EACH_START}, and the folder of its container is read-only{where}"


class ReadOnly:
    """While it is entered, writes outside of the folders for temporary files and the home are noted, and fail if `strict`.

    module: the path of the module that is imported; its folder can never be written to, nor can the working directory. home: a
    folder that can. written: a sentence for each path, with the line of the module, or of a file beside it, that wrote it.
    """

    def __init__(self, module: Path, home: Path, *, strict: bool) -> None:
        self._module = str(module)
        self._folder = module.parent
        self._denied = [f"{os.path.realpath(one)}{os.sep}" for one in (module.parent, Path.cwd())]
        self._allowed = [f"{os.path.realpath(one)}{os.sep}" for one in (tempfile.gettempdir(), sys.prefix, sys.base_prefix)]
        self._home = f"{os.path.realpath(home)}{os.sep}"
        self._strict = strict
        self._active = False
        self._before = set(self._files())
        self.written: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._active = True
        sys.addaudithook(self._hook)  # there is no taking it back: the process ends soon
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._active = False

    def left(self) -> Iterator[str]:
        """Yield a sentence for each file that came into the module's folder unseen: from below Python."""
        for path in sorted(set(self._files()) - self._before - self.written.keys()):
            yield write_problem(path, self._line_that_names(Path(path).name))

    def _files(self) -> Iterator[str]:
        every = (one for one in self._folder.rglob("*") if one.is_file() and one.suffix != ".pyc")
        yield from (one.relative_to(self._folder).as_posix() for one in every)

    def _line_that_names(self, name: str) -> str:
        tree = ast.parse(Path(self._module).read_text(encoding="utf-8"))
        texts = ((n.lineno, n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant))
        return next((f" (line {line} of the module)" for line, text in texts if isinstance(text, str) and text.endswith(name)), "")

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            self._changes(args[0] if isinstance(args[2], int) and args[2] & _WRITING else None, event)
        elif event in _EVENTS:
            for number in _EVENTS[event]:
                self._changes(args[number], event)

    def _changes(self, path: Any, event: str) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor, which was opened before
        place = os.path.realpath(os.fsdecode(path))
        if self._may_change(place, event):
            return
        told = self._told(place)
        self.written.setdefault(told, write_problem(told, self._line_of(sys._getframe())))  # noqa: SLF001 - there is no other way
        if self._strict:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    def _may_change(self, place: str, event: str) -> bool:
        if place == os.devnull or place.startswith(_SYSTEM) or "__pycache__" in Path(place).parts:
            return True  # Python does without its own cache
        if event == "os.mkdir" and Path(place).exists():
            return True  # it fails as it always does
        if event in {"os.remove", "os.rmdir"} and not os.path.lexists(place):
            return True
        inside = f"{place}{os.sep}"
        if inside.startswith(self._home):
            return True
        if any(inside.startswith(folder) for folder in self._denied):
            return False
        return any(inside.startswith(folder) for folder in self._allowed)

    def _told(self, place: str) -> str:
        """Return a path as the code may have it: from the working directory, else from the module's folder."""
        for folder in reversed(self._denied):
            if place.startswith(folder):
                return place.removeprefix(folder).replace(os.sep, "/")
        return place

    def _line_of(self, frame: FrameType | None) -> str:
        """Return which line of the user's code is running: of the module, or of a file that was copied beside it."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self._module:
                return f" (line {frame.f_lineno} of the module)"
            if name.startswith(f"{self._folder}{os.sep}"):
                return f"{Path(name).relative_to(self._folder).as_posix()}, line {frame.f_lineno},"
            frame = frame.f_back
        return ""
