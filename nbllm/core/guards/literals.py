"""Guard "quotes": what is quoted or written as code in one text is so in the other, capitals apart."""

from __future__ import annotations

import re

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

QUOTED = re.compile(r"\"([^\"]{1,200})\"|(?:(?<=\s)|^)'([^']{1,200})'(?=[\s.,;:?!)]|$)")
CODE = re.compile(r"[A-Za-z0-9]_[A-Za-z0-9]|::|\w\(\)|\w@\w|://|\w[/\\]\w+[/\\]|[a-z]\.[a-z]{2}")
OPTION = re.compile(r"--?[a-zA-Z][\w-]{0,80}\Z")
SIGNS_OF_CODE = re.compile(r"_|::|\(\)|@|[/\\]|[a-z]\.[a-z]|(?:^|\s)[\"'`]?-")  # nothing of the two without one of these
LONGEST_CODE = 300  # characters of a piece without spaces that are searched for signs of code
OPERATORS = re.compile(
    r"[=!<>]=+|&&|\|\||->|=>|\*\*|\+\+|<<|>>|(?<![\w!])!(?=[\w(])|(?<=\s)[=+*/%|^~](?=\s)|:=|[<>\u2264\u2265\u2260\u2248\u00b1]"
)
OPERATOR_SIGNS = re.compile(r"[=!<>&|*+/%^~:\u2264\u2265\u2260\u2248\u00b1]|->")
SIGNS = re.compile(r"[^\w\s]")


def quotes(here: Reading, there: Reading) -> Verdict:
    """Return whether quoted strings, code, options, addresses and operators are the same, capitals apart."""
    if here.text.original.isalpha() and there.text.original.isalpha():
        return passed("quotes")
    mine, theirs = _literals(here), _literals(there)
    only_mine, only_theirs = _absent(mine - theirs, there), _absent(theirs - mine, here)
    if only_mine or only_theirs:
        return apart("quotes", ", ".join(sorted(only_mine)[:3]), ", ".join(sorted(only_theirs)[:3]))
    signs_here, signs_there = _operators(here.text.original), _operators(there.text.original)
    if signs_here != signs_there:
        return apart("quotes", " ".join(sorted(signs_here - signs_there)), " ".join(sorted(signs_there - signs_here)))
    return passed("quotes")


def _operators(text: str) -> set[str]:
    return set(OPERATORS.findall(text)) if OPERATOR_SIGNS.search(text) else set()


def _literals(reading: Reading) -> frozenset[str]:
    text = reading.text.original
    found = {one or two for one, two in QUOTED.findall(text)} if "'" in text or '"' in text else set()
    for piece in text.split() if SIGNS_OF_CODE.search(text) else ():
        bare = piece.strip("\"'`,;?!")
        if bare.isalpha() or not any(map(str.isalpha, bare[:LONGEST_CODE])):
            continue
        if CODE.search(bare[:LONGEST_CODE]) or OPTION.match(bare):
            found.add(bare.rstrip(".:)("))
    return frozenset(" ".join(literal.casefold().split()) for literal in found if literal.strip())


def _absent(literals: frozenset[str], there: Reading) -> set[str]:
    """Return the literals that the other text does not have in other dress ("the word calumny" for "the word 'calumny'")."""
    if not literals:
        return set()
    text = _spaced(there.text.original)
    return {literal for literal in literals if _spaced(literal.removesuffix(".js")) not in text or literal.startswith("-")}


def _spaced(text: str) -> str:
    return f" {' '.join(SIGNS.sub(' ', text.casefold()).split())} "
