r"""Text of a model -> Markdown that is safe to show in a notebook, where fresh output is not sanitised and scripts in it run.

The idea: nothing of the model's text may become raw HTML, an address, or a TeX command that makes one, however a renderer reads the
rest. What looks like structure is read once, here, and written again in a form that every renderer reads alike:

- A code block begins and ends at the left margin between blank lines, with a fence longer than any run of backticks inside; it is
  the only place where `<` stays as it is. A block in a list or quotation moves to the margin. Diagram languages lose their name.
- A code span without special characters stays in backticks; any other becomes <code> with every special character as an entity. So
  it does not matter whether a renderer pairs backticks as we do.
- Links are written anew from their parts when they lead to http, https or mailto; others stay as text, with entities for brackets.
  Images become links unless they are asked for. Reference definitions and footnotes are text.
- Math ($..$, $$..$$, \\X
- Everything else: `<` and `&` as entities, backslash escapes as entities, no control or bidirectional formatting characters.

A prefix of a text is a text, so a half-streamed answer is safe too; an open code block is closed. Linear in the length of the text.
"""

from __future__ import annotations

import re

from nbllm.core.safe_inline import inline
from nbllm.core.safe_math import without_commands

_LINE_ENDS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_INVISIBLE = re.compile(r"[\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]")
"""Bidirectional overrides, invisible operators and tags: they can make a text look like another, and carry hidden ones."""

_FENCE = re.compile(
    r"(?P<quote>[ \t]{0,40}(?:>[ \t]?){0,20})(?P<marker>(?:[ \t]{0,40}(?:[-*+]|\d{1,9}[.)])[ \t]{1,20}){0,6})"
    r"(?P<indent>[ \t]{0,40})(?P<run>`{3,}|~{3,})(?P<info>[^\n]*)\Z"
)
_QUOTE = re.compile(r"[ \t]{0,40}(?:>[ \t]?){1,20}")
_MARKER = re.compile(r"(?P<indent>[ \t]*)(?:[-*+]|\d{1,9}[.)])(?:(?P<gap>[ \t]+)|\Z)")
_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_+#.-]{0,30}")
_BACKTICKS = re.compile(r"`+")
_NO_LANGUAGES = frozenset(("mermaid", "math", "html-preview", "vega", "vega-lite", "geojson", "topojson", "stl"))
"""Names on which some front end draws instead of showing the text, and may fetch what the text names."""

MAX_INDENT = 24


def safe_markdown(text: str, *, images: bool = False) -> str:
    """Return safe Markdown for a model's text. images: keep images that http and https addresses name; else they become links."""
    return _Writer(images).written(clean(text).split("\n"))


def escape_html(text: str) -> str:
    """Return text for use inside HTML, in an element or a quoted attribute: no tag, entity or Markdown of it lives.

    Math that a page would typeset has no unsafe command; to keep dollars from pairing, use an element of class mathjax_ignore.
    """
    return "".join(c if c.isalnum() or c in " \n,.;-" else f"&#{ord(c)};" for c in without_commands(clean(text)))


def clean(text: str) -> str:
    """Return text with newlines as line ends, U+FFFD for control and surrogate characters, and no invisible formatting."""
    text = _LINE_ENDS.sub("\n", text)
    return _INVISIBLE.sub("", _NO_TEXT.sub("\ufffd", text))


class _Writer:
    """Goes through the lines once, and tells code blocks from paragraphs."""

    def __init__(self, images: bool) -> None:
        self._images = images
        self._out: list[str] = []
        self._paragraph: list[str] = []
        self._list_offset: int | None = None
        """Where the text of the current list item begins; None outside of lists."""
        self._shift = 0
        """Columns by which the rest of a list item moves left after its code block moved to the margin."""

    def written(self, lines: list[str]) -> str:
        at = 0
        while at < len(lines):
            line = lines[at]
            fence = _FENCE.match(line) if "```" in line or "~~~" in line else None
            if fence and not (fence["run"][0] == "`" and "`" in fence["info"]):
                at = self._code_block(lines, at, fence)
            elif not line.strip():
                self._flush()
                self._out.append("")
                at += 1
            elif self._is_indented_code(line):
                at = self._indented_code(lines, at)
            else:
                self._paragraph.append(self._placed(line))
                at += 1
        self._flush()
        return "\n".join(self._out)

    def _flush(self) -> None:
        if self._paragraph:
            self._out.append(inline("\n".join(self._paragraph), images=self._images))
            self._paragraph = []

    # ------------------------------------------------------------------------------------------------ lists and indents

    def _placed(self, line: str) -> str:
        """Return the line with an indent that no renderer takes for code, and keep track of lists."""
        body = line.lstrip(" \t")
        indent = _columns(line[: len(line) - len(body)])
        if indent == 0:
            self._shift = 0
        indent = max(0, indent - self._shift)
        marker = _MARKER.match(body)
        if marker:
            limit = 3 if self._list_offset is None else self._list_offset
            indent = min(indent, max(limit, 0), MAX_INDENT)
            self._list_offset = indent + min(len(marker[0]), 8)
        elif self._list_offset is not None and indent > 0:
            indent = min(indent, self._list_offset, MAX_INDENT)
        else:
            if not self._paragraph:
                self._list_offset = None
            indent = min(indent, 3)
        return " " * indent + body

    def _is_indented_code(self, line: str) -> bool:
        return (
            not self._paragraph and self._list_offset is None and self._shift == 0 and _columns(line[:4]) >= 4 and _is_indent(line)
        )

    def _indented_code(self, lines: list[str], at: int) -> int:
        start = at
        while at < len(lines) and (not lines[at].strip() or _is_indent(lines[at])):
            at += 1
        end = at
        while not lines[end - 1].strip():
            end -= 1
        self._fenced([_dedented(line, 4) for line in lines[start:end]], "")
        return end

    # ------------------------------------------------------------------------------------------------ code blocks

    def _code_block(self, lines: list[str], at: int, fence: re.Match[str]) -> int:
        """Write the block that opens at `at`, and return the line behind it."""
        quoted = ">" in fence["quote"]
        if fence["marker"]:
            self._paragraph.append(self._placed(fence["quote"] + fence["marker"].rstrip()))
        self._flush()
        indent = _columns(("" if quoted else fence["quote"]) + fence["indent"]) + len(fence["marker"])
        if (self._list_offset is not None or fence["marker"]) and indent:
            self._shift = max(self._shift, indent)
        run = fence["run"]
        content: list[str] = []
        at += 1
        while at < len(lines):
            line = lines[at]
            if quoted:
                prefix = _QUOTE.match(line)
                if prefix is None:
                    break
                line = line[prefix.end() :]
            at += 1
            closing = line.strip()
            if len(closing) >= len(run) and closing == run[0] * len(closing):
                break
            content.append(_dedented(line, indent))
        self._fenced(content, fence["info"].strip())
        return at

    def _fenced(self, content: list[str], info: str) -> None:
        """Write a code block that begins and ends beyond doubt."""
        longest = max((len(run) for line in content if "```" in line for run in _BACKTICKS.findall(line)), default=0)
        fence = "`" * max(3, longest + 1)
        match = _LANGUAGE.match(info.lstrip("{."))
        language = match[0] if match and match[0].casefold() not in _NO_LANGUAGES else ""
        if self._out and self._out[-1] != "":
            self._out.append("")
        self._out += (fence + language, *content, fence, "")


def _columns(space: str) -> int:
    return len(space.expandtabs(4)) if "\t" in space else len(space)


def _is_indent(line: str) -> bool:
    return line.startswith(("    ", "\t", " \t", "  \t", "   \t"))


def _dedented(line: str, columns: int) -> str:
    """Return the line without up to so many columns of white space at its start."""
    if columns == 0:
        return line
    if "\t" in line[:columns]:
        body = line.lstrip(" \t")
        line = line[: len(line) - len(body)].expandtabs(4) + body
    return line[min(columns, len(line) - len(line.lstrip(" "))) :]
