"""Tables of constants and functions: cells that go through one stay behind, cells that change one go along."""

from __future__ import annotations

import pytest

from tests.export.making import kept, module_of, run, sources

TABLES = "def fa(t): return t\nLABELS = ['a', 'b']\nTOOLS = {'a': fa}\n\n"
USE = "\n\ndef use(t): return LABELS, list(TOOLS), [tool(t) for tool in TOOLS.values()]"
READ = {
    "a loop": "for label in LABELS:\n    print(ask(label).text)",
    "a comprehension": "found = [ask(label).text for label in LABELS if label]\nfound.append(1)",
    "a loop over a dict": "for name, tool in TOOLS.items():\n    print(name, tool(ask('x').text))",
    "an item that is called": "print(TOOLS['a'](ask('x').text))",
    "an item": "first = LABELS[0]\nask(first)",
    "sorting": "best = sorted(LABELS, key=lambda one: len(one))[0]\nask(best)",
    "numbering": "for n, one in enumerate(sorted(LABELS)):\n    ask(f'{n} {one}')",
    "a sample": "import random\nask(random.choice(LABELS))",
    "a count": "LABELS.index('a'), LABELS.count('b'), ask('x')",
    "a template": "from string import Template\nT = Template('$x')\nask(T.substitute(x=LABELS[0]))",
}
CHANGED = {
    "appending": "LABELS.append('c')",
    "an item that is set": "LABELS[0] = 'c'",
    "a second name": "other = LABELS\n\nother.append('c')",
    "adding": "LABELS += ['c']",
    "a function that is given it": "def add(x): x.append('c')\n\nadd(LABELS)",
    "a key that is added": "TOOLS['b'] = lambda t: 1",
    "a method that takes away": "TOOLS.pop('a')",
    "a loop over itself": "for one in list(LABELS):\n    LABELS.append(one * 2)",
    "a list in it": "LABELS = [[1], [2]]\n\nfor one in LABELS: one.append(3)",
    "a list that is put in": "LABELS.append([1])\n\nfor one in LABELS:\n    if one[0] == 1: one.append(3)",
    "a sort of one's own": "def sorted(x): x.append('c'); return x\n\nsorted(LABELS)",
    "a method of one's own": """
class T:
    def __init__(self): self.seen = []
    def render(self, x): self.seen.append(x)

LABELS = T()

LABELS.render(1)

LABELS = LABELS.seen""",
    "a class in it": """
class K:
    items = []

LABELS = [K]

for k in LABELS:
    x = k.items
    x.append(1)

LABELS = K.items""",
}


@pytest.mark.parametrize("name", READ)
def test_a_cell_that_goes_through_a_table_stays_behind(name: str) -> None:
    """Reading constants and calling functions of a table is no change of it, so what else the cell asks is no reason to refuse."""
    assert kept(*sources(TABLES + READ[name] + USE)) == [2, 4, 5]


@pytest.mark.parametrize("name", CHANGED)
def test_a_cell_that_changes_a_table_goes_along(name: str) -> None:
    """The flow answers as it does in the notebook."""
    cells = sources(TABLES + CHANGED[name] + USE)
    assert run(module_of(*cells))["f"]("x") == run("\n".join(cells))["f"]("x")


def test_a_logger_and_a_template_are_looked_at() -> None:
    """Writing into a log and filling in a template change neither."""
    text = (
        "import logging\nlog = logging.getLogger('m')\n\nlog.info(ask('x').text)\n\ndef use(t):\n    log.info('one')\n    return t"
    )
    assert kept(*sources(text)) == [2, 4, 5]
