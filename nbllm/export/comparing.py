"""What a recorded run asked, held against what its flow asks in the clean process: the same, the same at another time, or not."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_MOST_TOKENS = 4_000
"""How many differing tokens of two texts are aligned; of more, only what is around them is compared."""
_LEAST_CHARS = 8
"""A shorter piece between two that differ may be the same by chance: it is not held against anything."""
_SHOWN_CHARS = 200
AS_OF_THEN = 3
"""How many renderings have the time of the recording: one might be the same by chance."""
DAYS_AGAIN = (*[0.0] * AS_OF_THEN, 1.3, 33.7, 401.9, -97.1, 8.45, -1203.6, 250.2, 3.9, -61.3, 730.8, -12.7)
"""By how many days from the recording the clock is off, rendering by rendering: weekday, month and year, hour and minute differ."""
ON_OTHER_DAYS = (401.9, -97.1)
"""The same for runs that travel: tests and parity of an app have to come out the same whenever they run, and however often."""
_BEFORE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one run. problem: why it is not proved, "" when it is. varies: what it asks is another each time; how so."""

    problem: str = ""
    varies: str = ""


def asks_the_same(recorded: Sequence[str], sent: Sequence[str]) -> bool:
    """Whether two runs asked the same. Calls at once come in any order."""
    return sorted(recorded) == sorted(sent)


def judged(recorded: Sequence[str], sent: Sequence[str], again: Sequence[Sequence[str]]) -> Verdict:
    """Say what it means that a run asks something else than was recorded.

    recorded, sent: messages as JSON texts, in order. again: what it asked in further renderings: AS_OF_THEN at the time of the
    recording, then some at other times.
    """
    if len(again) > AS_OF_THEN and all(asks_the_same(recorded, one) for one in again):
        return Verdict(varies="it asks the same in a process that starts as of then (a date of the start, or the order of a set)")
    if again and all(asks_the_same(recorded, one) for one in again[:AS_OF_THEN]):
        return Verdict(varies="it asks the same when the clock says what it said then")
    if any(asks_the_same(recorded, one) for one in again):
        return Verdict(varies="it asks something else each time (clock, chance, a set's order or what went before), this among it")
    every = [sent, *again]
    if all(asks_the_same(sent, one) for one in again):
        return Verdict(problem=_difference(recorded, sent))
    if len({len(one) for one in every}) > 1:
        return Verdict(varies="how many calls it makes is another each time (clock or chance), so nothing was compared")
    if len(recorded) != len(sent):
        return Verdict(problem=_difference(recorded, sent))
    fixed_chars = 0
    for old, renderings in zip(recorded, zip(*every, strict=True), strict=True):
        pieces = fixed_pieces([_text(one) for one in renderings])
        if not fits(pieces, _text(old)):
            return Verdict(problem=_difference([old], [renderings[0]]))
        fixed_chars += sum(map(len, pieces))
    share = fixed_chars / max(1, sum(len(_text(one)) for one in recorded))
    compared = f"the {share:.0%} of its text that stays was compared" if share >= 0.005 else "so nothing was compared"
    return Verdict(varies=f"what it asks is another each time (clock, chance or the order of a set); {compared}")


def held(seen: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> Verdict:
    """Say whether a run that asks the same does so on other days and a second time, and returns the same.

    seen, later: recorded, sent and result of its renderings; or error.
    """
    for one in later:
        if "error" in one:
            return Verdict(varies=f"it asks the same now, and on another day or a second time {one['error']}")
        if not asks_the_same(one["recorded"], one["sent"]):
            how = "clock, chance or what a run before left, as a cache does"
            return Verdict(varies=f"it asks the same now, and something else on another day or a second time ({how})")
        if one["result"] != seen["result"]:
            return Verdict(varies="what it returns is another on another day or a second time (clock or chance)")
    return Verdict()


def _text(key: str) -> str:
    """Return messages as a text for a reader."""
    try:
        messages: Any = json.loads(key)
        if isinstance(messages, Mapping):
            return "\n".join(f"embed: {text}" for text in messages["texts"])
        return "\n".join(_of_message(message) for message in messages)
    except (ValueError, TypeError, AttributeError, KeyError):  # redaction may have left no JSON
        return key


def _of_message(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return f"{message.get('role')}: {said}"


def fixed_pieces(texts: Sequence[str]) -> list[str]:
    """Return what all texts have in common, in order: first what they begin with, last what they end with, either may be ""."""
    pieces = [texts[0]]
    for text in texts[1:]:
        pieces = _in_common(pieces, text)
    return pieces


def fits(pieces: Sequence[str], text: str) -> bool:
    """Whether a text begins with the first piece, ends with the last, and has the others between them in their order."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


_GAP = "\0"


def _in_common(pieces: Sequence[str], text: str) -> list[str]:
    one, other = _tokens(_GAP.join(pieces)), _tokens(text)
    shorter = min(len(one), len(other))
    head = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if one[-1 - n] != other[-1 - n]), rest)
    left, right = one[head : len(one) - tail], other[head : len(other) - tail]
    found = ["".join(one[:head])]
    if max(len(left), len(right)) <= _MOST_TOKENS:
        for block in difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
            piece = "".join(left[block.a : block.a + block.size])
            if len(piece) >= _LEAST_CHARS:
                found.append(piece)
    end = "".join(one[len(one) - tail :])
    if not left and not right:  # nothing differs; gaps that were there are still in it
        return (found[0] + end).split(_GAP)
    return [part for piece in [*found, end] for part in piece.split(_GAP)]


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _difference(recorded: Sequence[str], sent: Sequence[str]) -> str:
    """Say what differs, with both texts from a little before the first difference on."""
    new = [key for key in sent if key not in recorded] or list(sent)
    old = [key for key in recorded if key not in sent] or list(recorded)
    left, right = (_text(keys[0]) if keys else "nothing" for keys in (old, new))
    at = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    start = max(0, at - _BEFORE_CHARS)
    dots = "..." if start else ""
    counts = f"{len(recorded)} recorded, {len(sent)} now. " if len(recorded) != len(sent) else ""
    return f"{counts}Recorded: {dots}{_cut(left[start:])} Now: {dots}{_cut(right[start:])}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
