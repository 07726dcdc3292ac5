"""%llm_label and %llm_why, on a real client with played models, without a browser."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.client import Client
from nbllm.notebook.label_view import LabelView, Sitting
from nbllm.notebook.panel import Panel
from nbllm.notebook.panel_semantic import semantic_content
from tests.notebook.shadow import BAD, client, displayed, live, met, project

__all__ = ["client", "displayed", "project"]
"""Fixtures."""


def test_what_people_and_models_wrote_is_never_html(shell: Any, client: Client) -> None:
    """Questions and answers with tags in them are shown as text, in labels and in reasons."""
    met(client)
    sitting = Sitting(client.semantic, 50)
    from nbllm.notebook.label_view import LabelBox

    box = LabelBox(sitting)
    shown = []
    while sitting.match is not None:
        shown.append(box.shown.value)
        box.press("s")
    assert any(BAD in unescape(one) for one in shown)
    assert not any("<img" in one for one in shown)
    reply = client.ask(f"How do I boil carrots {BAD} ???", model="sim/large")
    shell.user_ns["answer"] = reply
    html = shell.run_line_magic("llm_why", "answer").view.html()
    assert BAD in unescape(html)
    assert "<img" not in html


def test_labels_by_key_and_by_button(client: Client) -> None:
    """Y and n label, s skips, q ends; a key typed into the field does what its button does, and the field is empty again."""
    from nbllm.notebook.label_view import LabelBox

    met(client)
    box = LabelBox(Sitting(client.semantic, 4))
    order = [match.match_id for match in box.sitting.matches]
    box.field.value = "y"
    assert box.field.value == ""
    box.buttons["n"].click()
    box.field.value = "x"
    box.field.value = "S"
    labels = {label.match_id: label.correct for label in client.semantic.labels(origin="audit")}
    assert labels == {order[0]: True, order[1]: False}
    assert "4 of 4" in box.shown.value
    box.buttons["q"].click()
    assert box.row.layout.display == "none"
    assert "2 labels: 1 right, 1 wrong, 1 skipped." in unescape(box.said.value)


def test_labels_in_a_terminal_and_on_a_page(
    shell: Any, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal asks with input(), also when the answer is no key, and Ctrl-D ends; a page lists them with the code."""
    met(client)
    keys = iter(["what", "y", "n"])

    def ask(prompt: str) -> str:
        assert "y right, n wrong, s skip, q stop" in prompt
        try:
            return next(keys)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)
    assert shell.run_line_magic("llm_label", "-n 5") is None
    said = capsys.readouterr().out
    assert "One of y, n, s and q" in said
    assert "What the model said to this question" in said
    assert "2 labels: 1 right, 1 wrong." in said
    live(shell, monkeypatch, stdin=False)
    page = repr(shell.run_line_magic("llm_label", "-n 2"))
    assert "2 matches to label" in page
    assert "semantic.label(matches[0], correct=True)" in " ".join(page.split())
    client.semantic.forget()
    view = shell.run_line_magic("llm_label", "")
    assert isinstance(view, LabelView)
    assert "Nothing waits for a label" in repr(view)
    with pytest.raises(UsageError, match="takes no '7'"):
        shell.run_line_magic("llm_label", "7")


def test_why_says_what_was_matched_and_under_which_bound(
    shell: Any, client: Client, project: Path, monkeypatch: pytest.MonkeyPatch, displayed: list[Any]
) -> None:
    """A similar hit: question, similarity, guards, threshold, bound, cost and savings; from the reply or from its call."""
    met(client, 7, label=True)
    Panel(semantic_content(client, max_error=0.2)).apply.click()
    reply = client.ask("How do I boil rice !", model="sim/large")
    assert reply.source == "semantic"
    shell.user_ns["answer"] = reply
    for line in ("answer", reply.call_id, reply.call_id[-8:]):
        text = " ".join(repr(shell.run_line_magic("llm_why", line)).split())
        assert "How do I boil rice" in text
        assert f"similarity {reply.why.similarity:.4f}" in text
        assert f"bound in force at most {reply.why.error_upper:.1%}" in text
        assert "numbers passed" in text
        assert "rung sim/large" in text
    assert "nbllm.mark(answer)" in repr(shell.run_line_magic("llm_why", "answer"))
    live(shell, monkeypatch)
    view = shell.run_line_magic("llm_why", "answer")
    view._ipython_display_()
    assert "application/vnd.jupyter.widget-view+json" in displayed[-1]
    view.button.click()
    assert "taken out of the cache" in view.said.value
    assert client.ask("How do I boil rice !", model="sim/large").why.matched_text != reply.why.matched_text


def test_why_of_anything_else_says_what_to_do(shell: Any, client: Client) -> None:
    """No answer yet, a variable that is none, two words, a call that is not known: sentences with what to do."""
    shell.user_ns["_"] = ""
    for line, problem in (
        ("", "no answer yet"),
        ("nothing", "no call 'nothing'"),
        ("a b", "one answer at a time"),
        ("n", "but int"),
    ):
        shell.user_ns["n"] = 3
        with pytest.raises(UsageError, match=problem):
            shell.run_line_magic("llm_why", line)
    client.ask("x", model="sim/large")
    assert "a model" in repr(shell.run_line_magic("llm_why", ""))
