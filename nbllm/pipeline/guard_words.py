"""A file with words of one's own for the guards."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from nbllm.core.guards import GuardWords, shipped
from nbllm.errors import ConfigurationError

_PAIRS = ("opposites", "synonyms")
_WORDS = ("common", "names")
_MOST_BYTES = 1_000_000
_HINT = 'opposites = [["mount", "unmount"]], synonyms = [["k8s", "kubernetes"]], common = ["foobar"], names = ["apple"]'


def read_words(file: str) -> GuardWords:
    """Return the shipped words with those of a TOML file: opposites and synonyms (pairs), common and names (words).

    Raises ConfigurationError for a file that cannot be read, and for one that holds anything else.
    """
    path = Path(file)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
        table = tomllib.loads(text.decode("utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"The guards' words in {path} cannot be read: {exc.strerror or exc}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigurationError(f"The guards' words in {path} are no TOML: {exc}.", hint=_HINT) from None
    problem = next(filter(None, (_problem(name, value) for name, value in table.items())), "")
    if problem or len(text) > _MOST_BYTES:
        raise ConfigurationError(f"The guards' words in {path}: {problem or 'more than 1 MB'}.", hint=_HINT)
    more: dict[str, Any] = {name: [tuple(one) for one in table[name]] for name in _PAIRS if name in table}
    return shipped().with_(**more, **{name: table[name] for name in _WORDS if name in table})


def _problem(name: str, value: Any) -> str:
    if name not in (*_PAIRS, *_WORDS):
        return f"there is no list {name!r}"
    if not isinstance(value, list):
        return f"{name} is no list"
    if name in _WORDS and not all(isinstance(one, str) and one.strip() for one in value):
        return f"{name} holds something that is no word"
    if name in _PAIRS and not all(_is_pair(one) for one in value):
        return f"{name} holds something that is no pair of words"
    return ""


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) and one.strip() for one in value)
