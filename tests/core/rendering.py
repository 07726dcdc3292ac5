"""Independent renderers for Markdown, and what a page may hold. JupyterLab's handling of math is ported from its source (4.6.6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser

import mistune
from markdown_it import MarkdownIt

TAGS = frozenset(
    ("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "del", "s", "code", "pre", "span", "a", "ul", "ol", "li")
) | {"blockquote", "table", "thead", "tbody", "tr", "th", "td", "input", "div", "section", "sup"}
ATTRIBUTES = {
    "a": {"href", "class", "id"}, "code": {"class"}, "ol": {"start"}, "th": {"style", "align"}, "td": {"style", "align"},
    "input": {"type", "class", "disabled", "checked"}, "li": {"class", "id"},
}  # fmt: skip
STYLE = re.compile(r"text-align: ?(left|right|center);?\Z")
# As an HTML parser read it: a < that is left in an address by then was an entity, and opens nothing.
HREF = re.compile(r"(https?://|mailto:)[^\s\"'$\\`]+\Z", re.IGNORECASE)
LIVE_TEX = re.compile(
    r"\\(href|url|html|class|cssId|style|data|includegraphics|require|mmlToken|bbox|unicode|csname|def|let|newcommand)\b"
)


@dataclass
class Page(HTMLParser):
    """An HTML page as a browser would take it apart: what is wrong with it, and its text outside of code."""

    wrong: list[str] = field(default_factory=list)
    typeset: list[str] = field(default_factory=list)
    """Pieces of text that a math renderer would look at."""
    code: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._in_code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.wrong.append(f"<{tag} {attrs}>")
        for name, value in attrs:
            good = name in ATTRIBUTES.get(tag, set())
            if name == "href":
                good = good and value is not None and HREF.match(value) is not None
            if name == "style":
                good = good and STYLE.match(value or "") is not None
            if name == "class" and tag == "code":
                good = good and re.match(r"(language-[\w+#.-]*)?\Z", value or "") is not None
            if not good:
                self.wrong.append(f"<{tag} {name}={value!r}>")
        self._in_code += tag in {"code", "pre"}

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag in {"code", "pre"}

    def handle_data(self, data: str) -> None:
        if self._in_code > 0:
            self.code.append(data)
        else:
            self.typeset.append(data)
            if LIVE_TEX.search(data):
                self.wrong.append(f"live TeX: {data[:80]!r}")

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data[:40]!r}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"declaration {decl[:40]!r}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"instruction {data[:40]!r}")

    def unknown_decl(self, data: str) -> None:
        self.wrong.append(f"declaration {data[:40]!r}")


def page(html: str) -> Page:
    """Take a page apart."""
    parsed = Page()
    parsed.feed(html)
    parsed.close()
    return parsed


def renderings(markdown: str) -> dict[str, str]:
    """Return HTML by renderer, raw HTML allowed in each."""
    html = {
        "markdown-it": _commonmark().render(markdown),
        "mistune": str(_mistune()(markdown)),
    }
    text, math = remove_math(markdown)
    html["JupyterLab's math, markdown-it"] = replace_math(_commonmark().render(text), math)
    html["JupyterLab's math, mistune"] = replace_math(str(_mistune()(text)), math)
    return html


def _commonmark() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _mistune() -> mistune.Markdown:
    return mistune.create_markdown(escape=False, plugins=["strikethrough", "table", "url", "task_lists", "footnotes"])


_SPLIT = re.compile(r"(\$\$?|\\(?:begin|end)\{[a-z]*\*?\}|\\[{}$]|[{}]|(?:\n\s*)+|@@\d+@@|\\\\[()\[\]])", re.IGNORECASE)
_FENCED = re.compile(r"^(?P<fence>`{3,}|(?:~T){3,})[^`\n]*\n([\s\S]*?)^(?P=fence)`*$", re.MULTILINE)
_SPAN = re.compile(r"(^|[^\\])(`+)([^\n]*?[^`\n])\2(?!`)", re.MULTILINE)


def _without_dollars_of_code(text: str) -> tuple[str, Callable[[str], str]]:
    """Return the text with the dollars of code masked, and what brings them back."""
    if "`" not in text and "~~~" not in text:
        return text, str
    text = text.replace("~", "~T")
    for pattern in (_FENCED, _SPAN):
        text = pattern.sub(lambda m: m[0].replace("$", "~D"), text)
    return text, lambda part: re.sub("~([TD])", lambda m: "~" if m[1] == "T" else "$", part)


def remove_math(text: str) -> tuple[str, list[str]]:
    """Port of removeMath in @jupyterlab/rendermime: math is taken out before the Markdown is rendered."""
    text, unmask = _without_dollars_of_code(text)
    math: list[str] = []
    blocks = _SPLIT.split(re.sub("\r\n?", "\n", text))
    start = end = last = None
    braces = 0

    def process(first: int, final: int) -> None:
        part = "".join(blocks[first : final + 1]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for index in range(final, first, -1):
            blocks[index] = ""
        blocks[first] = f"@@{len(math)}@@"
        math.append(unmask(part))

    for at in range(1, len(blocks), 2):
        block = blocks[at]
        if block.startswith("@"):
            blocks[at] = f"@@{len(math)}@@"
            math.append(block)
        elif start is not None:
            if block == end:
                if braces:
                    last = at
                else:
                    process(start, at)
                    start = end = last = None
            elif re.search(r"\n.*\n", block):
                if last is not None:
                    process(start, last)
                start = end = last = None
                braces = 0
            elif block == "{":
                braces += 1
            elif block == "}" and braces:
                braces -= 1
        elif block in {"$", "$$"}:
            start, end, braces = at, block, 0
        elif block in {"\\\\(", "\\\\["}:
            start, end, braces = at, "\\\\)" if block.endswith("(") else "\\\\]", 0
        elif block[1:6] == "begin":
            start, end, braces = at, "\\end" + block[6:], 0
    if start is not None and last is not None:
        process(start, last)
    return unmask("".join(blocks)), math


def replace_math(html: str, math: list[str]) -> str:
    """Port of replaceMath: what was taken out comes back into the HTML."""

    def back(match: re.Match[str]) -> str:
        index = int(match[1])
        return math[index] if index < len(math) else "undefined"

    return re.sub(r"@@(\d+)@@", back, html)
