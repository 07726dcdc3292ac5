"""%llm_panel semantic_cache, on a real client with played models, without a browser."""

from __future__ import annotations

import json
import threading
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.client import Client
from nbllm.notebook.panel import Panel
from nbllm.notebook.panel_semantic import SemanticContent, semantic_content
from nbllm.notebook.panel_view import PanelView, audience_of
from nbllm.panels.examples import semantic_example
from nbllm.settings import Settings
from tests.notebook.shadow import client, displayed, live, met, project

__all__ = ["client", "displayed", "project"]
"""Fixtures."""


def test_without_data_there_is_a_simulated_example_that_says_so(shell: Any, client: Client) -> None:
    """An empty panel is no dead end: it says how to get data, shows an example labelled as one, and applies nothing."""
    view = shell.run_line_magic("llm_panel", "semantic_cache")
    text = repr(view)
    assert "semantic_cache.mode=shadow" in text
    assert "SIMULATED" in text
    assert Panel(view.content).apply.disabled
    assert view.png().startswith(b"\x89PNG")


def test_without_labels_there_is_no_bound_and_nothing_to_apply(shell: Any, client: Client) -> None:
    """Shadow alone shows what would be served and saved; what may be wrong is said to be unknown."""
    met(client)
    view = shell.run_line_magic("llm_panel", "semantic_cache")
    text = " ".join(repr(view).split())
    assert "wrong hits, upper bound unknown no labels" in text
    assert "nobody knows which of these would be wrong" in text
    assert Panel(view.content).apply.disabled


def test_the_slider_moves_picture_numbers_and_what_would_be_copied(client: Client) -> None:
    """One trait change: another picture, other numbers, the same settings as Apply writes; Reset goes back."""
    panel = Panel(SemanticContent(client, semantic_example()))
    first, numbers = panel.image.value, panel.numbers.value
    slider = panel.sliders[0]
    slider.value = slider.options[-1][1]
    assert panel.image.value != first
    assert bytes(panel.image.value).startswith(b"\x89PNG")
    assert panel.numbers.value != numbers
    assert "nbllm-semantic.json" in panel.copy.value
    panel.reset.click()
    assert panel.image.value == first
    assert panel.numbers.value == numbers


def test_moves_from_several_threads_end_at_where_the_slider_stands(client: Client) -> None:
    """Callbacks beside a running cell draw one at a time, and picture and numbers are those of the last place."""
    panel = Panel(SemanticContent(client, semantic_example()))
    slider = panel.sliders[0]
    values = [value for _, value in slider.options]

    def move(mine: list[float]) -> None:
        for value in mine:
            slider.value = value

    threads = [threading.Thread(target=move, args=(values[part : part + 6],)) for part in (0, 6, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    alone = Panel(panel.content)
    panel._show(panel.values)
    alone.sliders[0].value = slider.value
    assert panel.image.value == alone.image.value
    assert panel.numbers.value == alone.numbers.value


def test_apply_writes_the_plan_and_the_file_and_switches_on(client: Client, project: Path) -> None:
    """From labels to a threshold in force: the plan beside nbllm.toml, its name in there with comments kept, hits from then on."""
    met(client, 7, label=True)
    content = semantic_content(client, max_error=0.2)
    panel = Panel(content)
    assert not panel.apply.disabled
    panel.apply.click()
    assert "Applied" in panel.said.value
    assert '+mode = "on"' in unescape(panel.said.value)
    text = (project / "nbllm.toml").read_text(encoding="utf-8")
    assert text == '# ours\n[semantic_cache]\nmode = "on"  # for now\nplan = "nbllm-semantic.json"\n'
    plan = json.loads((project / "nbllm-semantic.json").read_text(encoding="utf-8"))
    assert plan["threshold"] == panel.values[0]
    assert client.settings.semantic_cache.mode == "on"
    assert Settings.load(start=project, environ={}).semantic_cache.plan == str(project / "nbllm-semantic.json")
    assert client.ask("How do I boil an egg !", model="sim/large").source == "semantic"


def test_a_broken_or_read_only_file_costs_nothing(client: Client, project: Path) -> None:
    """Apply says what is wrong with the file; the file, the plan and the session stay as they were; next time it works."""
    met(client, 7, label=True)
    panel = Panel(semantic_content(client, max_error=0.2))
    path = project / "nbllm.toml"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + "\nmode = \n", encoding="utf-8")
    panel.apply.click()
    assert "no valid TOML" in panel.said.value
    path.write_text(good, encoding="utf-8")
    path.chmod(0o444)
    panel.apply.click()
    assert "read-only" in panel.said.value
    assert path.read_text(encoding="utf-8") == good
    assert client.settings.semantic_cache.mode == "shadow"
    assert sorted(p.name for p in project.iterdir()) == ["nbllm.toml"]
    path.chmod(0o644)
    panel.apply.click()
    assert client.settings.semantic_cache.mode == "on"


def test_more_than_was_asked_for_needs_a_tick(client: Client, project: Path) -> None:
    """Where the bound is above what was asked for, Apply says so and writes nothing, until somebody agrees to it."""
    met(client, 7, label=True)
    panel = Panel(semantic_content(client, max_error=0.01))
    panel.apply.click()
    assert "asked for was 1%" in unescape(panel.said.value)
    assert client.settings.semantic_cache.mode == "shadow"
    assert sorted(p.name for p in project.iterdir()) == ["nbllm.toml"]
    panel.consent.value = True
    panel.apply.click()
    assert client.settings.semantic_cache.mode == "on"
    plan = json.loads((project / "nbllm-semantic.json").read_text(encoding="utf-8"))
    assert plan["error_upper"] > 0.01
    assert not client.settings.semantic_cache.accept_foreign


def test_a_plan_of_imported_pairs_needs_a_tick(client: Client, project: Path) -> None:
    """What holds for pairs like these is switched on only by somebody who said so, and the file says so too."""
    client.semantic.import_pairs([(f"How do I boil {n} eggs?", f"how do I boil {n} eggs", True) for n in range(200)])
    panel = Panel(semantic_content(client))
    panel.apply.click()
    assert "Tick the box" in panel.said.value
    assert client.settings.semantic_cache.mode == "shadow"
    panel.consent.value = True
    panel.apply.click()
    assert client.settings.semantic_cache.accept_foreign
    assert tomllib.loads((project / "nbllm.toml").read_text())["semantic_cache"]["accept_foreign"] is True


def test_under_a_program_that_runs_notebooks_numbers_and_picture_stay(
    shell: Any, client: Client, monkeypatch: pytest.MonkeyPatch, displayed: list[Any]
) -> None:
    """nbclient, papermill and nbconvert get text, HTML and a PNG, and no widget that nobody could move."""
    met(client, label=True)
    live(shell, monkeypatch, stdin=False)
    view = shell.run_line_magic("llm_panel", "semantic_cache --max-error 20%")
    view._ipython_display_()
    numbers, picture = displayed
    assert {"text/plain", "text/html"} <= set(numbers)
    assert "wrong hits, upper bound" in numbers["text/plain"]
    assert set(picture) == {"image/png", "text/plain"}
    assert max(map(len, numbers["text/plain"].splitlines())) <= 80


def test_before_a_person_widgets_are_shown_and_a_page_for_readers_stays(
    shell: Any, client: Client, monkeypatch: pytest.MonkeyPatch, displayed: list[Any]
) -> None:
    """The widget's output holds the numbers as text too; folded below it is what a reader without widgets needs."""
    met(client)
    live(shell, monkeypatch)
    view = shell.run_line_magic("llm_panel", "semantic_cache")
    view._ipython_display_()
    widget, folded = displayed
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert "would be served" in widget["text/plain"]
    assert "data:image/png;base64," in folded["text/html"]
    assert folded["text/html"].startswith("<details>")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "needs one of"),
        ("semantic", "Did you mean semantic_cache"),
        ("semantic_cache --max-error 0%", "above 0%"),
        ("semantic_cache x", "takes no 'x'"),
    ],
)
def test_a_line_that_is_none_says_what_to_do(shell: Any, client: Client, line: str, problem: str) -> None:
    """Errors of the magic's line are sentences."""
    with pytest.raises(UsageError, match=problem):
        shell.run_line_magic("llm_panel", line)


def test_words_complete_with_tab_and_the_manual_is_the_docstring(shell: Any) -> None:
    """Tab offers the panels; %llm_panel? is the manual."""
    from nbllm.notebook.completion import offered

    assert offered("%llm_panel sem", {}) == ("sem", ["semantic_cache"])
    assert offered("%llm_label -", {}) == ("-", ["-n", "--limit"])
    assert offered("%llm_why ans", {"names": lambda: ["answer", "x"]}) == ("ans", ["answer"])
    assert "--max-error" in shell.find_magic("llm_panel").__doc__
    assert "3f2a" in shell.find_magic("llm_why").__doc__


def test_a_terminal_gets_the_numbers(shell: Any, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is neither widget nor page, the panel is its numbers."""
    assert audience_of(shell) == "terminal"
    view = shell.run_line_magic("llm_panel", "semantic_cache")
    assert isinstance(view, PanelView)
    view._ipython_display_()
    assert "At a similarity" not in (said := capsys.readouterr().out)
    assert "Semantic cache: at a similarity of" in said
