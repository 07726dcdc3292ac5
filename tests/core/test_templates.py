"""Prompt templates: values go in once, mistakes are named before anything is sent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.templates import names_in, render
from nbllm.errors import TemplateError


class Broken:
    """Cannot be written."""

    def __str__(self) -> str:
        raise ValueError("boom")


def test_values_go_in_and_stay_as_they_are() -> None:
    """Braces, tags and HTML in a value are text; nothing is rendered twice or escaped."""
    assert render("{{ a }}|{{ b }}\n", {"a": "{{ b }} {% x %}", "b": "<b>&'\""}) == "{{ b }} {% x %}|<b>&'\"\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": [1, {}]}} {{ x }}',
        "{# no comment #} {{ x }} #} {#",
        "\\begin{#1} a{b}c {{ x }}\n\n",
        "# not a line statement\n## nor this {{ x }}",
        "\x00# odd \x00## {{ x }}",
        "${x} %(x)s {x} {{ x }}",
    ],
)
def test_ordinary_braces_need_no_escaping(text: str) -> None:
    """JSON, LaTeX, CSS, comments and newlines pass as they are."""
    assert render(text, {"x": 1}) == text.replace("{{ x }}", "1")


@given(st.text(max_size=80).filter(lambda t: "{{" not in t and "{%" not in t))
def test_text_without_tags_is_untouched(text: str) -> None:
    """A prompt that is no template is sent as it is."""
    assert render(text, {}) == text


@given(st.text(max_size=40), st.text(alphabet="{}%#a \n", max_size=20))
def test_any_value_comes_out_as_it_is(value: str, around: str) -> None:
    """Whatever a value is, it stands in the prompt unchanged."""
    around = around.replace("{{", "").replace("{%", "").replace("{", "")
    assert render(f"{around}{{{{ v }}}}.", {"v": value}) == f"{around}{value}."


def test_every_undefined_name_is_told_at_once() -> None:
    """All missing names, each with its line, and what was probably meant; nothing is rendered."""
    with pytest.raises(TemplateError) as caught:
        render("{{ dok }} and\n{% for x in itms %}{{ x }}{% endfor %} {{ Broken }}", {"doc": 1, "items": 2, "Broken": Broken()})
    message = str(caught.value)
    assert "'dok' (line 1)" in message
    assert "'itms' (line 2)" in message
    assert "Did you mean doc?" in message
    assert "Did you mean items?" in message
    assert "Nothing was sent" in message
    assert "--raw" in message


def test_names_that_are_only_known_elsewhere_help_too() -> None:
    """`known` names are offered, and not used."""
    with pytest.raises(TemplateError, match="Did you mean article"):
        render("{{ artcle }}", {}, known=["article"])


def test_a_template_may_ask_whether_a_name_exists() -> None:
    """default() and `is defined` say that a name may be missing."""
    assert render("{{ a | default('x') }}{% if b is defined %}{{ b }}{% endif %}", {}) == "x"
    assert names_in("{{ a | default(1) }}{{ b }}{% for c in d %}{{ c }}{% endfor %}{% set e = 1 %}{{ e }}") == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("template", "line", "says"),
    [
        ("a\nb {{ x", 2, "--raw"),
        ("a {% if %}", 1, "--raw"),
        ("\n\n{% for %}", 3, "--raw"),
        ("{{ x | nofilter }}", 1, "nofilter"),
        ("{{ x.y }}", 1, "no attribute 'y'"),
        ("a\n{{ x.y.z }}", 2, "no attribute 'y'"),
        ("{{ 1 / 0 }}", 1, "division by zero"),
        ("{{ broken }}", 1, "boom"),
        ("{% include 'secrets' %}", 1, "loader"),
        ("\\newcommand{{%", 1, "--raw"),
    ],
)
def test_a_mistake_names_the_line(template: str, line: int, says: str) -> None:
    """Syntax errors and what goes wrong while rendering say where, and how to send the text as it is."""
    with pytest.raises(TemplateError) as caught:
        render(template, {"x": {}, "broken": Broken()})
    assert f"ine {line}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ os.system('true') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ x.append(1) }}",
        "{{ x.__init__.__globals__ }}",
        "{{ f.__globals__ }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ cycler.__init__ }}",
        "{{ self._TemplateReference__context }}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    """No module, no private attribute, no change of a value."""
    x: list[int] = []
    with pytest.raises(TemplateError):
        render(template, {"os": os, "x": x, "f": lambda: None})
    assert x == []


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ range(10**9) | list | length }}",
        "{{ 'a' * 10**10 }}",
        "{{ [0] * 10**10 }}",
        "{{ 2 ** (10**9) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**10) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ 'a'.center(10**10) }}",
        "{{ 'a' | center(10**10) }}",
        "{{ 'a' | indent(10**10) }}",
        "{{ x | batch(10**10, 0) | list }}",
        "{% set a = 'aaaaaaaaaa' * 900000 %}{{ a }}{{ a }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_a_bomb_is_defused_quickly(template: str) -> None:
    """Huge loops, numbers and texts end in an error, not in a frozen kernel."""
    with pytest.raises(TemplateError):
        render(template, {"x": [1]})


def test_data_frames_are_written_whole() -> None:
    """No row of a DataFrame is silently left out; other values are written as str() does."""
    import pandas as pd

    frame = pd.DataFrame({"n": range(200)})
    written = render("{{ frame }}", {"frame": frame})
    assert "..." not in written
    assert written.count("\n") == 200
    assert render("{{ a }} {{ b }} {{ c }}", {"a": [1, "x"], "b": None, "c": 1.5}) == "[1, 'x'] None 1.5"
    assert render("{{ a | tojson }}", {"a": {"ü": "<b>"}}) == '{"ü": "<b>"}'


def test_long_templates_and_values_pass() -> None:
    """A prompt of 5 MB with one tag is filled in, whether the text or the value is long."""
    assert render("x" * 5_000_000 + "{{ a }}", {"a": "!"}).endswith("x!")
    assert len(render("{{ a }}", {"a": "y" * 5_000_000})) == 5_000_000


def test_interrupts_are_not_swallowed() -> None:
    """Ctrl-C while rendering is Ctrl-C."""

    class Stopped:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render("{{ s }}", {"s": Stopped()})


def test_importing_it_does_not_load_jinja() -> None:
    """A session without templates does not pay for them."""
    code = "import sys, nbllm.core.templates as t; t.render('no tags', {}); print('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
