"""Importing jsonschema without the second of processor time that a checker which nbllm never asks takes to load.

Where rfc3987-syntax is installed, as it is beside JupyterLab, jsonschema imports it for the formats iri and iri-reference, and it
compiles 38 grammars as it is imported (1.1 s of 1.2 s, measured with 1.1.0). nbllm checks no formats, so the wait would come for
nothing, in the first call with a schema. Others in this process may check them: they get the true checker when they first do.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

_SLOW = "rfc3987_syntax"


def import_jsonschema() -> None:
    """Import jsonschema; afterwards `import jsonschema` is free."""
    if "jsonschema" in sys.modules or _SLOW in sys.modules or find_spec(_SLOW) is None:
        import jsonschema

        return
    stand_in = ModuleType(_SLOW)
    stand_in.is_valid_syntax = _is_valid_syntax  # type: ignore[attr-defined]  # all that jsonschema takes from it
    sys.modules[_SLOW] = stand_in
    try:
        import jsonschema  # noqa: F401
    finally:
        if sys.modules.get(_SLOW) is stand_in:
            del sys.modules[_SLOW]


def _is_valid_syntax(term: str, value: str) -> bool:
    from rfc3987_syntax import is_valid_syntax  # type: ignore[import-untyped]  # it has no types

    return bool(is_valid_syntax(term, value))
