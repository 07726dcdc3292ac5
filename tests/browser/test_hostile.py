"""Hostile answers in a real JupyterLab: nothing runs, nothing is fetched."""

from __future__ import annotations

import json

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit
from tests.hostile_answers import HOSTILE_ANSWERS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

WATCH = """() => {
  const forbidden = 'script, iframe, object, embed, form, link, meta, base, style, img, video, audio, input:not([disabled])';
  const harmless = /^(https?:|mailto:|#|data:image[/]png)/i;
  const bad = [];
  const say = (node) => bad.push(node.outerHTML.slice(0, 200));
  for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
    for (const node of area.querySelectorAll(forbidden))
      if (!(node.tagName === 'IMG' && node.src.startsWith('data:image/png'))) say(node);
    for (const node of area.querySelectorAll('*'))
      for (const attribute of node.attributes) {
        if (/^on/i.test(attribute.name)) say(node);
        if (/^(href|src|action|formaction|xlink:href)$/i.test(attribute.name) && !harmless.test(attribute.value)) say(node);
      }
  }
  return bad;
}"""
POINT_AT = """() => document.querySelectorAll('.jp-OutputArea-output a').forEach(link =>
  ['pointerover', 'mouseover', 'mouseenter', 'mousemove', 'focus'].forEach(kind =>
    link.dispatchEvent(new MouseEvent(kind, { bubbles: true, view: window }))))"""
PLAY = """
import json
from nbllm import Client, set_process_client
from nbllm.testing import FakeProvider, Script

ANSWERS = json.loads({answers!r})
# In pieces of a few characters, so that half a tag is on the screen at some time.
fake = FakeProvider(*(Script(pieces=[a[i:i + 7] for i in range(0, len(a), 7)] or ["x"]) for a in ANSWERS))
client = Client(home={home!r}, providers={{"simulated": fake}}, cache="off")
set_process_client(client)
"""


def test_there_are_a_hundred_hostile_answers() -> None:
    """The collection is what the promise says: at least 100, all different."""
    assert len(set(HOSTILE_ANSWERS)) >= 100


@pytest.mark.parametrize("way", ["streamed", "shown"])
def test_no_hostile_answer_runs_or_fetches(tab: Visit, lab: Lab, way: str) -> None:
    """100+ hostile answers, streamed by %%llm or shown as a Reply: no script runs, no dialog opens, no foreign request leaves."""
    answers = [answer for answer in HOSTILE_ANSWERS if answer.strip()]
    setup = PLAY.format(answers=json.dumps(answers), home=str(lab.home.parent / f"hostile-{way}"))
    if way == "streamed":
        cells = [f"%%llm -m sim/small --raw\nhostile {n}" for n in range(len(answers))]
    else:
        cells = [f"client.ask('hostile {n}', model='sim/small')" for n in range(len(answers))]
    name = lab.write(f"hostile-{way}.ipynb", ["%load_ext nbllm\n" + setup, *cells])
    tab.open(name)
    tab.run_all(200)
    assert tab.error_texts() == []
    assert tab.page.locator(".jp-OutputArea-output").count() >= len(answers)
    # Each output is rendered: JupyterLab draws cells only when they come near the window.
    for number in range(0, len(answers) + 1, 6):
        tab.page.evaluate("(n) => window.jupyterapp.shell.currentWidget.content.scrollToItem(n)", number)
        tab.frames(2)
        assert tab.page.evaluate(WATCH) == []
    for link in tab.page.locator(".jp-OutputArea-output a").all()[:5]:
        link.hover(force=True)
    tab.page.evaluate(POINT_AT)
    tab.frames(2)
    assert tab.page.evaluate("() => window.pwned") == []
    assert tab.dialogs == []
    assert tab.foreign == []
    assert tab.page.url.startswith(lab.origin)
