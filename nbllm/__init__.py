"""nbllm: the lab bench for people who build with LLMs in Jupyter.

    %load_ext nbllm
    %%llm -m sim/large -o answer
    Summarise {{ doc }} in three bullets.

    from nbllm import Client, ask
    ask("Say hi", model="sim/small").text

The public face is lazy: importing nbllm loads neither litellm, IPython nor matplotlib, and opens no file and no socket.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbllm import errors
    from nbllm.client import Client
    from nbllm.core.reply import Reply
    from nbllm.current import (
        aask,
        aembed,
        ask,
        astream,
        check_slo,
        embed,
        flow,
        get_client,
        mark,
        render,
        set_process_client,
        stream,
        usage,
        use,
    )
    from nbllm.errors import NbllmError, NbllmWarning
    from nbllm.settings import CallOptions, Endpoint, Settings

__version__ = "0.1.0"

_HOMES = {
    "CallOptions": "nbllm.settings",
    "Client": "nbllm.client",
    "Endpoint": "nbllm.settings",
    "NbllmError": "nbllm.errors",
    "NbllmWarning": "nbllm.errors",
    "Reply": "nbllm.core.reply",
    "Settings": "nbllm.settings",
    "aask": "nbllm.current",
    "aembed": "nbllm.current",
    "ask": "nbllm.current",
    "astream": "nbllm.current",
    "check_slo": "nbllm.current",
    "embed": "nbllm.current",
    "flow": "nbllm.current",
    "get_client": "nbllm.current",
    "mark": "nbllm.current",
    "render": "nbllm.current",
    "set_process_client": "nbllm.current",
    "stream": "nbllm.current",
    "usage": "nbllm.current",
    "use": "nbllm.current",
}

__all__ = [
    "CallOptions",
    "Client",
    "Endpoint",
    "NbllmError",
    "NbllmWarning",
    "Reply",
    "Settings",
    "aask",
    "aembed",
    "ask",
    "astream",
    "check_slo",
    "embed",
    "errors",
    "flow",
    "get_client",
    "mark",
    "render",
    "set_process_client",
    "stream",
    "usage",
    "use",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("nbllm.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nbllm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Load the magics: `%load_ext nbllm`."""
    from nbllm.notebook.extension import load_ipython_extension as load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Unload the magics: `%unload_ext nbllm`."""
    from nbllm.notebook.extension import unload_ipython_extension as unload

    unload(ipython)
