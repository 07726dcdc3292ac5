"""The files of nbllm/export/templates/ with @@names@@ filled in; nothing else is done to them, so they read as what they become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_PLACE = re.compile(r"@@([a-z_]+)@@")
_SUFFIX = ".tmpl"
_NAMES = {"dockerignore": ".dockerignore", "gitignore": ".gitignore", "app_tests": "tests"}
"""Names that tools would take for their own where the templates lie."""


@cache
def templates() -> Mapping[str, str]:
    """Return path in the export -> text of every template."""
    found: dict[str, str] = {}
    root = resources.files("nbllm.export") / "templates"
    todo = [(root, "")]
    while todo:
        folder, prefix = todo.pop()
        for item in folder.iterdir():
            if item.is_dir():
                todo.append((item, f"{prefix}{_NAMES.get(item.name, item.name)}/"))
            elif item.name.endswith(_SUFFIX):
                name = item.name.removesuffix(_SUFFIX)
                found[prefix + _NAMES.get(name, name)] = item.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a template with its names filled in; lines that become empty by that go. Raises KeyError for an unknown name."""
    lines = []
    for line in text.split("\n"):
        new = _PLACE.sub(lambda place: values[place[1]], line)
        if new.strip() or not line.strip():
            lines.append(new)
    return "\n".join(lines)
