r"""TeX of a model, without what leads elsewhere or outlasts it. Part of nbllm.core.safe_markdown.

MathJax and KaTeX typeset what they find in the page after the Markdown was rendered, so commands that link (`\href`), style, load
extensions or define macros (which would change the math of other cells) are taken out wherever text is not code.
"""

from __future__ import annotations

import re

UNSAFE_COMMAND = re.compile(
    r"\\(?:href|url|html[A-Za-z]*|class|cssId|style|data|includegraphics|[Rr]equire|mmlToken|action|toggle|mathtip|texttip|tooltip|"
    r"unicode|bbox|enclose|csname|endcsname|expandafter|input|include|special|catcode|verbatiminput|write|"
    r"[gex]?def|global|long|outer|let|futurelet|mathchardef|(?:re)?newcommand|providecommand|(?:re)?newenvironment|newif|Newextarrow|"
    r"DeclareMathOperator|DeclarePairedDelimiters?[A-Za-z]*|setmathfont|rule|Rule|Space|raise|lower|moveleft|moveright|tex)"
    r"(?![A-Za-z])\*?"
)
ENVIRONMENTS = frozenset(
    ("equation", "align", "aligned", "alignat", "alignedat", "gather", "gathered", "multline", "split", "cases", "rcases", "matrix",
     "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "eqnarray", "flalign", "subequations", "CD")
)  # fmt: skip

_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_REWRITES = (
    (re.compile("<"), r"\\lt "),
    (re.compile(">"), r"\\gt "),
    (re.compile('"'), "''"),
    (re.compile("`"), "'"),
    (re.compile(r"&(?=[#A-Za-z])"), "& "),
    (re.compile(r"\](?=[(\[:])"), "] "),
    (re.compile(r"!(?=\[)"), "! "),
    (re.compile(r"@(?=@)"), "@ "),
    (re.compile(r"~(?=~)"), "~ "),
    (re.compile(r"(?<=:)/(?=/)"), "/ "),
    (re.compile(r"(?i)(?<=www)\."), " ."),
    (re.compile(r"\n[ \t]*(?=[-+*=#>]|\d+[.)])"), "\n{}"),
    (re.compile(r"\n[ \t]+"), "\n"),
)
"""What keeps math from meaning something else to a renderer that knows no math. None of it changes what is typeset."""


def balanced(content: str) -> bool:
    """Whether braces close as they open, as renderers ask for before they take a text for math."""
    depth = 0
    for match in _BRACES.finditer(content):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def safe_tex(content: str) -> str:
    """Return TeX without unsafe commands: their names stay as text."""
    content = UNSAFE_COMMAND.sub(lambda m: r"\text{" + m[0].strip("\\*") + "}", content)
    for pattern, replacement in _REWRITES:
        content = pattern.sub(replacement, content)
    return content


def without_commands(text: str) -> str:
    """Return text that looks the same and holds no unsafe command: a word joiner stands behind its backslash."""
    return UNSAFE_COMMAND.sub(lambda m: f"\\\u2060{m[0][1:]}", text)
