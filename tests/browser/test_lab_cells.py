"""What the JupyterLab extension does at cells, in a real JupyterLab and Notebook 7: badges, prompts, completion."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab
from tests.browser.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200), pytest.mark.usefixtures("labextension")]

BOXES = """() => [...document.querySelectorAll('.jp-CodeCell')].map(cell => {
  const box = cell.querySelector('.jp-InputArea').getBoundingClientRect();
  return [box.x, box.width, box.height, cell.querySelector('.jp-InputArea-editor').getBoundingClientRect().width];
})"""
DIRTY = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"
GOOD = {"v": 1, "model": "sim/large", "cost_usd": "0.0012", "source": "model", "call_id": "c1"}
ATTACK = "<img src=x onerror=\"window.pwned.push('badge')\">"


def calls(topic: str) -> list[str]:
    """Cells that ask a model, get the same from the cache, and ask twice; the tests share a cache, so each has its own topic."""
    prompt = f"Say what {{{{ 'is' }}}} good about {topic}."
    return [
        "%load_ext nbllm",
        f"%%llm -m sim/large -o first\n{prompt}",
        f"%%llm -m sim/large -o second\n{prompt}",
        "for _ in range(2):\n    %llm -m sim/small --cache off Say hi",
        "print(first.call_id, second.call_id)",
    ]


def badge(tab: Visit, number: int) -> Locator:
    """The badge of a code cell, by its place among the code cells."""
    return tab.page.locator(".jp-CodeCell").nth(number).locator(".jp-nbllm-Badge")


def tooltip(tab: Visit, number: int) -> str:
    """What the mouse is told over the badge of a code cell, which is its prompt."""
    prompt = tab.page.locator(".jp-CodeCell").nth(number).locator(".jp-InputArea-prompt")
    return prompt.get_attribute("title") or ""


def expect_languages(tab: Visit, *names: str) -> None:
    """Wait until the editor of each code cell takes its text for this."""
    editors = tab.page.locator(".jp-CodeCell .cm-content")
    expect(editors).to_have_count(len(names))
    for number, name in enumerate(names):
        expect(editors.nth(number)).to_have_attribute("data-language", name)


def saved(tab: Visit) -> None:
    """Save the notebook and wait until it is."""
    tab.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")
    tab.page.wait_for_function(f"() => !({DIRTY})()")


def test_badges_say_what_the_kernel_says_and_move_nothing(tab: Visit, lab: Lab, pictures: Path) -> None:
    """Cost, source and call of a badge are those of its Reply; hits and several calls say so; no cell changes its size."""
    tab.open(lab.write("badges.ipynb", calls("badges")))
    before = tab.page.evaluate(BOXES)
    tab.run_all()
    first, second = tab.outputs(4).split()[-2:]
    expect(badge(tab, 1)).to_contain_text("$0.000")
    assert first in tooltip(tab, 1)
    assert "sim/large" in (badge(tab, 1).get_attribute("aria-label") or "")
    expect(badge(tab, 2)).to_contain_text("cache")
    assert second in tooltip(tab, 2)
    expect(badge(tab, 3)).to_contain_text("2 calls")
    expect(badge(tab, 0)).to_have_count(0)
    assert tab.page.evaluate(BOXES) == before
    tab.page.screenshot(path=pictures / "badges-light.png")
    tab.theme("JupyterLab Dark")
    tab.page.screenshot(path=pictures / "badges-dark.png")
    assert [*tab.errors, *tab.dialogs, *tab.foreign] == []


def test_badges_come_back_with_the_notebook_and_write_nothing(tab: Visit, lab: Lab) -> None:
    """A notebook that is saved and opened again has its badges, is not changed by them, and loses them with its outputs."""
    name = lab.write("reopened.ipynb", calls("books")[:3])
    tab.open(name)
    tab.run_all()
    expect(badge(tab, 2)).to_be_visible()
    saved(tab)
    file = (lab.work / name).read_bytes()
    tab.open(name)
    expect(badge(tab, 1)).to_contain_text("$0.000")
    expect(badge(tab, 2)).to_contain_text("cache")
    tab.frames(3)
    assert tab.page.evaluate(DIRTY) is False
    assert (lab.work / name).read_bytes() == file
    tab.command("notebook:clear-all-cell-outputs")
    expect(tab.page.locator(".jp-nbllm-Badge")).to_have_count(0)


def test_badges_reach_cells_that_scroll_into_sight(fresh: Visit, lab: Lab) -> None:
    """Where JupyterLab draws only the cells in sight, each of 120 cells has its own badge when it is scrolled to, and back."""
    name = lab.write("long.ipynb", [f"%%llm\nQuestion {number}" for number in range(120)])
    notebook = nbformat.read(lab.work / name, as_version=4)
    for number, cell in enumerate(notebook.cells):
        metadata = {"nbllm": {**GOOD, "cost_usd": f"{number + 1}.00"}}
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/plain": "An answer.\n" * 5}, metadata=metadata)]
    nbformat.write(notebook, lab.work / name)
    with lab.settings("@jupyterlab/notebook-extension/tracker", {"windowingMode": "full"}):
        fresh.open(name)
        for number in (119, 0, 60):
            fresh.page.evaluate("n => window.jupyterapp.shell.currentWidget.content.scrollToItem(n)", number)
            cell = fresh.page.locator(f".jp-CodeCell[data-windowed-list-index='{number}']")
            expect(cell.locator(".jp-nbllm-Badge")).to_contain_text(f"${number + 1}.00")
        assert fresh.page.locator(".jp-CodeCell:visible").count() < 60


def test_the_setting_turns_badges_off(fresh: Visit, lab: Lab) -> None:
    """With badges off in the settings editor's file no cell has one."""
    with lab.settings("nbllm-lab/plugin", {"badges": False}):
        fresh.open(lab.write("without.ipynb", calls("nothing")[:2]))
        fresh.run_all()
        fresh.frames(3)
        expect(fresh.page.locator(".jp-nbllm-Badge")).to_have_count(0)


HOSTILE: list[Any] = [
    *("text", 7, [], None, {}, [GOOD]),
    *({**GOOD, "v": version} for version in (0, 2, "1", True, None)),
    *({**GOOD, "cost_usd": cost} for cost in (ATTACK, "-1", "1e9", "NaN", "١", 0.5, [], "9" * 16)),
    *({**GOOD, "source": source} for source in (ATTACK, "constructor", None, "MODEL", ["model"])),
    *({**GOOD, "call_id": call} for call in ("", "c" * 65, 7, None, {"x": 1})),
    *({**GOOD, "model": model} for model in ("m" * 201, 7, None, [ATTACK])),
    {name: value for name, value in GOOD.items() if name != "source"},
]
NAMES = (
    ATTACK,
    f"<script>window.pwned.push(1)</script>{ATTACK}",
    "sim/\u202elarge\u0000",
    '" onmouseover="window.pwned.push(2)',
    "m" * 200,
)


def test_hostile_metadata_draws_nothing_and_runs_nothing(tab: Visit, lab: Lab) -> None:
    """What the kernel would never write draws no badge; names that are markup are shown as text and run nowhere."""
    taken = [{**GOOD, "model": model} for model in NAMES] + [{**GOOD, "call_id": ATTACK}]
    all_of_it = HOSTILE + taken
    name = lab.write("hostile-badges.ipynb", ["%%llm\nHi"] * len(all_of_it))
    notebook = nbformat.read(lab.work / name, as_version=4)
    for cell, metadata in zip(notebook.cells, all_of_it, strict=True):
        output = nbformat.v4.new_output("display_data", {"text/plain": "An answer."})
        output.metadata = copy.deepcopy({"nbllm": metadata})
        cell.outputs = [output]
    (lab.work / name).write_text(nbformat.writes(notebook), encoding="utf-8")
    tab.open(name)
    expect(tab.page.locator(".jp-nbllm-Badge")).to_have_count(len(taken))
    for number in range(len(HOSTILE), len(all_of_it)):
        tab.page.locator(".jp-CodeCell").nth(number).locator(".jp-InputArea-prompt").hover()
        assert "More: %llm_why" in tooltip(tab, number)
    assert ATTACK in tooltip(tab, len(HOSTILE))
    expect(tab.page.locator(".jp-nbllm-Badge :is(img, script, [onmouseover])")).to_have_count(0)
    assert tab.page.evaluate("() => window.pwned") == []
    assert [*tab.errors, *tab.dialogs, *tab.foreign] == []


def test_prompts_are_no_python(tab: Visit, lab: Lab) -> None:
    """%%llm cells are prompts after opening, a kernel restart, an edit of the first line and undo; nothing is dirty."""
    tab.open(lab.write("prompts.ipynb", ["x = 'it'", "%%llm -m sim/small\nDon't {{ x }}", "\n%%nbllm --raw\n{{"]))
    expect_languages(tab, "python", "nbllm", "nbllm")
    saved(tab)  # JupyterLab itself writes the kernel's language into a notebook that has none
    tab.open("prompts.ipynb")
    expect_languages(tab, "python", "nbllm", "nbllm")
    assert tab.page.evaluate(DIRTY) is False
    tab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    tab.wait_idle()
    expect_languages(tab, "python", "nbllm", "nbllm")
    first = tab.page.locator(".jp-CodeCell .cm-content").first
    first.click()
    tab.page.keyboard.press("Control+Home")
    tab.page.keyboard.type("%%llm\n")
    expect_languages(tab, "nbllm", "nbllm", "nbllm")
    tab.page.keyboard.press("Control+z")
    tab.page.keyboard.press("Control+z")
    expect(first).to_have_text("x = 'it'")
    expect_languages(tab, "python", "nbllm", "nbllm")
    saved(tab)
    assert "nbllm" not in str(nbformat.read(lab.work / "prompts.ipynb", as_version=4).metadata)


def test_prompts_survive_split_and_merge(tab: Visit, lab: Lab) -> None:
    """Of a prompt that is split the half with the magic stays one; merged again all of it is one."""
    tab.open(lab.write("split.ipynb", ["%%llm\nfirst\nsecond"]))
    tab.page.locator(".jp-CodeCell .cm-content").first.click()
    tab.page.keyboard.press("Control+End")
    tab.page.keyboard.press("Home")
    tab.command("notebook:split-cell-at-cursor")
    expect(tab.page.locator(".jp-CodeCell")).to_have_count(2)
    expect_languages(tab, "nbllm", "python")
    tab.command("notebook:merge-cell-above")
    expect(tab.page.locator(".jp-CodeCell")).to_have_count(1)
    expect_languages(tab, "nbllm")


def test_models_complete_in_a_prompt(tab: Visit, lab: Lab) -> None:
    """Tab behind -m in a %%llm cell offers the models; the one that is chosen is written."""
    tab.open(lab.write("complete.ipynb", ["%load_ext nbllm", ""]))
    tab.run_all()
    editor = tab.page.locator(".jp-CodeCell .cm-content").nth(1)
    editor.click()
    tab.page.keyboard.type("%%llm -m sim/")
    tab.page.keyboard.press("Tab")
    offered = tab.page.locator(".jp-Completer .jp-Completer-item")
    expect(offered.filter(has_text="sim/large").first).to_be_visible()
    expect(offered.filter(has_text="sim/small").first).to_be_visible()
    offered.filter(has_text="sim/large").first.click()
    expect(editor).to_have_text("%%llm -m sim/large")
    expect_languages(tab, "python", "nbllm")
