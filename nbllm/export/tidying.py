"""flows.py laid out by ruff, where ruff is: the user's own code, in the form that the exported project keeps.

ruff is no dependency: it is used where it is installed. What it makes of the text counts only when Python reads the very same code
in it, texts of documentation included, since a prompt may be made of one. The rules that the notebook's code breaks are told, and
left out for flows.py alone, so that `ruff check` in the project finds what is changed there later.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

SELECTED = ("E4", "E7", "E9", "F", "I")
"""ruff's own default rules, and the order of imports."""
_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Tidied:
    """A module's text. formatted: whether it is as ruff lays it out. broken: rule -> how often the text breaks it.

    checked: whether rules were looked at. why_not: what a person should know when it is not formatted, "" when it is.
    """

    text: str
    formatted: bool = False
    checked: bool = False
    broken: Mapping[str, int] = field(default_factory=dict)
    why_not: str = ""

    def notes(self) -> list[str]:
        """Return what a person should know."""
        found = [self.why_not] if self.why_not else []
        if self.broken:
            rules = ", ".join(f"{rule} ({count})" for rule, count in self.broken.items())
            found.append(f"ruff finds in the notebook's code: {rules}. ruff.toml leaves these rules out for flows.py.")
        return found


def tidied(text: str, *, local_modules: Collection[str] = ()) -> Tidied:
    """Return a module's text as ruff formats it, or as it is. local_modules: modules of the project beside it."""
    command = _command()
    if command is None:
        return Tidied(
            text, why_not="ruff is not installed here: flows.py is laid out as its cells are, and ruff.toml leaves it out."
        )
    options = ["--isolated", "--no-cache", "--target-version", target_version(), "--stdin-filename", "flows.py", "-"]
    shaped = _run([*command, "format", *options], text)
    formatted = shaped is not None and _same_code(text, shaped)
    text = shaped if shaped is not None and formatted else text
    first_party = f"lint.isort.known-first-party={json.dumps(first_party_modules(local_modules))}"
    # src: what lies in the working directory says nothing of where an import is from.
    rules = ["--select", ",".join(SELECTED), "--config", "src=[]", "--config", first_party]
    rules += ["--no-fix", "--exit-zero", "--output-format", "json"]
    told = _run([*command, "check", *rules, *options], text)
    broken = None if told is None else _rules(told)
    why_not = "" if formatted else "ruff would change what flows.py means, or cannot read it: it is laid out as its cells are."
    return Tidied(text, formatted, broken is not None, broken or {}, why_not)


def ruff_values(found: Tidied, local_modules: Collection[str] = ()) -> dict[str, str]:
    """Return what ruff.toml says of flows.py and of the modules that were copied."""
    copied = sorted({*local_modules, *(f"{name}.py" for name in local_modules), "data"})
    rules = sorted(found.broken) if found.checked else ["ALL"]
    return {
        "ruff_target": target_version(),
        "ruff_exclude": json.dumps(copied),
        "ruff_unformatted": "" if found.formatted else '\n[format]\nexclude = ["flows.py"]  # as its cells are written',
        "ruff_ignored": f'\n[lint.per-file-ignores]\n"flows.py" = {json.dumps(rules)}  # the notebook\'s own code' if rules else "",
        "ruff_first_party": json.dumps(first_party_modules(local_modules)),
        "ruff_selected": json.dumps(list(SELECTED)),
    }


def target_version() -> str:
    """Return the Python that runs here as ruff names it, such as py311."""
    return f"py{sys.version_info.major}{sys.version_info.minor}"


def first_party_modules(local_modules: Collection[str] = ()) -> list[str]:
    """Return the project's own modules, for the order of imports."""
    return sorted({"app", "flows", *local_modules})


def _command() -> list[str] | None:
    """Return how ruff is run: this environment's own, else the one on PATH; None without one."""
    if importlib.util.find_spec("ruff") is not None:
        return [sys.executable, "-m", "ruff"]
    found = shutil.which("ruff")
    return None if found is None else [found]


def _run(command: Sequence[str], text: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - ruff, with words of ours; the code goes in by stdin
            command, input=text, capture_output=True, text=True, encoding="utf-8", timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _same_code(one: str, other: str) -> bool:
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _rules(told: str) -> dict[str, int] | None:
    """Return how often which rule is broken; None when ruff says it otherwise than expected."""
    try:
        codes = [one["code"] for one in json.loads(told)]
    except (ValueError, TypeError, KeyError):
        return None
    return dict(sorted(Counter(codes).items())) if all(isinstance(code, str) for code in codes) else None
