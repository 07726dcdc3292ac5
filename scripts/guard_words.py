"""Make the English word lists of nbllm/core/guards/data from WordNet 3.0 and SCOWL; data/LICENSES has their terms.

    python scripts/guard_words.py WORDNET_FOLDER SCOWL_FILE LARGER_FILE...

WORDNET_FOLDER holds index.*, data.* and *.exc; SCOWL_FILE (size 35) has one word a line, and so have the LARGER_FILEs (size 60,
American and British spelling), whose other words become rare_en.txt. On Debian: packages wordnet-base, wamerican-small, wamerican
and wbritish. The German and Spanish lists, and everything in words_*.txt and general_*.txt, are written by hand for this project.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nbllm.core.guards.lemmas import candidates

DATA = Path(__file__).parent.parent / "nbllm" / "core" / "guards" / "data"
POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
SMALLEST = 3
EARLY_SENSES = 2  # of a word, as WordNet orders them: by how frequent they are
NATURAL = frozenset(["05", "08", "13", "20"])  # the numbers of WordNet's files of animals, bodies, foods and plants
MOST_OF_A_KIND = 40
PARTICLES = frozenset(["up", "down", "in", "on", "off", "out", "over", "away", "back"])  # of verbs of two words
# Words in -er that are seldom the comparative that they look like ("offer" of "off").
NO_COMPARATIVES = frozenset(
    {
        "archer",
        "backer",
        "beater",
        "blamer",
        "bluffer",
        "bother",
        "broker",
        "buffer",
        "camper",
        "chiefer",
        "cracker",
        "customer",
        "dimer",
        "dresser",
        "feller",
        "fiver",
        "flasher",
        "flusher",
        "foreigner",
        "forwarder",
        "founder",
        "gamer",
        "halter",
        "hardliner",
        "hinder",
        "insider",
        "juster",
        "leer",
        "liker",
        "liter",
        "mariner",
        "matter",
        "muster",
        "number",
        "offer",
        "outsider",
        "owner",
        "passer",
        "peter",
        "plumber",
        "porter",
        "presenter",
        "pretender",
        "primer",
        "puffer",
        "punker",
        "savager",
        "signer",
        "sizer",
        "skewer",
        "sneaker",
    }
)


class Pointer(NamedTuple):
    """What leads from one synset to another. source, target: numbers of the words that it is between, from 1; 0: all of them."""

    symbol: str
    pos: str
    offset: str
    source: int
    target: int


class Synset(NamedTuple):
    """Words that mean the same. offset: its name within its part of speech. field: the number of the file it was written in."""

    offset: str
    field: str
    words: list[str]
    pointers: list[Pointer]


def synsets(wordnet: Path, pos: str) -> Iterator[Synset]:
    """Yield what a part of speech has; the layout is that of wndb(5WN), and satellites of adjectives count as adjectives."""
    for line in _entries(wordnet / f"data.{pos}"):
        parts = line.split(" | ")[0].split()
        at = 4 + 2 * int(parts[3], base=16)
        words = [word.split("(")[0] for word in parts[4:at:2]]
        pointers = []
        for i in range(at + 1, at + 1 + 4 * int(parts[at]), 4):
            symbol, offset, letter, ends = parts[i : i + 4]
            pointers.append(Pointer(symbol, letter.replace("s", "a"), offset, *divmod(int(ends, base=16), 256)))
        yield Synset(parts[0], parts[1], words, pointers)


def senses(wordnet: Path, pos: str) -> dict[str, list[str]]:
    """Return word -> the offsets of its synsets, the most frequent sense first."""
    lines = (line.split() for line in _entries(wordnet / f"index.{pos}"))
    return {line[0]: line[-int(line[2]) :] for line in lines}


def _entries(file: Path) -> Iterator[str]:
    """Yield the lines of a file of WordNet but for its licence, which is indented."""
    return (line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(" "))


def plain_words(scowl: Path) -> set[str]:
    """Return words written in small ASCII letters: no names, no possessives."""
    lines = scowl.read_text(encoding="utf-8").split()
    return {word for word in lines if word.isascii() and word.isalpha() and word.islower() and len(word) >= SMALLEST}


def irregular_forms(wordnet: Path, plain: set[str]) -> dict[str, str]:
    """Return form -> base from WordNet's exception lists, and comparatives of its adjectives ("cheaper" -> "cheap")."""
    forms: dict[str, str] = {}
    for pos in ("verb", "noun", "adj", "adv"):
        for line in (wordnet / f"{pos}.exc").read_text(encoding="utf-8").splitlines():
            form, base = line.split()[:2]
            if form in plain and base in plain and form != base:
                forms.setdefault(form, base)
    adjectives = senses(wordnet, "adj")
    for word in sorted(adjectives.keys() & plain):
        stem = word[:-1] if word.endswith("e") else word[:-1] + "i" if word.endswith("y") else word
        for form in (stem + "er", stem + "est"):
            if form in plain and form not in adjectives and form not in NO_COMPARATIVES:
                forms.setdefault(form, word)
    return forms


def bases(plain: set[str], irregular: dict[str, str]) -> set[str]:
    """Return the words that are no inflection of another word of the list."""
    return {word for word in plain if word not in irregular and not any(base in plain for base in candidates(word))}


def lemma(word: str, common: set[str], irregular: dict[str, str]) -> str:
    """Return the base that the guards will see for a word."""
    if word in irregular:
        return irregular[word]
    return word if word in common else next((base for base in candidates(word) if base in common), word)


def rare(common: set[str], irregular: dict[str, str], files: list[Path]) -> set[str]:
    """Return the words of larger lists that are neither common, nor a form of a word of either list, nor a name."""
    words = set().union(*(plain_words(file) for file in files))
    names = {word.lower() for file in files for word in file.read_text(encoding="utf-8").split() if word[0].isupper()}
    found: set[str] = set()
    for word in sorted(words - names - common - irregular.keys(), key=lambda word: (len(word), word)):
        if not any(base in common or base in found for base in candidates(word)):
            found.add(word)
    return found


def antonyms(wordnet: Path, common: set[str], irregular: dict[str, str]) -> set[tuple[str, str]]:
    """Return pairs of common words that are opposites."""
    words_of: dict[tuple[str, str], list[str]] = {}
    found: list[tuple[tuple[str, str], Pointer]] = []
    for pos, letter in POS.items():
        for synset in synsets(wordnet, pos):
            here = letter, synset.offset
            words_of[here] = synset.words
            found.extend((here, pointer) for pointer in synset.pointers if pointer.symbol == "!")
    pairs = set()
    for here, pointer in found:
        a, b = words_of[here][pointer.source - 1], words_of[pointer.pos, pointer.offset][pointer.target - 1]
        a, b = lemma(a.lower(), common, irregular), lemma(b.lower(), common, irregular)
        if a in common and b in common and a != b:
            pairs.add((min(a, b), max(a, b)))
    return pairs


def indirect(wordnet: Path, common: set[str]) -> set[tuple[str, str]]:
    """Return pairs of an adjective in its first sense and the opposite of the adjective that it is similar to ("moist", "dry")."""
    words: dict[str, list[str]] = {}
    similar: list[tuple[str, str]] = []
    opposite: dict[str, str] = {}
    for synset in synsets(wordnet, "adj"):
        words[synset.offset] = [word.lower() for word in synset.words]
        for pointer in synset.pointers:
            if pointer.symbol == "&":
                similar.append((synset.offset, pointer.offset))
            elif pointer.symbol == "!":
                opposite[synset.offset] = pointer.offset
    first = {word: offsets[0] for word, offsets in senses(wordnet, "adj").items()}
    return {
        (min(word, other), max(word, other))
        for head, satellite in similar
        if head in opposite
        for word in words[satellite]
        for other in words[opposite[head]]
        if word != other and {word, other} <= common and first.get(word) == satellite
    }


def sense_antonyms(wordnet: Path, listed: set[str]) -> set[tuple[str, str]]:
    """Return pairs of words that mean, in one of their first senses, what two opposites mean ("inhale", "breathe_out")."""
    early = early_senses(wordnet)
    words: dict[tuple[str, str], list[str]] = {}
    opposed: set[tuple[tuple[str, str], tuple[str, str]]] = set()
    for pos, letter in POS.items():
        for synset in synsets(wordnet, pos):
            here = (letter, synset.offset)
            found = (word.lower() for word in synset.words)
            words[here] = [word for word in found if (word, *here) in early and _usable(word, listed)]
            opposed.update((here, (pointer.pos, pointer.offset)) for pointer in synset.pointers if pointer.symbol == "!")
    pairs = ((one, two) for here, there in opposed for one in words[here] for two in words[there])
    return {(min(one, two), max(one, two)) for one, two in pairs if one != two}


def early_senses(wordnet: Path) -> set[tuple[str, str, str]]:
    """Return (word, part of speech, offset) of the first senses of each word.

    A verb of two words says too many things in others than its first.
    """
    return {
        (word, letter, offset)
        for pos, letter in POS.items()
        for word, offsets in senses(wordnet, pos).items()
        for offset in offsets[: 1 if "_" in word else EARLY_SENSES]
    }


def kinds(wordnet: Path, listed: set[str]) -> set[tuple[str, ...]]:
    """Return groups of animals, parts of the body, foods and plants that are the same sort of thing: each is another one."""
    first = {word: offsets[0] for word, offsets in senses(wordnet, "noun").items()}
    groups: dict[str, set[str]] = {}
    for synset in synsets(wordnet, "noun"):
        if synset.field not in NATURAL:
            continue
        words = [word for word in map(str.lower, synset.words) if word in listed and first[word] == synset.offset]
        for pointer in synset.pointers:
            if pointer.symbol.startswith("@"):
                groups.setdefault(pointer.offset, set()).update(words)
    return {tuple(sorted(group)) for group in groups.values() if 1 < len(group) <= MOST_OF_A_KIND}


def synonyms(wordnet: Path, common: set[str], listed: set[str]) -> set[tuple[str, ...]]:
    """Return groups of words that mean the same in one of their first senses, one of them common; with verbs such as "take out"."""
    early = early_senses(wordnet)
    groups: set[tuple[str, ...]] = set()
    for pos, letter in POS.items():
        for synset in synsets(wordnet, pos):
            group = {word for word in synset.words if (word, letter, synset.offset) in early and _usable(word, listed)}
            if len(group) > 1 and not group.isdisjoint(common):
                groups.add(tuple(sorted(group)))
    return groups


def _usable(word: str, listed: set[str]) -> bool:
    verb, _, particle = word.partition("_")
    return verb in listed and (not particle or particle in PARTICLES)


def main() -> None:
    """Write common_en.txt, rare_en.txt, irregular_en.txt, antonyms_en.txt, kinds_en.txt and synonyms_en.txt."""
    wordnet, scowl = Path(sys.argv[1]), Path(sys.argv[2])
    plain = plain_words(scowl)
    irregular = irregular_forms(wordnet, plain)
    common = bases(plain, irregular) | set(irregular.values())
    rarer = rare(common, irregular, [Path(name) for name in sys.argv[3:]])
    pairs = antonyms(wordnet, common, irregular) | indirect(wordnet, common) | sense_antonyms(wordnet, common | rarer)
    lines = {
        "common_en": sorted(common),
        "rare_en": sorted(rarer),
        "irregular_en": [f"{form} {base}" for form, base in sorted(irregular.items())],
        "antonyms_en": [" ".join(pair) for pair in sorted(pairs)],
        "kinds_en": [" ".join(group) for group in sorted(kinds(wordnet, common | rarer))],
        "synonyms_en": [" ".join(group) for group in sorted(synonyms(wordnet, common, common | rarer))],
    }
    for name, content in lines.items():
        (DATA / f"{name}.txt").write_text("\n".join(content) + "\n", encoding="utf-8", newline="\n")
        print(f"{name}.txt: {len(content):,} lines")


if __name__ == "__main__":
    main()
