"""Literal keys: behind every way of giving a name its value."""

from __future__ import annotations

import pytest

from nbllm.export.keys import key_refusals
from nbllm.export.lexer import read_code

KEY = "0f8d9a7c6b5e4d3c2b1a0f9e8d7c6b5a"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (f"import os\nAPI_KEY = os.environ.get('API_KEY', '{KEY}')", 2),
        ("import os\nx = os.getenv('DB_PASSWORD', 'Tr0ub4dor&3xyz')", 2),
        ("import os\nx = os.getenv('DB_PASSWORD', default='Tr0ub4dor&3xyz')", 2),
        ("from os import getenv\nx = getenv('DB_PASSWORD', 'Tr0ub4dor&3xyz')", 2),
        ("import os\nos.environ.setdefault('SERVICE_TOKEN', 'abcdef0123456789abcdef')", 2),
        (f"import os\nAPI_KEY = os.environ.get('API_KEY') or '{KEY}'", 2),
        (f"import os\nAPI_KEY = os.environ['K'] if 'K' in os.environ else '{KEY}'", 2),
        (f"def f(q, api_key='{KEY}'):\n    return q", 1),
        (f"def f(q,\n      *, api_key='{KEY}', more=1):\n    return q", 2),
        (f"f = lambda q, api_key='{KEY}': q", 1),
        (f"class C:\n    def f(self, q, /, api_key='{KEY}', n=1): pass", 2),
    ],
)
def test_a_key_that_stands_in_for_what_is_not_set_is_one(source: str, line: int) -> None:
    """Defaults of variables of the environment and of parameters are in flows.py as assigned texts are."""
    (refusal,) = key_refusals(2, read_code(source), "")
    assert (refusal.kind, refusal.cell, refusal.line) == ("literal key", 2, line)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nx = os.environ.get('API_KEY')",
        "import os\nx = os.environ.get('API_KEY', '')",
        "import os\nx = os.environ.get('MODE', 'some-longer-mode-0123456789')",
        "import os\nx = os.environ.get('API_KEY') or None",
        "def f(q, api_key=None, *, max_tokens=400, key='customer_id_of_the_row'): return q",
        "def f(api_key_env='OPENAI_API_KEY'): return api_key_env",
        "x = {}.get('token', 'EMPTY')",
    ],
)
def test_what_is_no_key_passes(source: str) -> None:
    """Variables without a default, empty ones, names of variables, other names."""
    assert key_refusals(2, read_code(source), "") == []
