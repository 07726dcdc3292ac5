r"""Regular expressions of routes, kept to those that cannot stall a process.

Python's re backtracks: `(a+)+b` takes ages on thirty letters, `.*.*.*x` on a page, and an attacker may send the text for it. So a
pattern is searched in the first SEARCHED_CHARS characters only, nothing that varies in length may stand inside a repeat that
does, and what is left may begin over at most SEARCHED_CHARS times at a place: one `.*`, or several small repeats such as {1,9}.
Possessive repeats (`\s++`) never go back and are free.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from nbllm.settings.option import BadValue, shown

SEARCHED_CHARS = 2000
MOST_CHARS = 500


def checked_pattern(pattern: str) -> str:
    """Return a pattern that is valid and cannot take long on any text; raises BadValue."""
    if not pattern or len(pattern) > MOST_CHARS:
        raise BadValue(f"matches must be a regular expression of 1 to {MOST_CHARS} characters, not {shown(pattern)}")
    from re import _parser  # type: ignore[attr-defined]  # how re itself reads a pattern; nothing public shows repeats

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pattern that will mean something else one day
            re.compile(pattern)
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise BadValue(f"matches is no regular expression: {error}") from None
    if _tries(tree, within=False) > SEARCHED_CHARS + 1:
        raise BadValue(
            f"matches could take very long on some texts: {shown(pattern)} has several repeats that can give back what they took",
            hint="Write them possessive (\\s++ for \\s+), bound them ({1,9}), or use contains= or several rules.",
        )
    return pattern


def _tries(tree: Any, *, within: bool) -> float:
    """Return how many ways a pattern may be tried at one place; within: inside a repeat of varying length. Raises BadValue."""
    tries = 1.0
    for op, args in tree:
        name = str(op)
        if name in {"GROUPREF", "GROUPREF_EXISTS"}:
            raise BadValue("matches refers back to a group, which can take very long", hint="Leave out \\1 and (?P=name).")
        if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            tries *= _repeat_tries(name, args, within=within)
        elif name == "BRANCH":
            if within:
                raise _nested()
            tries *= sum(_tries(branch, within=within) for branch in args[1])
        elif name == "SUBPATTERN":
            tries *= _tries(args[3], within=within)
        elif name in {"ASSERT", "ASSERT_NOT"}:
            tries *= _tries(args[1], within=within)
        elif name == "ATOMIC_GROUP":
            tries += _tries(args, within=within)
    return tries


def _repeat_tries(name: str, args: Any, *, within: bool) -> float:
    least, most, repeated = args
    varies = int(most) != int(least)
    if varies and within:
        raise _nested()
    inner = _tries(repeated, within=within or int(most) > 1)
    times = min(int(most), SEARCHED_CHARS) - min(int(least), SEARCHED_CHARS) + 1
    return inner if not varies or name == "POSSESSIVE_REPEAT" else inner * times


def _nested() -> BadValue:
    return BadValue(
        "matches has a repeat, or alternatives, inside a repeat, which can take very long on some texts",
        hint="Write [ab]* for (a|b)*, or use contains= or several rules.",
    )
