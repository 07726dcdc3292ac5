"""Make the English word lists of nbllm/core/guards/data from WordNet 3.0 and SCOWL; data/LICENSES has their terms.

    python scripts/guard_words.py WORDNET_FOLDER SCOWL_FILE LARGER_FILE...

WORDNET_FOLDER holds index.*, data.* and *.exc; SCOWL_FILE (size 35) has one word a line, and so have the LARGER_FILEs (size 60,
American and British spelling), whose other words become rare_en.txt. On Debian: packages wordnet-base, wamerican-small, wamerican
and wbritish. The German and Spanish lists, and everything in words_*.txt and general_*.txt, are written by hand for this project.
"""

from __future__ import annotations

import sys
from pathlib import Path

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
    adjectives = {
        line.split()[0] for line in (wordnet / "index.adj").read_text(encoding="utf-8").splitlines() if not line.startswith(" ")
    }
    for word in sorted(adjectives & plain):
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
    found: list[tuple[str, str, int, str, int]] = []
    for pos, letter in POS.items():
        for line in (wordnet / f"data.{pos}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            parts = line.split(" | ")[0].split()
            count = int(parts[3], base=16)
            words_of[letter, parts[0]] = [parts[4 + 2 * i].split("(")[0] for i in range(count)]
            at = 4 + 2 * count
            for i in range(int(parts[at])):
                symbol, target, target_pos, ends = parts[at + 1 + 4 * i : at + 5 + 4 * i]
                if symbol == "!":
                    source, to = divmod(int(ends, base=16), 256)
                    found.append((letter, parts[0], source, target_pos + target, to))
    pairs = set()
    for letter, offset, source, target, to in found:
        a, b = words_of[letter, offset][source - 1].lower(), words_of[target[0], target[1:]][to - 1].lower()
        a, b = lemma(a, common, irregular), lemma(b, common, irregular)
        if a in common and b in common and a != b:
            pairs.add((min(a, b), max(a, b)))
    return pairs


def indirect(wordnet: Path, common: set[str]) -> set[tuple[str, str]]:
    """Return pairs of an adjective in its first sense and the opposite of the adjective that it is similar to ("moist", "dry")."""
    words: dict[str, list[str]] = {}
    similar: list[tuple[str, str]] = []
    opposite: dict[str, str] = {}
    for line in (wordnet / "data.adj").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        parts = line.split(" | ")[0].split()
        count = int(parts[3], base=16)
        words[parts[0]] = [parts[4 + 2 * i].split("(")[0].lower() for i in range(count)]
        at = 4 + 2 * count
        for i in range(int(parts[at])):
            symbol, target = parts[at + 1 + 4 * i : at + 3 + 4 * i]
            if symbol == "&":
                similar.append((parts[0], target))
            elif symbol == "!":
                opposite[parts[0]] = target
    lines = [line.split() for line in (wordnet / "index.adj").read_text(encoding="utf-8").splitlines() if not line.startswith(" ")]
    first = {line[0]: line[-int(line[2])] for line in lines}
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
        for line in (wordnet / f"data.{pos}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            parts = line.split(" | ")[0].split()
            count = int(parts[3], base=16)
            here = (letter, parts[0])
            found = (parts[4 + 2 * i].split("(")[0].lower() for i in range(count))
            words[here] = [word for word in found if (word, *here) in early and _usable(word, listed)]
            at = 4 + 2 * count
            for i in range(int(parts[at])):
                symbol, target, target_pos = parts[at + 1 + 4 * i : at + 4 + 4 * i]
                if symbol == "!":
                    opposed.add((here, (target_pos.replace("s", "a"), target)))
    pairs = ((one, two) for here, there in opposed for one in words[here] for two in words[there])
    return {(min(one, two), max(one, two)) for one, two in pairs if one != two}


def early_senses(wordnet: Path) -> set[tuple[str, str, str]]:
    """Return (word, part of speech, offset) of the first senses of each word."""
    found: set[tuple[str, str, str]] = set()
    for pos, letter in POS.items():
        for line in (wordnet / f"index.{pos}").read_text(encoding="utf-8").splitlines():
            parts = line.split()
            if line[0] != " ":
                senses = parts[-int(parts[2]) :][: 1 if "_" in parts[0] else EARLY_SENSES]
                found.update((parts[0], letter, offset) for offset in senses)
    return found


def kinds(wordnet: Path, listed: set[str]) -> set[tuple[str, ...]]:
    """Return groups of animals, parts of the body, foods and plants that are the same sort of thing: each is another one."""
    lines = (wordnet / "index.noun").read_text(encoding="utf-8").splitlines()
    first = {line.split()[0]: line.split()[-int(line.split()[2])] for line in lines if line[0] != " "}
    groups: dict[str, set[str]] = {}
    for line in (wordnet / "data.noun").read_text(encoding="utf-8").splitlines():
        parts = line.split(" | ")[0].split()
        if line.startswith(" ") or parts[1] not in NATURAL:
            continue
        count = int(parts[3], base=16)
        words = [word for word in (parts[4 + 2 * i].lower() for i in range(count)) if word in listed and first[word] == parts[0]]
        at = 4 + 2 * count
        for i in range(int(parts[at])):
            symbol, target = parts[at + 1 + 4 * i : at + 3 + 4 * i]
            if symbol.startswith("@"):
                groups.setdefault(target, set()).update(words)
    return {tuple(sorted(group)) for group in groups.values() if 1 < len(group) <= MOST_OF_A_KIND}


def synonyms(wordnet: Path, common: set[str], listed: set[str]) -> set[tuple[str, ...]]:
    """Return groups of words that mean the same in one of their first senses, one of them common; with verbs such as "take out"."""
    groups: set[tuple[str, ...]] = set()
    for pos in POS:
        index = [line.split() for line in (wordnet / f"index.{pos}").read_text(encoding="utf-8").splitlines() if line[0] != " "]
        senses = (
            (line[0], line[-int(line[2]) :]) for line in index
        )  # a verb of two words says too many things in others than its first
        early = {(word, offset) for word, offsets in senses for offset in offsets[: 1 if "_" in word else EARLY_SENSES]}
        for line in (wordnet / f"data.{pos}").read_text(encoding="utf-8").splitlines():
            parts = line.split(" | ")[0].split()
            if line.startswith(" "):
                continue
            words = (parts[4 + 2 * i].split("(")[0] for i in range(int(parts[3], base=16)))
            group = {word for word in words if (word, parts[0]) in early and _usable(word, listed)}
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
