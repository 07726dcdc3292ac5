"""Labelled pairs of questions from a file, a DataFrame or a list."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from nbllm.errors import InvalidRequest

_NAMES = (
    ("query", "a", "question1", "first"),
    ("question", "b", "question2", "second"),
    ("correct", "same", "is_duplicate", "label"),
)
_TRUE = frozenset({"1", "true", "yes", "y", "same", "t"})
_FALSE = frozenset({"0", "false", "no", "n", "different", "f"})
_HINT = "Columns query, question, correct: whether the answer to `question` would be right for `query`."
_MOST = 1_000_000


class Pair(NamedTuple):
    """Whether the stored answer to `question` would be right for `query`."""

    query: str
    question: str
    correct: bool


def pairs_of(source: str | PathLike[str] | Iterable[Any] | Any) -> list[Pair]:
    """Return the pairs of a CSV file, a DataFrame, or an iterable of mappings or of tuples (query, question, correct).

    Raises InvalidRequest with the row that is none. Names of columns: query, question, correct; a, b, same will do too.
    """
    pairs = [_pair(row, number) for number, row in enumerate(islice(_rows(source), _MOST + 1), 1)]
    if not pairs:
        raise InvalidRequest("There are no pairs to import.", hint=_HINT)
    if len(pairs) > _MOST:
        raise InvalidRequest(f"More than {_MOST:,} pairs.", hint="Import a random sample: a few thousand say all there is to say.")
    return pairs


def _rows(source: Any) -> Iterator[Any]:
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        yield from source.to_dict("records")
    elif isinstance(source, str | PathLike):
        path = Path(source)
        try:
            with path.open(encoding="utf-8-sig", newline="") as opened:
                yield from csv.DictReader(opened)
        except (OSError, UnicodeDecodeError, csv.Error) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no CSV in UTF-8"
            raise InvalidRequest(f"{path} cannot be read: {why}.", hint=_HINT) from None
    elif isinstance(source, Iterable):
        yield from source
    else:
        raise InvalidRequest(f"A {type(source).__name__} holds no pairs.", hint=_HINT)


def _pair(row: Any, number: int) -> Pair:
    if isinstance(row, Mapping):
        values = [next((row[name] for name in names if row.get(name) is not None), None) for names in _NAMES]
    elif isinstance(row, tuple | list) and len(row) == 3:
        values = list(row)
    else:
        raise InvalidRequest(f"Row {number} is no pair: {row!r:.80}.", hint=_HINT)
    query, question, correct = values
    if not isinstance(query, str) or not isinstance(question, str) or not query.strip() or not question.strip():
        raise InvalidRequest(f"Row {number} has no two questions: {row!r:.80}.", hint=_HINT)
    return Pair(query, question, _truth(correct, number))


def _truth(value: Any, number: int) -> bool:
    word = str(value).strip().casefold().removesuffix(".0")
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidRequest(f"Row {number} says neither true nor false, but {value!r:.40}.", hint=_HINT)
