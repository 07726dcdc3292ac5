"""What the simulated model writes: summaries, answers, labels, titles, drawn from the prompt's own text.

`compose` is a pure function of the messages and a seeded random source. It claims nothing that is not in the prompt: what it
cannot do (translate, know facts) it says in a plain sentence.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from nbllm.providers.sim_reading import (
    answering,
    content_words,
    important,
    keywords,
    names,
    read,
    sentences,
    shorten,
    stems,
)

_WORDS = re.compile(r"\w+")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "a": 1}
_COUNT = re.compile(
    r"\b(\d{1,3}|" + "|".join(NUMBERS) + r")\s+(?:[\w-]+\s+){0,2}?(bullet|point|sentence|word|line|item|keyword)", re.IGNORECASE
)
_SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*([-+*/×x÷])\s*(-?\d+(?:\.\d+)?)")
_SAY = r"(?:say|repeat|(?:reply|respond|answer)(?: only| just| exactly)? with)"
_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "×": operator.mul,
    "x": operator.mul,
    "/": operator.truediv,
    "÷": operator.truediv,
}
POSITIVE = frozenset(
    _WORDS.findall("""
    good great excellent love loved best happy wonderful amazing fast easy perfect nice enjoy enjoyed pleased
    helpful reliable recommend fantastic delightful clean works
    """)
)
NEGATIVE = frozenset(
    _WORDS.findall("""
    bad poor terrible hate hated worst sad awful slow hard broken disappoint disappointed annoying late refund
    useless unreliable crash crashes dirty rude never failed fails waste
    """)
)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be written: what is asked, the sentences to draw from, and how far the choice may stray (noise, 0 to 1)."""

    asked: str
    material: tuple[str, ...]
    random: Random
    noise: float

    @property
    def text(self) -> str:
        """The material as one text."""
        return " ".join(self.material)


def compose(messages: Sequence[Mapping[str, Any]], random: Random, noise: float) -> str:
    """Return the answer, as Markdown. noise (0 to 1) is how often a second-best sentence is taken."""
    reading = read(messages)
    task = Task(reading.instruction, reading.material, random, noise)
    if not task.asked and len(task.text.split()) < 5:  # "Hello!", "test": a prompt of its own, not a text to work on
        task = Task(task.text, (), random, noise)
    for pattern, write in _TASKS:
        if re.search(pattern, task.asked, re.IGNORECASE):
            text = write(task)
            if text:
                return text
    if task.asked and (task.material or "?" in task.asked):
        return _answer(task)
    return _summary(task) if task.material else _nothing_to_draw_on(task)


def count_asked(instruction: str, kinds: Sequence[str]) -> int | None:
    """Return the number in "three bullets", "at most 2 sentences", None when none is named."""
    for number, kind in _COUNT.findall(instruction):
        if kind.lower() in kinds:
            return int(number) if number.isdigit() else NUMBERS[number.lower()]
    return None


def label_of(text: str, labels: Sequence[str], random: Random) -> str:
    """Return the label that fits a text best: named in it, of its tone, sharing words with it, else a seeded choice."""
    words = content_words(text)
    tone = sum(word in POSITIVE for word in words) - sum(word in NEGATIVE for word in words)
    by_tone = {"positive": tone > 0, "negative": tone < 0, "neutral": tone == 0, "mixed": False}
    for label in labels:
        if by_tone.get(label.lower()):
            return label
    shared = {label: sum(stem in stems(text) for stem in stems(label)) for label in labels}
    best = max(shared.values(), default=0)
    return next(label for label in labels if shared[label] == best) if best else random.choice(list(labels))


def title_of(text: str) -> str:
    """Return a title made of the text's own words."""
    pairs: dict[str, int] = {}
    words = re.findall(r"[^\W\d_][\w'’-]+", text)
    for first, second in pairwise(words):
        if len(content_words(f"{first} {second}")) == 2:
            pairs[f"{first} {second}".lower()] = pairs.get(f"{first} {second}".lower(), 0) + 1
    repeated = max(pairs, key=lambda pair: (pairs[pair], -text.lower().find(pair)), default="")
    if repeated and pairs[repeated] > 1:
        return repeated.title()
    named = names(text)[:1]
    top = [word.title() for word in keywords(text, 4) if not named or word not in named[0]]
    return f"{named[0]}: {' and '.join(top[:2])}" if named and top else " ".join([*named, *top][:3])


def _summary(task: Task) -> str:
    asked, material = task.asked, task.material
    if not material:
        return ""
    words = count_asked(asked, ["word"])
    if words:
        return shorten(important(material, 1, task.random, task.noise)[0], max(3, words))
    bullets = count_asked(asked, ["bullet", "point", "line", "item"])
    if bullets or re.search(r"\b(bullets?|key points|list)\b", asked, re.IGNORECASE):
        chosen = important(material, max(1, bullets or 3), task.random, task.noise)
        return "\n".join(f"- {shorten(sentence, 32)}" for sentence in chosen)
    count = count_asked(asked, ["sentence"]) or (1 if "tl" in asked.lower() else min(4, max(1, len(material) // 3)))
    return " ".join(shorten(sentence, 45) for sentence in important(material, max(1, count), task.random, task.noise))


def _answer(task: Task) -> str:
    computed = _arithmetic(task.asked)
    if computed:
        return computed
    found = answering(task.asked, task.material, task.random, task.noise)
    if not found:
        return _nothing_to_draw_on(task)
    best = [sentence for score, sentence in found[:3] if score >= 0.65 * found[0][0]]
    in_order = [sentence for sentence in task.material if sentence in best]
    return " ".join(dict.fromkeys(shorten(sentence, 60) for sentence in in_order))


def _arithmetic(question: str) -> str:
    match = _SUM.search(question)
    if match is None:
        return ""
    left, sign, right = float(match[1]), match[2], float(match[3])
    if sign in "/÷" and not right:
        return "Division by zero has no result."
    return f"{match[1]} {sign} {match[3]} = {_OPERATIONS[sign](left, right):.10g}"


def _title(task: Task) -> str:
    return title_of(task.text) if task.material else ""


def _translation(task: Task) -> str:
    language = re.search(r"\b(?:into|to|in)\s+([A-Z][a-z]+)", task.asked)
    wanted = f" into {language[1]}" if language else ""
    if not task.material:
        return ""
    passage = "\n".join(f"> {sentence}" for sentence in task.material[:6])
    return f"I cannot translate{wanted}. This is the passage, in its own words:\n\n{passage}"


def _label(task: Task) -> str:
    labels = labels_in(task.asked)
    if not labels and re.search(r"sentiment|tone", task.asked, re.IGNORECASE):
        labels = ["positive", "negative", "neutral"]
    return label_of(task.text, labels, task.random) if labels else ""


def labels_in(instruction: str) -> list[str]:
    """Return the labels of "as positive, negative or neutral", "one of: A, B, C" or "either A or B"; [] when none are named."""
    match = re.search(r"\b(?:one of|either|as|into|labels?|categories|options)\b\s*:?\s*([^.?\n]+)", instruction, re.IGNORECASE)
    if match is None:
        return []
    parts = re.split(r"\s*(?:,\s*(?:or|and)\s+|,|/|\||\bor\b|\band\b)\s*", match[1])
    labels = [part.strip(" \"'`:()[]") for part in parts]
    return [label for label in labels if label and len(label.split()) <= 3] if len(labels) > 1 else []


def _keywords(task: Task) -> str:
    count = count_asked(task.asked, ["keyword", "item", "bullet", "word"]) or 5
    named = re.search(r"\b(names?|people|places|entities)\b", task.asked, re.IGNORECASE)
    items = (names(task.text) if named else []) or keywords(task.text, count)
    return "\n".join(f"- {item}" for item in items[:count])


def _echo(task: Task) -> str:
    match = re.search(
        rf"\b{_SAY}(?: only| just| exactly)?(?: the word)?\s*:?\s*(.+)",
        task.asked,
        re.IGNORECASE | re.DOTALL,
    )
    if match is None or len(match[1].split()) > 30:
        return ""
    said = match[1].strip().strip("\"'“”`").rstrip(".\"'”`")
    if not re.match(r"\W*say\b", task.asked, re.IGNORECASE):
        return said
    return said[:1].upper() + said[1:] + ("" if said.endswith(("!", "?")) else "!" if len(said.split()) < 3 else ".")


def _nothing_to_draw_on(task: Task) -> str:
    asks = {*NUMBERS, "explain", "describe", "write", "name", "list", "give", "tell", "sentence", "sentences", "short", "paragraph"}
    topic = " and ".join([word for word in keywords(task.asked, 6) if word.lower() not in asks][:2]) or "this"
    if task.material:
        return f"The text does not say anything about {topic}. It is about {', '.join(keywords(task.text, 3))}."
    if re.match(r"\W*(hi|hello|hey|good (?:morning|evening|day))\b", task.asked, re.IGNORECASE):
        return "Hello! Give me a text and a question about it, and I will answer from the text."
    asked = sentences(task.asked)
    restated = shorten(asked[0], 20).rstrip(".?! ") if asked else "an empty prompt"
    return (
        f"You asked: {restated}. There is nothing in the prompt about {topic} that I could draw on. "
        "Add a passage that covers it, and I will answer from that."
    )


_Writer = Callable[[Task], str]
_TASKS: tuple[tuple[str, _Writer], ...] = (
    (r"\btranslat", _translation),
    (r"\b(classif|categori[sz]|label|sentiment|one of:|either .+ or )", _label),
    (r"\b(title|headline)\b", _title),
    (r"\b(keywords?|entities|names of|extract)\b", _keywords),
    (r"\b(summar|sum up|shorten|condense|tl;?dr|bullets?|key points|in (?:one|two|three|\d+) (?:short )?sentences?)", _summary),
    (rf"\b{_SAY}\b", _echo),
)
