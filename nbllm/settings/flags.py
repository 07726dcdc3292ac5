"""The mechanism behind the magics' lines: one table of flags gives the parser, the manual and Tab completion.

A line is flags and a rest. What the rest is differs: nothing (`%%llm`), the prompt, kept to the letter (`%llm`), or words.
Nothing here knows IPython: the exporter reads the same lines from a file.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nbllm.settings.option import BadValue
from nbllm.settings.suggest import nearest

WIDTH = 80
_FLAG = re.compile(r"\s*(--?[A-Za-z][\w-]*)(=)?(?=\s|$|(?<==))")
_WORD = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\S+)""")


class BadLine(ValueError):
    """A magic's line that cannot be read; the message says which part of it, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. read: turns the text after it into a value (None: a switch, whose value is True); raises BadValue.

    dest: the value's name for the code. completes: what Tab offers for its value, a kind that nbllm.notebook.completion knows
    or a tuple of words. repeat: may be given more than once; its value is then a list.
    """

    names: tuple[str, ...]
    dest: str
    help: str
    read: Callable[[str], Any] | None = None
    metavar: str = ""
    completes: str | tuple[str, ...] = ()
    repeat: bool = False

    @property
    def shown(self) -> str:
        """The flag as the manual shows it."""
        return ", ".join(self.names) + (f" {self.metavar}" if self.metavar else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """One magic as people read it: usage lines, what it does, examples, its flags.

    words: what Tab offers for words that are no flags, None when the rest of the line is not words.
    """

    name: str
    summary: str
    usage: tuple[str, ...]
    examples: str
    flags: tuple[Flag, ...] = ()
    more: str = ""
    rest: Literal["none", "text", "words"] = "words"
    words: str | tuple[str, ...] = ()

    def flag(self, name: str) -> Flag | None:
        """Return the flag of that name, dashes included, or None."""
        return next((f for f in self.flags if name in f.names), None)

    @property
    def names(self) -> list[str]:
        """All names of all flags."""
        return [name for flag in self.flags for name in flag.names]

    def text(self) -> str:
        """Return the manual as it is shown by `?`, 80 columns wide."""
        parts = [self.summary, "\n".join(f"    {line}" for line in self.usage)]
        parts.append("Examples\n--------\n" + textwrap.dedent(self.examples).strip("\n"))
        if self.flags:
            parts.append("Options\n-------\n" + "\n".join(_flag_lines(self.flags)))
        if self.more:
            parts.append(textwrap.dedent(self.more).strip("\n"))
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line taken apart: values by dest (only those that were given), and the rest as text and as words."""

    values: Mapping[str, Any]
    rest: str = ""
    words: tuple[str, ...] = field(default=())


def _flag_lines(flags: tuple[Flag, ...]) -> list[str]:
    column = min(30, max(len(f.shown) for f in flags) + 4)
    lines: list[str] = []
    for flag in flags:
        body = textwrap.wrap(flag.help, WIDTH - column)
        head = f"  {flag.shown}"
        if len(head) >= column:
            lines.append(head)
            head = ""
        lines += [f"{head:<{column}}{body[0]}", *(" " * column + line for line in body[1:])]
    return lines


def unquoted(word: str) -> str:
    """Return a word without the quotes around it; within them a backslash takes the next quote or backslash literally."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'":
        return re.sub(rf"\\([\\{word[0]}])", r"\1", word[1:-1])
    return word


def _value_text(manual: Manual, flag: Flag, name: str, line: str, at: int, *, attached: bool) -> tuple[str, int]:
    match = _WORD.match(line, at)
    word = match.group(1) if match else ""
    missing = (
        match is None or (attached and match.start(1) != at) or (not attached and manual.flag(word.partition("=")[0]) is not None)
    )
    if missing or match is None:
        raise BadLine(f"{name} needs a value: {name} {flag.metavar}. {flag.help}")
    return unquoted(word), match.end()


def _unknown(manual: Manual, name: str) -> BadLine:
    best = nearest(name, manual.names)
    tip = (
        f"Did you mean {best}?" if best else f"Its options are {', '.join(manual.names)}." if manual.flags else "It has no options."
    )
    return BadLine(f"{manual.name} has no option {name}. {tip} ({manual.name}? is the manual.)")


def parse(manual: Manual, line: str) -> Parsed:
    """Return the line's values and rest.

    Raises BadLine, in words for people, for an unknown flag, a missing or bad value, and words where none belong.
    A word that begins with # begins a comment. With rest="text" flags come first, and everything from the first word that is
    none, or after `--`, is the text.
    """
    values: dict[str, Any] = {}
    words: list[str] = []
    at = 0
    while line[at:].strip():
        match = _FLAG.match(line, at)
        if match is None:
            word = _WORD.match(line, at)
            if word is None:  # cannot be: there is something that is not blank
                break
            if manual.rest == "text":
                rest = line[word.end() :] if word.group(1) == "--" else line[word.start(1) :]
                return Parsed(values, rest.strip())
            if word.group(1).startswith("#"):
                break
            words.append(unquoted(word.group(1)))
            at = word.end()
            continue
        name, attached = match.group(1), bool(match.group(2))
        flag = manual.flag(name)
        if flag is None:
            raise _unknown(manual, name)
        at = match.end()
        if flag.read is None:
            if attached:
                raise BadLine(f"{name} is a switch and takes no value.")
            values[flag.dest] = True
            continue
        text, at = _value_text(manual, flag, name, line, at, attached=attached)
        _take(values, flag, name, text)
    if words and manual.rest == "none":
        raise BadLine(_stray(manual, words[0]))
    return Parsed(values, " ".join(words), tuple(words))


def _take(values: dict[str, Any], flag: Flag, name: str, text: str) -> None:
    if flag.dest in values and not flag.repeat:
        raise BadLine(f"{name} is given twice.")
    try:
        value = flag.read(text) if flag.read else True
    except BadValue as error:
        raise BadLine(f"{name} {text}: {error.problem}.{' ' + error.hint if error.hint else ''}") from None
    if flag.repeat:
        values.setdefault(flag.dest, []).append(value)
    else:
        values[flag.dest] = value


def _stray(manual: Manual, word: str) -> str:
    model = f" For a model write -m {word}." if manual.flag("-m") and "/" in word else ""
    return f"{word!r} is no option of {manual.name}: options stand on this line, the prompt on the lines below.{model}"
