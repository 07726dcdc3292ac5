"""How the simulated model reads: sentences, content words, which sentences matter, and what in a prompt is instruction.

Pure functions of text. Nothing here understands language: sentences are scored by the words they share with the whole text
(H. P. Luhn, "The Automatic Creation of Literature Abstracts", 1958) or with a question.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

READ_CHARS = 40_000
"""What is read of a long prompt: the first three quarters of this and the last quarter, so that reading takes milliseconds."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
STOPWORDS = frozenset(
    _WORD.findall("""
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each few for from further had has have having he her here hers him
    his how i if in into is it its itself just like made make many may me might more most much must my no nor not
    now of off on once one only or other our out over own said same she should so some such than that the their
    them then there these they this those through to too two under until up upon us very was we were what when
    where which while who whom why will with would yet you your please following text
    """)
)
_VERB = (
    r"(?:summari[sz]e|sum up|shorten|condense|tl;?dr|translate|classify|categori[sz]e|label|rate|extract|list|name|give|write|"
    r"draft|explain|describe|answer|tell|say|repeat|reply|respond|return|find|identify|rewrite|rephrase|paraphrase|compare|decide|"
    r"what|who|when|where|why|how|which|is|are|does|do|did|can you|could you|please|using|use|based on|read|think|be|you are|only|"
    r"don't|never|keep|in (?:one|two|three|four|five|\d+) )"
)
_INSTRUCTION = re.compile(rf"^\W*{_VERB}\b", re.IGNORECASE)
_INLINE = re.compile(
    r"^\W*(?:please\s+)?((?:summari[sz]e|shorten|condense|translate|classify|rewrite|rephrase|paraphrase)"
    r"(?:\s+(?-i:the|this|that|these|following|text|passage|article|document|paragraph|story|review|sentence))*)[\s:]+",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"[\s,]+((?:in|as|into|with|using)\s+(?:at most\s+|no more than\s+)?(?:\w+\s+){0,3}"
    r"(?:bullets?|bullet points?|points|sentences?|words|paragraphs?|lines?))\s*[.!]?\s*$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\b(?:one of|options|labels|categories|exactly|say|repeat|with)$", re.IGNORECASE)
_BOUNDARY = re.compile(r"(?<=[.!?…])[\"')\]”’]*\s+(?=[\"'(\[“‘]?[A-Z0-9À-Þ])|\n+")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|No|vs|etc|e\.g|i\.e|cf|Fig|approx|Capt|Col|Gen|[A-Z])\.)$")
_CLAUSE = re.compile(r"[;:,—–]\s+|\s[—–-]\s")
_MARK = re.compile(r"^\s*(?:[-*•>]+|\d+[.)])\s+")
_LEANS = frozenset({"he", "she", "it", "this", "that", "they", "these", "those", "but", "and", "so", "yet", "his", "her", "its"})


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt, read. instruction: what is asked, one line. material: the sentences to answer from, in order."""

    instruction: str
    material: tuple[str, ...]

    @property
    def text(self) -> str:
        """The material as one text."""
        return " ".join(self.material)


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message, of all its text parts when it has parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def read(messages: Sequence[Mapping[str, Any]]) -> Reading:
    """Return what the last user message asks, and the sentences to answer from: its own, else those of earlier messages."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    last = users[-1] if users else len(messages) - 1
    instruction, own = split(message_text(messages[last])) if messages else ("", [])
    context: list[str] = []
    for i, message in enumerate(messages):
        if i != last and message.get("role") in {"system", "developer", "user", "tool"}:
            context += split(message_text(message))[1]
    if any(message.get("role") == "tool" for message in messages[last + 1 :]):
        return Reading(instruction or " ".join(own), tuple(context))
    if not instruction and context and own:  # "Gdansk" after a longer text: the words are the question
        return Reading(" ".join(own), tuple(context))
    return Reading(instruction, tuple(own + context) if len(own) < 2 else tuple(own))


def split(text: str) -> tuple[str, list[str]]:
    """Return a message's instruction and its other sentences. Instructions stand at the beginning or at the end."""
    if len(text) > READ_CHARS:
        text = f"{text[: READ_CHARS * 3 // 4]}\n\n{text[-READ_CHARS // 4 :]}"
    units = _colon_split(sentences(text))
    asked: list[str] = []
    inline = _INLINE.match(units[0]) if units else None
    rest = units[0][inline.end() :] if inline else ""
    if inline and (not _is_instruction(units[0]) or (rest[:1].isupper() and len(rest.split()) > 5)):
        asked, units[0] = [inline.group(1)], rest  # "Summarise The ship left ...": the text follows its verb without a break
    else:
        while units and len(asked) < 3 and _is_instruction(units[0]):
            asked.append(units.pop(0))
    ending: list[str] = []
    while units and len(ending) < 3 and _is_instruction(units[-1]):
        ending.insert(0, units.pop())
    if units and (tail := _TAIL.search(units[-1])):
        ending.append(tail.group(1))
        rest = units[-1][: tail.start()].rstrip()
        units[-1] = rest if rest.endswith((".", "!", "?")) else f"{rest}."
    return " ".join(asked + ending), [unit for unit in units if _WORD.search(unit) and not unit.endswith(":")]


def _colon_split(units: list[str]) -> list[str]:
    """Return the units with "Translate to French: The ship left." at the beginning taken apart behind the colon."""
    head, colon, rest = units[0].partition(": ") if units else ("", "", "")
    if colon and rest and len(head.split()) <= 20 and _INSTRUCTION.match(head) and not _VALUE.search(head):
        return [f"{head}:", rest, *units[1:]]
    return units


def _is_instruction(unit: str) -> bool:
    if len(unit.split()) > 30:
        return False
    return unit.endswith(("?", ":")) or bool(_INSTRUCTION.match(unit))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, list items and lines of their own included; wrapped lines are joined, marks dropped."""
    text = re.sub(r"</?[A-Za-z_][\w-]{0,30}>|```\w*|\"\"\"|\[/?[A-Z]+\]", "\n\n", text)
    lines = [line.strip() for line in text.replace("\r", "").split("\n")]
    joined: list[str] = []
    for line in lines:
        flows_on = joined and len(joined[-1].rsplit("\n", 1)[-1]) >= 40 and not joined[-1].endswith((".", ":", "!", "?"))
        if line and flows_on and not _MARK.match(line) and not line.startswith("#"):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
    found: list[str] = []
    for line in joined:
        if not line.startswith("#"):
            found += _split_line(_MARK.sub("", line))
    return found


def _split_line(line: str) -> list[str]:
    pieces: list[str] = []
    for piece in _BOUNDARY.split(line):
        if pieces and _ABBREVIATION.search(pieces[-1]):
            pieces[-1] += f" {piece}"
        elif piece.strip():
            pieces.append(piece.strip())
    return pieces


def stem(word: str) -> str:
    """Return a word without common English endings, so that `ships` and `ship` count as one."""
    word = word.lower()
    for ending in ("ings", "ing", "ies", "ied", "edly", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_words(text: str) -> list[str]:
    """Return the words that carry meaning, lower case, in order, with repeats."""
    return [word.lower() for word in _WORD.findall(text) if len(word) > 1 and word.lower() not in STOPWORDS]


def stems(text: str) -> list[str]:
    """Return the stems of a text's content words."""
    return [stem(word) for word in content_words(text)]


def keywords(text: str, count: int) -> list[str]:
    """Return the text's most frequent content words, as they first occur in it; ties in order of appearance."""
    first: dict[str, str] = {}
    for word in _WORD.findall(text):
        if len(word) > 2 and word.lower() not in STOPWORDS and not word.isdigit():
            first.setdefault(stem(word), word)
    tally = Counter(stem(word) for word in _WORD.findall(text) if stem(word) in first)
    ranked = sorted(first, key=lambda key: -tally[key])
    return [first[key] for key in ranked[:count]]


def important(material: Sequence[str], count: int, random: Random, noise: float) -> list[str]:
    """Return the `count` sentences that say most of the text, in their order. noise blurs the choice (a weaker model)."""
    owns = [stems(sentence) for sentence in material]
    tally = Counter(word for own in owns for word in own)
    scores = [
        _weight(sentence, place, set(own), tally) * math.exp(noise * random.gauss(0, 1))
        for place, (sentence, own) in enumerate(zip(material, owns, strict=True))
    ]
    chosen: list[int] = []
    said: set[str] = set()
    left = set(range(len(material)))
    while left and len(chosen) < count:
        best = max(left, key=lambda i: (scores[i] * (1 - 0.6 * _overlap(owns[i], said)), -i))
        left.remove(best)
        chosen.append(best)
        said |= set(owns[best])
    return [material[i] for i in sorted(chosen)]


def _weight(sentence: str, place: int, own: set[str], tally: Mapping[str, int]) -> float:
    if not own:
        return 0.0
    weight = sum(math.log1p(tally[word]) for word in own) / (len(own) + 4)
    length = len(sentence.split())
    if length < 5 or length > 45:
        weight *= 0.6
    if sentence.split(maxsplit=1)[0].lower().strip("\"'“‘") in _LEANS or sentence.endswith("?"):
        weight *= 0.75
    return weight * (1.25 if place == 0 else 1.0)


def _overlap(own: Sequence[str], said: set[str]) -> float:
    return sum(word in said for word in own) / len(own) if own else 1.0


def answering(question: str, material: Sequence[str], random: Random, noise: float) -> list[tuple[float, str]]:
    """Return the sentences that share words with the question, best first, with their scores (rare words weigh more)."""
    wanted = set(stems(question))
    holds = Counter(word for sentence in material for word in set(stems(sentence)))
    scored = []
    for sentence in material:
        shared = wanted & set(stems(sentence))
        score = sum(math.log(1 + len(material) / holds[word]) for word in shared)
        if score:
            score = (score + _fits(question, sentence)) * math.exp(0.5 * noise * random.gauss(0, 1))
            scored.append((score / math.sqrt(4 + len(sentence.split()) / 8), sentence))
    return sorted(scored, key=lambda pair: -pair[0])


def _fits(question: str, sentence: str) -> float:
    """Return a bonus for a sentence that holds the kind of thing that is asked for."""
    asked = question.lower()
    if re.search(r"\b(when|what year|how (?:many|much|long|old|far|often))\b", asked):
        return 1.0 if re.search(r"\d", sentence) else 0.0
    if re.search(r"\b(who|whose|where)\b", asked):
        return 0.7 if re.search(r"(?<!^)\b[A-Z][a-z]+", sentence) else 0.0
    if "why" in asked:
        return 1.0 if re.search(r"\b(because|since|so that|in order|due to)\b", sentence, re.IGNORECASE) else 0.0
    return 0.0


def shorten(sentence: str, words: int) -> str:
    """Return a sentence of at most `words` words: cut where a clause ends, else marked with an ellipsis."""
    given = sentence.split()
    if len(given) <= words:
        return sentence
    head = " ".join(given[:words])
    clauses = [match.start() for match in _CLAUSE.finditer(head)]
    if clauses and clauses[-1] > len(head) // 2:
        return head[: clauses[-1]].rstrip(" ,;:—–-") + "."
    return head.rstrip(" ,;:—–-.") + " …"


def names(text: str) -> list[str]:
    """Return capitalised phrases that do not merely begin a sentence, in order, each once: people, places, products."""
    found: Iterable[str] = (
        match.group() for match in re.finditer(r"(?<![.!?:]\s)(?<!^)\b[A-Z][\w’'-]+(?:\s+(?:of\s+)?[A-Z][\w’'-]+)*", text)
    )
    return list(dict.fromkeys(name for name in found if name.lower() not in STOPWORDS))
