"""How errors of nbllm look in a cell: a few lines instead of sixty frames of ours.

The user's own frames stay, because they say which line of theirs asked. `%tb` shows everything.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from sysconfig import get_path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nbllm.errors import CallFailed, ConfigurationError, NbllmError

if TYPE_CHECKING:
    from nbllm.core.reply import Reply

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_SHELL_PARTS = {"IPython", "ipykernel", "traitlets", "decorator.py", "prompt_toolkit"}
_LIBRARIES = tuple({f"{path}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := get_path(name))})
_STOPPED = "KeyboardInterrupt: the call was stopped; the kernel is ready."
_SHOWN_CAUSES = 12
_RED, _DIM, _OFF = "\x1b[31m", "\x1b[2m", "\x1b[0m"


def attach(error: BaseException, partial: Reply, *, out: str, received: bool) -> None:
    """Note on an error what was kept of the answer, for its message. An interrupt gets a short message of its own."""
    kept = f"A part of the answer had come: its {len(partial.text):,} characters are kept in {out or '_'}." if received else ""
    if isinstance(error, KeyboardInterrupt):
        lines = [_STOPPED, *([f"  {kept}"] if kept else [])]
        # IPython asks an exception for this before it formats one itself.
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
    elif kept:
        error.add_note(kept)


def message_lines(error: NbllmError, width: int = 88) -> list[str]:
    """Return what happened, on which rung, what was spent and what to do, each on lines of its own."""
    from nbllm.notebook import wording
    from nbllm.notebook.call_tables import short_id

    lines = []
    for row in f"{type(error).__name__}: {error.summary}".splitlines():
        indent = row[: len(row) - len(row.lstrip())] + "  "
        lines += textwrap.wrap(row, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    # A summary of several lines names each cause already.
    causes = [] if "\n" in error.summary else _causes(error)
    for cause in causes[:_SHOWN_CAUSES]:
        rung = getattr(cause, "rung", "")
        said = getattr(cause, "summary", None) or str(cause)
        what = f"{rung + ': ' if rung else ''}{type(cause).__name__}: {said}"
        lines += textwrap.wrap(
            textwrap.shorten(what, 400), width, initial_indent="  - ", subsequent_indent="    ", break_long_words=False
        )
    if len(causes) > _SHOWN_CAUSES:
        lines.append(f"  - and {len(causes) - _SHOWN_CAUSES} more")
    for row in error.hint.splitlines():
        lines += textwrap.wrap(
            row, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    if isinstance(error, CallFailed) and error.call_id:
        rung = getattr(error, "rung", "")
        where = f"On {rung}. " if rung and not causes else ""
        spent = "" if " spent" in error.summary else f"Spent: {wording.usd(error.spent_usd)}. "
        lines.append(f"  {where}{spent}%llm_calls {short_id(error.call_id)} shows the call.")
    lines += [f"  {server}" for server in _servers(error, "\n".join([*lines, getattr(error, "rung", "")]))]
    lines += [f"  {note}" for note in getattr(error, "__notes__", [])]
    return lines


def _servers(error: NbllmError, text: str) -> list[str]:
    """Return what is wrong with those servers of this session whose models a text names, and which of them were never started."""
    engines = sys.modules.get("nbllm.engines.engine")  # not loaded: none was started
    known = {} if engines is None else {engine.name: engine.state for engine in engines.running()}
    said = [
        f"{name} {'has ended' if state == 'ended' else f'is {state}'}: %serve status says more."
        for name, state in known.items()
        if state != "ready" and _names(text, name)
    ]
    if isinstance(error, ConfigurationError):  # after a restart of the kernel, say
        from nbllm.engines.catalog import ENGINES

        said += [
            f"No server {kind.endpoint} runs in this session: %serve start {name} MODEL starts one."
            for name, kind in ENGINES.items()
            if kind.endpoint not in known and _names(text, kind.endpoint)
        ]
    return said


def _names(text: str, endpoint: str) -> bool:
    """Whether a text names a model of an endpoint."""
    return re.search(rf"(?<![\w./-]){re.escape(endpoint)}/", text) is not None


def _causes(error: BaseException) -> list[Exception]:
    """Return the leaves of a group, in order."""
    if not isinstance(error, BaseExceptionGroup):
        return []
    found: list[Exception] = []
    for inner in error.exceptions:
        found += _causes(inner) or ([inner] if isinstance(inner, Exception) else [])
    return found


def _ours(filename: str) -> bool:
    return filename.startswith(_PACKAGE)


def _users_frames(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, function) of the user's frames: ours, the shell's, and those of libraries below ours are left out."""
    below_ours = False
    while trace is not None:
        code = trace.tb_frame.f_code
        # A dataclass of ours has an __init__ without a file, and our module's names.
        if _ours(code.co_filename) or str(trace.tb_frame.f_globals.get("__name__")).startswith("nbllm."):
            below_ours = True
        elif _SHELL_PARTS.isdisjoint(Path(code.co_filename).parts) and not (below_ours and _library(code.co_filename)):
            below_ours = False
            yield code.co_filename, trace.tb_lineno, code.co_name
        trace = trace.tb_next


def _library(filename: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return filename.startswith(_LIBRARIES)


def within_ours(trace: TracebackType | None) -> bool:
    """Whether it was nbllm, and no code of the user's that nbllm had called (a flow's), that was running."""
    within = False
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        within = _ours(filename) or (within and _library(filename))
        trace = trace.tb_next
    return within


def traceback_lines(
    error: BaseException, trace: TracebackType | None, *, cell_name: Callable[[str], str], colour: bool
) -> list[str]:
    """Return the lines that a cell shows for an error of nbllm, or for an interrupt of one of its calls."""
    red, dim, off = (_RED, _DIM, _OFF) if colour else ("", "", "")
    lines = []
    for filename, number, function in _users_frames(trace):
        source = linecache.getline(filename, number).strip()
        if source.startswith("get_ipython().run_"):  # a magic as IPython rewrites it: the cell itself is in sight
            continue
        within = "" if function.startswith("<") else f", in {function}"
        lines += [f"{dim}{cell_name(filename)}, line {number}{within}{off}", f"    {source}"]
    first, *others = message_lines(error) if isinstance(error, NbllmError) else [_STOPPED]
    name, colon, rest = first.partition(":")
    return [*lines, f"{red}{name}{off}{colon}{rest}", *others]


def _cell_namer(shell: Any) -> Callable[[str], str]:
    def name(filename: str) -> str:
        format_name = getattr(shell.compile, "format_code_name", None)
        found = format_name(filename) if format_name else None
        return " ".join(found) if found else filename

    return name


class Hook:
    """Shows errors of nbllm, and interrupts of its calls, in short for a shell, and gives the shell back as it was.

    set_custom_exc has one place for all extensions: whoever was there before is still asked for their own exceptions.
    IPython's `_render_traceback_` would be neater, but IPython does not ask exception groups for it.
    """

    def __init__(self, shell: Any, *, whole: Callable[[], bool]) -> None:
        self._shell = shell
        self._whole = whole
        self._before = (shell.custom_exceptions, shell.CustomTB if shell.custom_exceptions else None)
        shell.set_custom_exc((NbllmError, KeyboardInterrupt, *shell.custom_exceptions), self._show)
        self._mine = shell.CustomTB

    def remove(self) -> None:
        """Put back what was there, unless somebody took the place in the meantime."""
        if self._shell.CustomTB is self._mine:
            exceptions, handler = self._before
            self._shell.custom_exceptions = exceptions
            if handler is not None:
                self._shell.CustomTB = handler

    def _show(self, shell: Any, etype: type[BaseException], value: BaseException, trace: Any, tb_offset: Any = None) -> list[str]:
        exceptions, handler = self._before
        sys.last_type, sys.last_value, sys.last_traceback = etype, value, trace  # what %tb and %debug look at
        if not isinstance(value, NbllmError):
            if handler is not None and isinstance(value, exceptions):
                return list(handler(etype, value, trace, tb_offset=tb_offset) or [])
            if hasattr(value, "_render_traceback_") or self._whole() or not within_ours(trace):
                shell.showtraceback((etype, value, trace), tb_offset=tb_offset, running_compiled_code=True)
                return []
        if self._whole():
            import traceback

            lines = "".join(traceback.format_exception(etype, value, trace)).splitlines()
        else:
            colour = str(getattr(shell, "colors", "")).casefold() not in {"nocolor", ""}
            lines = traceback_lines(value, trace, cell_name=_cell_namer(shell), colour=colour)
        shell._showtraceback(etype, value, lines)  # noqa: SLF001 - the one way to show lines that kernels and terminals share
        return lines
