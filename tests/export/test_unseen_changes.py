"""What classes and generators hold, what looking at an object changes, and modules that cells set up."""

from __future__ import annotations

import pytest

from tests.export.making import kept, module_of, run, sliced, sources

CHANGED = {
    "a container that a class shares": "L = []\n\nclass O: items = L\n\nO.items.append(1)\n\ndef use(t): return L",
    "an object that a class holds": """
class Log:
    def __init__(self): self.x = []
    def add(self, x): self.x.append(x)

class K:
    log = Log()

k = K()

k.log.add('a')

def use(t): return K.log.x""",
    "a class in a class": """
class K:
    class B:
        v = []
    def add(self, x): self.B.v.append(x)

K().add(1)

def use(t): return K.B.v""",
    "what a generator hands out": "L = []\n\ndef gen(): yield L\n\nfor s in gen(): s.append(1)\n\ndef use(t): return L",
    "an iterator that is spread out": "ids = iter(range(10))\n\nprint(*ids)\n\ndef use(t): return next(ids, None)",
    "a key that is looked up": """
from collections import defaultdict

d = defaultdict(list)

d['x']

def use(t): return dict(d)""",
    "operators, items and texts": """
class Col:
    def __init__(self): self.seen = []
    def __or__(self, x): self.seen.append(x); return self
    def __getitem__(self, x): self.seen.append(x)
    def __eq__(self, x): self.seen.append(x)
    def __str__(self): self.seen.append('text'); return ''
    def __format__(self, x): self.seen.append('format'); return ''
    __hash__ = None

col = Col()

col | 1

col[2]

col == 3

print(col)

f'{col}'

def use(t): return col.seen""",
    "a property that counts": """
class Reg:
    def __init__(self): self.n = 0
    @property
    def next(self):
        self.n += 1
        return self.n

reg = Reg()

reg.next

def use(t): return reg.next""",
    "what sum makes": """
a = [[[1]], [[2]]]

flat = sum(a, [])

flat.append(3)

flat[0].append(4)

def use(t): return flat, a""",
    "what abs and round make": """
class N:
    def __init__(self): self.x = []
    def __abs__(self): return N()
    def __round__(self): return N()

a, b = N(), N()

c = abs(a)

d = round(b)

c.x.append(1)

d.x.append(2)

def use(t): return c.x, d.x""",
    "a text that is none": """
class Doc:
    def __init__(self): self.lines = []
    def read_text(self): return self.lines

doc = Doc()

text = doc.read_text()

text.append('b')

def use(t): return doc.lines""",
}
SET_UP = {
    "an imported function": (
        "from random import seed, random\n\nseed(3)\n\ndef use(t): return random()",
        3,
    ),
    "of a module in a package": (
        "from numpy.random import seed, rand\n\nseed(0)\n\ndef use(t): return float(rand())",
        3,
    ),
    "what an imported function gives": (
        "from decimal import Decimal, getcontext\n\ngetcontext().prec = 4\n\ndef use(t): return 1 / Decimal(3)",
        3,
    ),
    "register in a longer name": (
        """
import csv

csv.register_dialect('semi', delimiter=';')

def use(t): return next(csv.reader(['a;b'], 'semi'))""",
        3,
    ),
    "a limit": (
        "import csv\n\ncsv.field_size_limit(999)\n\ndef use(t): return csv.field_size_limit()",
        3,
    ),
    "add in a longer name": (
        "import mimetypes\n\nmimetypes.add_type('text/zz', '.zz')\n\ndef use(t): return mimetypes.guess_type('a.zz')",
        3,
    ),
    "a codec, which nobody names": (
        """
import codecs

codecs.register(lambda n: codecs.lookup('utf-8') if n == 'mine' else None)

def use(t): return 'a'.encode('mine')""",
        3,
    ),
    "a module that is imported again": (
        """
import logging.config

logging.config.dictConfig({'version': 1, 'root': {'level': 'ERROR'}})

import logging

def use(t): return logging.getLogger().level""",
        3,
    ),
    "a module of which an object is left": (
        """
import logging

log = logging.getLogger('m')

logging.getLogger('m').addFilter(print)

def use(t): return log.filters""",
        4,
    ),
    "through a function of the notebook": (
        """
from decimal import Decimal, getcontext

def exact(n): getcontext().prec = n

exact(5)

def use(t): return 1 / Decimal(3)""",
        4,
    ),
    "a foreign function that is called for nothing else": (
        "import yaml\nyaml.warnings()\nN = 1\n\ndef use(t): return yaml.safe_load(t)",
        2,
    ),
    "one that is imported by its name": (
        "from yaml import safe_load, warnings\nfor n in range(2):\n    warnings(n)\n\ndef use(t): return safe_load(t)",
        2,
    ),
    "through a seed of one's own": (
        "import random\nimport random as r\n\ndef set_all(n): random.seed(n)\n\nset_all(42)\n\ndef use(t): return r.random()",
        4,
    ),
}
NOT_SET_UP = {
    "a foreign function that is tried out": (
        "import yaml\n\nyaml.safe_load(ask('x').text)\n\ndef use(t): return yaml.safe_load(t)",
        [4, 5],
    ),
    "a plot": ("import matplotlib.pyplot as plt\n\nplt.plot([1])\nplt.show()\n\ndef use(t): return plt.figure()", [4, 5]),
    "an object of an imported class": (
        "import pandas as pd\n\npd.DataFrame([ask(t).text for t in 'ab']).head()\n\ndef use(t): return pd.DataFrame([t])",
        [4, 5],
    ),
    "a function in a package": (
        "import numpy as np\nimport nbllm\n\nnp.linalg.norm(nbllm.embed(['a'])[0])\n\ndef use(t): return np.linalg.norm([1])",
        [4, 5],
    ),
    "a module that the flow has nothing of": ("from random import seed\n\nseed(3)\n\ndef use(t): return t", [4, 5]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_an_object_unseen_goes_along(name: str) -> None:
    """What a class holds, what a generator hands out, and objects that change when they are looked at, are as in the notebook."""
    cells = sources(CHANGED[name])
    assert run(module_of(*cells))["f"]("x") == run("\n".join(cells))["f"]("x")


@pytest.mark.parametrize("name", SET_UP)
def test_what_sets_a_module_up_goes_along(name: str) -> None:
    """A cell that sets something up in a module goes with a flow that uses the module, whatever name it has for it."""
    text, number = SET_UP[name]
    assert number in kept(*sources(text))


@pytest.mark.parametrize("name", NOT_SET_UP)
def test_what_only_uses_a_module_stays_behind(name: str) -> None:
    """Calling what a module has is no set-up of it: such a cell is not kept, and not refused for what it asks."""
    text, numbers = NOT_SET_UP[name]
    assert kept(*sources(text)) == numbers


def test_another_working_folder_is_told() -> None:
    """A service works in its own folder, so a cell that changes the notebook's is told of, kept or not."""
    (left,) = sliced(*sources("import os\n\nos.chdir('data')\n\ndef use(t): return t")).notes
    assert "Cell 3 changes the working folder (os.chdir), the service does not" in left
    (taken,) = sliced(*sources("from os import chdir\n\nchdir('.')\nN = 1\n\ndef use(t): return N")).notes
    assert "Cell 3 changes the working folder (os.chdir), so will the service" in taken
    (magic,) = sliced(*sources("%cd data\n\ndef use(t): return t")).notes
    assert "Cell 2 changes the working folder (%cd), the service does not" in magic
