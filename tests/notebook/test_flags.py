"""The magics' lines: what they take, and what they say when they cannot."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from nbllm.notebook.flags import parse
from nbllm.notebook.manuals import CACHE, MANUALS
from nbllm.settings.llm_manual import LLM, LLM_LINE


def test_every_option_of_a_cell_is_read_into_its_own_type() -> None:
    """A full line gives typed values, quotes taken off, units turned into seconds."""
    line = (
        '-m sim/large,sim/small -o answer --system "You are \\"terse\\"." --schema mod.Person --check ok '
        "-t 0.5 --max-tokens 200 "
        "--feature f --user 'u v' --cache refresh --ttl 1.5h --deadline=30s --sample 2 --set top_p=0.9 --set stop=[\"a\"] "
        "--raw --quiet --budget $0.05"
    )
    assert parse(LLM, line).values == {
        "model": ("sim/large", "sim/small"), "out": "answer", "system": 'You are "terse".', "schema": "mod.Person",
        "check": "ok", "temperature": 0.5, "max_tokens": 200, "feature": "f", "user": "u v", "cache": "refresh",
        "ttl_s": 5400.0, "deadline_s": 30.0, "sample": 2, "set": [("top_p", 0.9), ("stop", ["a"])], "raw": True,
        "quiet": True, "budget_usd": Decimal("0.05"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--modle sim/small", "Did you mean --model?"),
        ("-m", "-m needs a value: -m MODEL"),
        ("--system --raw", "--system needs a value"),
        ("--feature= --raw", "--feature needs a value"),
        ("-o class", "keyword of Python"),
        ("-o my-answer", "For example -o my_answer."),
        ("-o 1", "cannot name a variable"),
        ("--cache sometimes", "use, refresh, off"),
        ("-t hot", "must be a number"),
        ("-t nan", "finite"),
        ("--budget -1", "must not be negative"),
        ("--budget NaN", "must be a finite amount"),
        ("--deadline 0", "greater than 0"),
        ("--deadline 3x", "30s, 10m or 1.5h"),
        ("--max-tokens 0", "at least 1"),
        ("--set top_p", "key=value"),
        ("--raw=1", "is a switch"),
        ("-m a/b -m c/d", "given twice"),
        ("sim/large", "For a model write -m sim/large."),
        ("hello", "prompt on the lines below"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_in_words_that_help(line: str, said: str) -> None:
    """Each mistake is named, with its value and what to write instead."""
    with pytest.raises(UsageError) as caught:
        parse(LLM, line)
    assert said in str(caught.value)


def test_the_prompt_of_a_line_magic_is_kept_to_the_letter() -> None:
    """Quotes, dashes and braces after the options belong to the prompt."""
    parsed = parse(LLM_LINE, '-m sim/small What\'s "x" -- and {y} --sample 3?')
    assert parsed.rest == 'What\'s "x" -- and {y} --sample 3?'
    assert parse(LLM_LINE, "-m sim/small -- --sample is a flag").rest == "--sample is a flag"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=80))
def test_no_line_breaks_the_parser(line: str) -> None:
    """Whatever is typed gives values or a UsageError, never another exception."""
    for manual in (LLM, LLM_LINE, CACHE):
        with suppress(UsageError):
            parse(manual, line)


@given(st.text(max_size=60))
def test_any_text_survives_in_quotes(text: str) -> None:
    """A quoted value comes out as it was meant, whatever follows it."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert parse(CACHE, f'purge --tag "{quoted}" --all').values == {"tag": text, "all": True}


@pytest.mark.parametrize("name", sorted(MANUALS))
def test_a_manual_fits_80_columns_and_names_every_option(name: str) -> None:
    """`?` shows each option once with its help, readable in a terminal."""
    manual = MANUALS[name]
    text = manual.text()
    assert max(map(len, text.splitlines())) <= 80
    for flag in manual.flags:
        assert f"  {flag.shown}" in text
        assert flag.help.split()[0] in text


def test_flags_of_one_magic_are_told_apart() -> None:
    """No name and no value stands for two flags."""
    for manual in MANUALS.values():
        assert len(manual.names) == len(set(manual.names))
        assert len({f.dest for f in manual.flags}) == len(manual.flags)
