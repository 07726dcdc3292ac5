"""The inline half of nbllm.core.safe_markdown: one paragraph of a model's text -> safe inline Markdown."""

from __future__ import annotations

import re
from bisect import bisect_right

from nbllm.core.safe_math import ENVIRONMENTS, UNSAFE_COMMAND, balanced, safe_tex, without_commands
from nbllm.core.safe_url import safe_url

_SPECIAL = re.compile(r"\n|\\|`+|<+|&|!?\[|\]|\$+|@@+|~{3,}|://|[*_]{7,}")
_PREFIX = re.compile(r"(?:[ \t]*(?:>|(?:[-*+]|\d{1,9}[.)])(?=[ \t]|$)))*[ \t]*", re.MULTILINE)
_MARKERS = re.compile(r">|(?:[-*+]|\d{1,9}[.)])(?=[ \t]|$)", re.MULTILINE)
_TASK = re.compile(r"\[[ xX]\](?=[ \t])")
_RULE = re.compile(r"[ \t]{0,3}(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$", re.MULTILINE)
_ENTITY = re.compile(
    r"&(?:lt|gt|amp|quot|apos|nbsp|copy|reg|trade|hellip|mdash|ndash|lsquo|rsquo|ldquo|rdquo|bull|middot|times|divide|deg|plusmn|"
    r"larr|rarr|harr|uarr|darr|le|ge|ne|asymp|infin|euro|pound|sect|para|alpha|beta|gamma|delta|lambda|mu|pi|sigma|omega);"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,2000})>", re.IGNORECASE)
_DESTINATION = re.compile(
    r"\(\s{0,8}(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()<>]{0,500}\)[^\s()<>]{0,2000}){0,4}))"
    r"(?:\s{1,8}(?:\"[^\"\n]{0,500}\"|'[^'\n]{0,500}'|\([^()\n]{0,500}\)))?\s{0,8}\)"
)
_PLAIN_SPAN = re.compile(r"[^`<>&$|\\\"@\[\]!\n]*\Z")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 \u00a0-\U0010ffff]")
_BEGIN = re.compile(r"begin\{([a-zA-Z]{1,20}\*?)\}")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_ENTITIES = {c: f"&#{ord(c)};" for c in _PUNCTUATION}
_WEB = ("http", "https")
MAX_MARKERS = 8
MAX_LINK_TEXT = 1000
DOLLAR = "<span>&#36;</span>"
"""A dollar sign that no renderer pairs with another: math does not reach across elements."""


def inline(text: str, *, images: bool = False, links: bool = True) -> str:
    """Return safe Markdown for one paragraph (lines without a blank one between them), whatever is in it."""
    return _Inline(text, images=images, links=links).written()


def entities(text: str) -> str:
    """Return text with every character that could mean something as a numeric entity."""
    if len(text) == 1:
        return _ENTITIES.get(text) or f"&#{ord(text)};"
    return _NOT_PLAIN.sub(lambda m: f"&#{ord(m[0])};", text)


class _Inline:
    """Goes through a paragraph once, from one special character to the next."""

    def __init__(self, text: str, *, images: bool, links: bool) -> None:
        self._text = text
        self._images = images
        self._links = links
        self._out: list[str] = []
        self._ticks: dict[int, list[int]] = {}
        self._in_table = False
        self._hopeless: set[str] = set()
        """Closing delimiters that do not come any more, so that nobody looks for them again."""
        for match in re.finditer("`+", text):
            self._ticks.setdefault(len(match[0]), []).append(match.start())

    def written(self) -> str:
        text, out = self._text, self._out
        at = self._line_start(0)
        while match := _SPECIAL.search(text, at):
            out.append(text[at : match.start()])
            at = self._special(match[0], match.start())
        out.append(text[at:])
        return "".join(out)

    def _special(self, mark: str, at: int) -> int:
        """Write what stands at a special character, and return the place behind it."""
        first = mark[0]
        if mark == "\n":
            self._out.append("\n")
            return self._line_start(at + 1)
        if first == "\\":
            return self._backslash(at)
        if first == "`":
            return self._code_span(mark, at)
        if first == "<":
            return self._less_than(mark, at)
        if first == "$":
            return self._dollar(mark, at)
        if mark.endswith("["):
            return self._bracket(mark, at)
        if first == ":":
            scheme = re.search(r"[A-Za-z0-9+.-]{0,12}\Z", self._text[max(0, at - 12) : at])
            self._out.append(mark if scheme and scheme[0].lower().endswith(_WEB) else "&#58;//")
            return at + len(mark)
        if first == "&" and (entity := _ENTITY.match(self._text, at)):
            self._out.append(entity[0])
            return entity.end()
        self._out.append("&amp;" if first == "&" else entities(mark))
        return at + len(mark)

    def _line_start(self, at: int) -> int:
        """Write the quotation and list markers of a line as they are, up to a depth that renderers bear."""
        if rule := _RULE.match(self._text, at):
            self._out.append(rule[0][:80])
            return rule.end()
        prefix = _PREFIX.match(self._text, at)
        if prefix is None:
            return at
        self._in_table = self._text.startswith("|", prefix.end())
        markers = list(_MARKERS.finditer(prefix[0], 0, 400))
        if len(markers) > MAX_MARKERS or len(prefix[0]) > 400:
            cut = markers[min(len(markers), MAX_MARKERS) - 1].end() if markers else 0
            self._out += (prefix[0][:cut], " ", entities(prefix[0][cut : cut + 200].strip()), " ")
            return prefix.end()
        self._out.append(prefix[0])
        if markers and (task := _TASK.match(self._text, prefix.end())):
            self._out.append(task[0])
            return task.end()
        return prefix.end()

    # ------------------------------------------------------------------------------------------------ code and HTML

    def _code_span(self, run: str, at: int) -> int:
        """Write a code span when the same run of backticks comes again on this line, else the backticks as text."""
        start = at + len(run)
        places = self._ticks.get(len(run), [])
        index = bisect_right(places, at)
        if index < len(places):
            end = places[index]
            line_end = self._text.find("\n", start, end)
            if line_end < 0 and end > start:
                self._out.append(self._code(self._text[start:end]))
                return end + len(run)
        self._out.append(entities(run))
        return start

    def _code(self, content: str) -> str:
        if content.strip(" ") and content[0] == content[-1] == " ":
            content = content[1:-1]
        if _PLAIN_SPAN.match(content) and "://" not in content and "www." not in content.lower():
            return f"`{content}`"
        if self._in_table:
            content = content.replace("\\|", "|")  # how a table writes a bar in code
        return f"<code>{entities(content)}</code>"

    def _less_than(self, run: str, at: int) -> int:
        link = _AUTOLINK.match(self._text, at) if len(run) == 1 and self._links else None
        url = safe_url(link[1]) if link else None
        if link and url:
            self._out.append(f"[{entities(without_commands(link[1]))}]({url})")
            return link.end()
        self._out.append("&lt;" * len(run))
        return at + len(run)

    # ------------------------------------------------------------------------------------------------ links

    def _bracket(self, opening: str, at: int) -> int:
        """Write a link anew when it is one and leads where it may, else the bracket as text."""
        start = at + len(opening)
        close = self._text.find("](", start, start + MAX_LINK_TEXT) if self._links else -1
        label = self._text[start:close] if close >= 0 else ""
        if close >= 0 and label.count("[") == label.count("]"):
            target = _DESTINATION.match(self._text, close + 1)
            url = safe_url(target[1] if target[1] is not None else target[2]) if target else None
            if target and url:
                self._out.append(self._link(label, url, image=opening == "!["))
                return target.end()
        self._out.append(entities(opening))
        return start

    def _link(self, label: str, url: str, *, image: bool) -> str:
        label = label.replace("\n", " ").strip()
        if image and self._images and not url.startswith("mailto:"):
            return f"![{re.sub('[^A-Za-z0-9 ,.-]', ' ', label)}]({url})"
        shown = inline(label, links=False) if label else entities(without_commands(url[:100]))
        return f"[image: {shown}]({url})" if image else f"[{shown}]({url})"

    # ------------------------------------------------------------------------------------------------ backslashes and math

    def _backslash(self, at: int) -> int:
        text, after = self._text, self._text[at + 1 : at + 2]
        if after in {"(", "["}:
            closing, mark = ("\\)", "$") if after == "(" else ("\\]", "$$")
            end = self._math(at + 2, closing, mark)
            if end:
                return end
        elif begin := _BEGIN.match(text, at + 1):
            end = self._environment(begin, at)
            if end:
                return end
        if UNSAFE_COMMAND.match(text, at):
            self._out.append("&#92;&#8288;")  # a word joiner: it looks the same, and is no command for what typesets the page later
            return at + 1
        if after == "\n":
            self._out.append("\\")
            return at + 1
        if after in {"$", "<"}:
            self._out.append(DOLLAR if after == "$" else "&lt;")
            return at + 2
        if after and after in _PUNCTUATION and after != "\\":
            self._out.append(entities(after))
            return at + 2
        if after == "\\" and UNSAFE_COMMAND.match(text, at + 1):
            self._out.append("&#92;&#8288;")
            return at + 2
        self._out.append("&#92;")
        return at + (2 if after == "\\" else 1)

    def _dollar(self, run: str, at: int) -> int:
        if len(run) == 2:
            end = self._math(at + 2, "$$", "$$")
            if end:
                return end
        elif len(run) == 1:
            end = self._inline_math(at)
            if end:
                return end
        self._out.append(DOLLAR * min(len(run), 100))
        return at + len(run)

    def _inline_math(self, at: int) -> int | None:
        """Write $...$ by pandoc's rule (no space inside, no digit behind), which keeps prices out; None when it is none."""
        text = self._text
        end = at + 1
        while True:
            end = text.find("$", end, at + 2000)
            if end < 0:
                return None
            if text[end - 1] != "\\":
                break
            end += 1
        content = text[at + 1 : end]
        if not content or content[0].isspace() or content[-1].isspace() or "\n" in content or text[end + 1 : end + 2].isdigit():
            return None
        return self._tex(content, "$", at, end + 1)

    def _math(self, start: int, closing: str, mark: str) -> int | None:
        """Write math up to its closing delimiter, and return the place behind it; None when it has none."""
        if closing in self._hopeless:
            return None
        end = self._text.find(closing, start)
        if end < 0:
            self._hopeless.add(closing)
            return None
        content = self._text[start:end]
        if not content.strip() or "$" in content.replace("\\$", "") or (mark == "$" and "\n" in content):
            return None
        return self._tex(content if mark == "$$" else content.strip(), mark, start - 2, end + len(closing))

    def _environment(self, begin: re.Match[str], at: int) -> int | None:
        closing = f"\\end{{{begin[1]}}}"
        if begin[1].rstrip("*") not in ENVIRONMENTS or closing in self._hopeless:
            return None
        end = self._text.find(closing, begin.end())
        if end < 0:
            self._hopeless.add(closing)
            return None
        end += len(closing)
        content = self._text[at:end]
        return self._tex(content, "$$", at, end) if "$" not in content else None

    def _tex(self, content: str, mark: str, at: int, behind: int) -> int | None:
        slashes = len(content) - len(content.rstrip("\\"))
        if len(content) > 20_000 or slashes % 2 or not balanced(content) or self._in_address(at):
            return None
        self._out.append(mark + safe_tex(content) + mark)
        return behind

    def _in_address(self, at: int) -> bool:
        """Whether a bare address may reach to here: renderers link those, and math inside would end up in the link."""
        before = self._text[max(0, at - 300) : at]
        if not before or before[-1].isspace():
            return False
        word = before.split()[-1].lower()
        return "://" in word or "www." in word or "@" in word
