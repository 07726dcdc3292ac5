"""Text of a model becomes Markdown that no renderer can turn into anything alive."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core.safe_markdown import clean, escape_html, safe_markdown
from tests.core.rendering import page, renderings
from tests.growth import assert_grows_no_faster
from tests.hostile_answers import HOSTILE_ANSWERS

TRAP = "<img src=x onerror=alert(1)>"
PIECES = [
    *"`$\\[]()<>&!@~*_|#-+=:{} \n\t'\"",
    "\n\n", "    ", "```", "~~~", "````", "$$", "\\(", "\\)", "\\[", "\\]", "@@0@@", "](", "![", "- ", "1. ", "> ", "| ",
    "|---|", "---",
    TRAP, "<script>alert(1)</script>", "<!--", "-->", "</code>", "<code>", "javascript:alert(1)", "http://evil.example/",
    "mailto:a@b.c",
    "\\href{javascript:alert(1)}{x}", "\\begin{align}", "\\end{align}", "&lt;", "&#60;", "&colon;", "[1]: javascript:x",
    "text", "a",
    "\u202e", "\x00", "\ud800", "\r", "```html\n", "\n```\n", "onmouseover=alert(1)", "www.evil.example", "ftp://evil.example",
]  # fmt: skip


def wrong_with(text: str) -> list[str]:
    """Return what independent renderers make of it that may not be there."""
    return [f"{name}: {wrong}" for name, html in renderings(safe_markdown(text)).items() for wrong in page(html).wrong]


def test_the_collection_is_large_and_without_repeats() -> None:
    """There are at least 150 hostile answers, all different."""
    assert len(HOSTILE_ANSWERS) == len(set(HOSTILE_ANSWERS)) >= 150


def test_the_check_sees_what_is_alive() -> None:
    """The judge itself works: most hostile answers, shown as they are, are found guilty."""
    guilty = [
        a for a in HOSTILE_ANSWERS if any(page(html).wrong for html in renderings(a.encode("utf-8", "replace").decode()).values())
    ]
    assert len(guilty) > 120


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS, ids=range(len(HOSTILE_ANSWERS)))
def test_no_hostile_answer_survives(answer: str) -> None:
    """No script, handler, image, frame, foreign address or linking TeX is left in any renderer."""
    assert wrong_with(answer) == []


def test_no_half_of_a_hostile_answer_survives() -> None:
    """While it streams, every prefix is shown: each is safe too (every third, for time)."""
    for answer in HOSTILE_ANSWERS:
        for end in range(1, min(len(answer), 120), 3):
            assert wrong_with(answer[:end]) == [], answer[:end]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_nothing_made_of_dangerous_pieces_survives(text: str) -> None:
    """However the pieces of Markdown, HTML and TeX are put together, nothing alive comes out."""
    assert wrong_with(text) == []


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_can_be_shown(text: str) -> None:
    """No text makes it fail, and its result can be encoded and holds no control characters."""
    shown = safe_markdown(text)
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", shown)


@pytest.mark.parametrize("images", [False, True])
def test_images_only_when_asked_for(images: bool) -> None:
    """An image becomes a link, unless images were asked for; never from elsewhere than http and https."""
    shown = safe_markdown("![a cat](https://example.org/cat.png) ![x](data:image/png;base64,AA)", images=images)
    assert ("![a cat](https://example.org/cat.png)" in shown) is images
    assert "[image: a cat](https://example.org/cat.png)" in shown or images
    assert "](data:" not in shown


GOOD = {
    "# Title\n\nSome **bold**, *em*, ~~gone~~ and `code`.": None,
    "- a\n  - b\n    - c\n- d\n\n1. x\n2. y": None,
    "| a | b |\n|---|:-:|\n| 1 | 2 |": None,
    "> quoted\n> more": None,
    "- [ ] open\n- [x] done": None,
    "See [the docs](https://example.org/a_b?c=d) now.": None,
    "```python\nif a < b and c > d:\n    print('<b>')\n```\n": None,
    "$x^2 + y_1$ and $$\\frac{a}{b}$$": None,
    "***": None,
    "a  \nb": None,
    "1 < 2 & 3": "1 &lt; 2 &amp; 3",
    "\\(x < y\\) and \\[z\\]": "$x \\lt  y$ and $$z$$",
    "costs $5 or $10": "costs <span>&#36;</span>5 or <span>&#36;</span>10",
    "`List<int>`": "<code>List&#60;int&#62;</code>",
    "~~~js\na<b\n~~~": "```js\na<b\n```\n",
    "1. one\n   ```sh\n   ls\n   ```\n2. two": "1. one\n\n```sh\nls\n```\n\n2. two",
    "```markdown\nx `````\n```\n": "``````markdown\nx `````\n``````\n",
    "&copy; &nbsp; &bogus;": "&copy; &nbsp; &amp;bogus;",
    "\\*not em\\*": "&#42;not em&#42;",
    "<https://example.org/x>": "[https&#58;&#47;&#47;example&#46;org&#47;x](https://example.org/x)",
    "no \\href{x}{y} in text": "no &#92;&#8288;href{x}{y} in text",
}


@pytest.mark.parametrize(("text", "wanted"), GOOD.items())
def test_ordinary_answers_stay_what_they_are(text: str, wanted: str | None) -> None:
    """What models write every day passes as it is, or in the one form in which it is safe."""
    assert safe_markdown(text).rstrip("\n") == (text if wanted is None else wanted).rstrip("\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("`a<b && c`", "a<b && c"),
        ("``x`y``", "x`y"),
        ("```\n<b>&lt;$x$\n```", "<b>&lt;$x$\n"),
        ("- item\n  ```\n  <b>\n  ```", "<b>\n"),
        ("> ```\n> <b>\n> ```", "<b>\n"),
        ("|a|\n|-|\n|`x\\|y<z`|", "x|y<z"),
        ("    indented <b>", "indented <b>\n"),
    ],
)
def test_code_is_shown_as_the_model_wrote_it(text: str, code: str) -> None:
    """Code reads the same after escaping and rendering, whatever characters it has."""
    for html in renderings(safe_markdown(text)).values():
        assert "".join(page(html).code) == code


@given(st.text(alphabet="ab<>&`$\\ \n[]()*_", max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_code_block_reads_as_it_was_written(code: str) -> None:
    """Any text inside a fence longer than its own runs of backticks comes out unchanged."""
    lines = code.split("\n")
    text = "````````\n" + "\n".join(lines) + "\n````````" if "````````" not in code else ""
    for html in renderings(safe_markdown(text)).values():
        assert "".join(page(html).code) == (code + "\n" if text else "")


def test_an_open_code_block_is_closed() -> None:
    """What stands below a half-streamed answer is no part of its code."""
    html = renderings(safe_markdown("```python\nx = 1") + "\n\n<div>meter</div>")["markdown-it"]
    assert "<div>meter</div>" in html


@given(st.lists(st.one_of(st.text(max_size=9), st.sampled_from(PIECES))).map("".join))
def test_escaped_html_is_its_text_and_nothing_else(text: str) -> None:
    """escape_html reads back as the (cleaned) text, in an element and in an attribute."""
    parsed = page(f"<p>{escape_html(text)}</p>")
    assert parsed.wrong == []
    assert "".join(parsed.typeset).replace("\u2060", "") == clean(text)
    assert not set(escape_html(text)) & set("<>\"'`$[]*_\\|")


@pytest.mark.parametrize(
    "piece",
    ["[a](", "`` ` ", "$a ", "\\(", "\\begin{align}", "> ", "- ", "<", "    a\n\n", "- a\n```\nx\n```\n", "a\n", "[[", "![a]("],
)
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    """Four times the text takes about four times as long, and not sixteen, for text made to be slow."""
    assert_grows_no_faster(safe_markdown, piece, 120_000)
