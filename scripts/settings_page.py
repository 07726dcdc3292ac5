"""Write the tables of docs/settings.md from the tables that the program itself uses. A test fails when they differ.

`python scripts/settings_page.py` rewrites the page; `table_of_settings()` is what belongs between its markers.
"""

from __future__ import annotations

from pathlib import Path

from nbllm.settings import CALL_OPTIONS, SETTINGS, Option

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
BEGIN = "<!-- made by scripts/settings_page.py: begin -->"
END = "<!-- made by scripts/settings_page.py: end -->"


def _default(option: Option) -> str:
    if option.default is None:
        return "-"
    if option.default in ((), {}, ""):
        return "none"
    if isinstance(option.default, bool):
        return f"`{str(option.default).lower()}`"
    if isinstance(option.default, tuple):
        return f"`{', '.join(option.default)}`"
    return f"`{option.default:.15g}`" if isinstance(option.default, float) else f"`{option.default}`"


def _row(option: Option) -> str:
    variable = f"`{option.variable}`" if option.in_settings else "in code only"
    return f"| `{option.name}` | {_default(option)} | {variable} | {option.help.replace('|', chr(92) + '|')} |"


def table_of_settings() -> str:
    """Return both tables as Markdown."""
    head = "| name | default | variable | what it is |\n|---|---|---|---|"
    rows = [
        "### Settings",
        head,
        *map(_row, SETTINGS.values()),
        "",
        "### Options of a call",
        head,
        *map(_row, CALL_OPTIONS.values()),
    ]
    return "\n".join(rows).replace("\n| name", "\n\n| name")


def page_with_tables(page: str) -> str:
    """Return the page with what is between its markers made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table_of_settings()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
