"""`%load_ext nbllm`: registers the magics, completion and the short error messages, and takes all of it back on unload.

Loading sends nothing and opens nothing: the client is made when it is first used, its events loop with the first call.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

from nbllm import __version__
from nbllm.notebook.book_magics import BookMagics
from nbllm.notebook.completion import Completion
from nbllm.notebook.failures import Hook
from nbllm.notebook.lab.bridge import Bridge
from nbllm.notebook.magics import LLMMagics
from nbllm.notebook.manuals import MANUALS
from nbllm.notebook.panel_magics import PanelMagics
from nbllm.notebook.questions import Questions
from nbllm.notebook.serve_magic import ServeMagics
from nbllm.notebook.serve_manual import EXPORT
from nbllm.preparing import PREPARE
from nbllm.settings.llm_manual import LLM

_BOOKS = ("llm_config", "llm_models", "llm_usage", "llm_plot", "llm_calls", "llm_cache", "llm_budget")
_PANELS = ("llm_panel", "llm_why", "llm_label")
_ATTRIBUTE = "_nbllm_extension"


def current_client() -> Any:
    """Return the current client, with recordings switched on where nothing else says what to do with them."""
    from nbllm.current import get_client

    client = get_client()
    _record(client)
    return client


def _record(client: Any) -> None:
    if not client.settings.recordings and client.settings.origin("recordings") == "default":
        client.configure(origin="extension", recordings=True)


def _record_from_the_first_call() -> None:
    """Have what functions ask recorded as well as what magics ask, whichever comes first."""
    PREPARE.append(_record)
    current = sys.modules.get("nbllm.current")  # not imported for this: loading is light
    if current is not None and (client := current.client_if_any()) is not None:
        _record(client)


def _client() -> Any:
    return current_client()


@dataclass(slots=True)
class Loaded:
    """What an extension put into a shell, so that it can be taken out again."""

    shell: Any
    magics: tuple[Any, ...]
    hook: Hook
    completion: Completion
    questions: Questions
    bridge: Bridge | None = None
    """To the JupyterLab extension; None where there is no kernel with comms."""
    names: list[tuple[str, str, Any]] = field(default_factory=list)
    """(kind, name, function) of each magic that was registered."""

    def register(self, kind: str, name: str, function: Any) -> None:
        """Register one magic."""
        self.shell.register_magic_function(function, kind, name)
        self.names.append((kind, name, function))

    def remove(self) -> None:
        """Take everything out again; a magic that somebody else has replaced since is left alone."""
        for kind, name, function in self.names:
            table = self.shell.magics_manager.magics[kind]
            if table.get(name) == function:
                del table[name]
        for magics in self.magics:
            if magics in self.shell.configurables:
                self.shell.configurables.remove(magics)
        if self.bridge is not None:
            self.bridge.close()
        self.completion.remove()
        self.questions.remove()
        self.hook.remove()


def _write_manuals() -> None:
    """Give each magic its manual as docstring, which is what `?` shows."""
    LLMMagics.llm.__doc__ = LLM.text()
    LLMMagics.llm_line.__doc__ = LLM.text()
    for name in _BOOKS:
        getattr(BookMagics, name).__doc__ = MANUALS[name].text()
    for name in _PANELS:
        getattr(PanelMagics, name).__doc__ = MANUALS[name].text()
    ServeMagics.serve.__doc__ = MANUALS["serve"].text()
    ServeMagics.serve_cell.__doc__ = EXPORT.text()


def _bridge(shell: Any) -> Bridge | None:
    """Return the way to the JupyterLab extension. Opening it says that nbllm is here, and nothing more."""
    if getattr(getattr(shell, "kernel", None), "comm_manager", None) is None:
        return None
    bridge = Bridge(shell, _client, __version__)
    try:
        bridge.open()
    except Exception:  # of a kernel that is no kernel; everything else works without
        logging.getLogger("nbllm").debug("The JupyterLab extension cannot be served.", exc_info=True)
        return None
    return bridge


def _owner(function: Any) -> str:
    module = getattr(function, "__module__", None) or type(function).__module__
    return str(module).partition(".")[0]


def load_ipython_extension(shell: Any) -> None:
    """Load the extension into an IPython shell. Loading it again changes nothing."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    _write_manuals()
    llm = LLMMagics(shell, _client)
    books = BookMagics(shell, _client)
    servers = ServeMagics(shell, _client)
    panels = PanelMagics(shell, _client)
    hook = Hook(shell, whole=lambda: llm.full_traceback)
    loaded = Loaded(shell, (llm, books, servers, panels), hook, Completion(shell, _client), Questions(shell))
    taken = [(kind, shell.magics_manager.magics[kind].get("llm")) for kind in ("cell", "line")]
    others = {kind: function for kind, function in taken if function is not None}
    for kind, function in (("cell", llm.llm), ("line", llm.llm_line)):
        loaded.register(kind, "nbllm", function)
        if kind not in others:
            loaded.register(kind, "llm", function)
    for name in _BOOKS:
        loaded.register("line", name, getattr(books, name))
    for name in _PANELS:
        loaded.register("line", name, getattr(panels, name))
    loaded.bridge = _bridge(shell)
    loaded.register("line", "serve", servers.serve)
    loaded.register("cell", "serve", servers.serve_cell)
    setattr(shell, _ATTRIBUTE, loaded)
    _record_from_the_first_call()
    if others:
        marks = " and ".join(("%%" if kind == "cell" else "%") + "llm" for kind in others)
        owner = _owner(next(iter(others.values())))
        sys.stdout.write(
            f"{marks} belongs to {owner} here and stays so. Use %%nbllm and %nbllm for nbllm; they take the same options.\n"
        )


def unload_ipython_extension(shell: Any) -> None:
    """Take the extension out of the shell. Calls, cache and budgets stay as they are."""
    loaded = getattr(shell, _ATTRIBUTE, None)
    if loaded is not None:
        PREPARE.remove(_record)
        loaded.remove()
        setattr(shell, _ATTRIBUTE, None)
