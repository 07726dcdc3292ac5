"""What `make bench` writes into the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import DOCUMENT, IN_README, README, between, short
from bench.measure import Row

ROOT = Path(__file__).resolve().parents[2]
ROWS = [Row(what, "1 ms", f"{number} ms", f"peer {number}", ok=True) for number, what in enumerate([*IN_README, "memory"])]


def test_the_readme_gets_its_rows_and_keeps_the_rest() -> None:
    """Numbers are replaced between the marks, twice as well as once; nothing else changes."""
    page = README.read_text(encoding="utf-8")
    once = between(page, "measured", short(ROWS))
    assert between(once, "measured", short(ROWS)) == once
    assert re.sub(r"(<!-- measured -->).*(<!-- /measured -->)", r"\1\2", once, flags=re.DOTALL) == re.sub(
        r"(<!-- measured -->).*(<!-- /measured -->)", r"\1\2", page, flags=re.DOTALL
    )
    for number, name in enumerate(IN_README.values()):
        assert f"| {name} | {number} ms | peer {number} |" in once
    assert "memory" not in short(ROWS)


def test_both_pages_have_their_place() -> None:
    """The marks are in the pages, once each; a page without them is an error, not a lost table."""
    for page, mark in ((DOCUMENT, "table"), (README, "measured")):
        text = page.read_text(encoding="utf-8")
        assert (text.count(f"<!-- {mark} -->"), text.count(f"<!-- /{mark} -->")) == (1, 1)
    with pytest.raises(ValueError, match="no <!-- table -->"):
        between("nothing", "table", "x")


def test_the_rows_of_the_readme_are_measured_under_these_names() -> None:
    """Each row that README.md shows is one that bench/ makes."""
    made = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").glob("*.py") if path.name != "__main__.py")
    assert [what for what in IN_README if f'"{what}"' not in made] == []
