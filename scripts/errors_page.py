"""Write the tree of errors into docs/scripts.md from the docstring of nbllm/errors/__init__.py. A test fails when they differ.

`python scripts/errors_page.py` rewrites the page.
"""

from __future__ import annotations

from pathlib import Path

from nbllm import errors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scripts.md"
BEGIN, END = "<!-- errors -->", "<!-- /errors -->"


def page_with_tree(page: str) -> str:
    """Return the page with what is between its markers made anew."""
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n```text\n{tree}\n```\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
