"""Classes, functions and callables that cells change: registries, counters, decorators that take note of what they decorate."""

from __future__ import annotations

import pytest

from tests.export.making import kept, module_of, run, sources

REGISTRY = """
class Reg:
    items = []
    @classmethod
    def add(cls, x):
        cls.items.append(x)
        return x
"""
COUNTER = """
class Counter:
    def __init__(self): self.n = 0
    def __call__(self): self.n += 1
    def __rshift__(self, x): self.n += x

count = Counter()
"""
CONF = "class Conf:\n    limit = 1\n\n"
CACHED = "from functools import cache\n\n@cache\ndef made(): return []\n\n"
CHANGED = {
    "a class that is a registry": REGISTRY + "\nReg.add('a')\n\ndef use(t): return list(Reg.items)",
    "a static method of one": """
class Reg:
    items = []
    @staticmethod
    def add(x): Reg.items.append(x)

Reg.add('a')

def use(t): return list(Reg.items)""",
    "a class's container made by a call": """
class Reg:
    items = set()
    @classmethod
    def add(cls, x): cls.items |= {x}

Reg.add('a')

def use(t): return list(Reg.items)""",
    "a class's constant that is set anew": """
class Reg:
    items = ()
    @classmethod
    def add(cls, x): cls.items += (x,)

Reg.add('a')

def use(t): return list(Reg.items)""",
    "a class that inherits a registry": REGISTRY + "\nclass More(Reg): pass\n\nMore.add('a')\n\ndef use(t): return Reg.items",
    "a registry as a decorator": REGISTRY + "\n@Reg.add\ndef plugin(): pass\n\ndef use(t): return [g.__name__ for g in Reg.items]",
    "a registry as a class's decorator": REGISTRY
    + "\n@Reg.add\nclass P: pass\n\ndef use(t): return [g.__name__ for g in Reg.items]",
    "an object as a decorator": """
class Plugins(list):
    def __call__(self, g): self.append(g.__name__)

plugins = Plugins()

@plugins
def one(): pass

def use(t): return list(plugins)""",
    "subclasses that are counted": """
class Base:
    all = []
    def __init_subclass__(cls): Base.all.append(cls.__name__)

class A(Base): pass

def use(t): return Base.all""",
    "a metaclass that counts": """
class Meta(type):
    all = []
    def __init__(cls, *a): Meta.all.append(a[0])

class A(metaclass=Meta): pass

def use(t): return Meta.all""",
    "objects that are counted": """
class K:
    made = []
    def __init__(self): K.made.append(1)

K()

def use(t): return K.made""",
    "a type for singledispatch": """
from functools import singledispatch

@singledispatch
def s(x): return 'any'

@s.register
def of_text(x: str): return 'text'

def use(t): return s(t)""",
    "a class that a function sets up": CONF + "def cfg(c): c.limit = 5\n\ncfg(Conf)\n\ndef use(t): return Conf.limit",
    "by setattr": CONF + "def cfg(c, n): setattr(c, 'limit', n)\n\ncfg(Conf, 5)\n\ndef use(t): return Conf.limit",
    "through a function that hands it on": CONF
    + "def cfg(c): c.limit = 5\n\ndef both(c): cfg(c)\n\nboth(Conf)\n\ndef use(t): return Conf.limit",
    "a function that is set up": "def g(): return g.n\n\ndef cfg(h): h.n = 3\n\ng.n = 1\n\ncfg(g)\n\ndef use(t): return g()",
    "a method under another name": "L = []\n\nadd = L.append\n\nadd(1)\n\ndef use(t): return L",
    "a function with a memory": """
def counting():
    n = [0]
    def step():
        n[0] += 1
        return n[0]
    return step

step = counting()

step()

def use(t): return step()""",
    "an object that is called": COUNTER + "\ncount()\n\ndef use(t): return count.n",
    "an object with an operator": COUNTER + "\ncount >> 4\n\ndef use(t): return count.n",
    "a partial that is called": """
from functools import partial

L = []

add = partial(list.append, L)

add(1)

def use(t): return L""",
    "a lambda that remembers": "add = lambda x, seen=[]: seen.append(x) or len(seen)\n\nadd(1)\n\ndef use(t): return add(2)",
    "what a cached function gave": CACHED + "made().append(1)\n\ndef use(t): return made()",
    "a part of it": CACHED + "made().append([])\n\nmade()[0].append(2)\n\ndef use(t): return made()",
    "it under another name": CACHED + "mine = made()\n\nmine += [1]\n\nmine.append(2)\n\ndef use(t): return made()",
    "a default that was given back": "def made(seen=[]): return seen\n\nmade().append(1)\n\ndef use(t): return made()",
}
LOOKED_AT = {
    "what a cached function gave": (CACHED + "mine = made()\n\nlen(mine), made()[:1]\n\ndef use(t): return made()", [3, 6, 7]),
    "a class of fields": (CONF + "Conf()\n\nprint(Conf.limit)\n\ndef use(t): return Conf", [2, 5, 6]),
    "a class that is shown": (
        CONF + "def show(c): return c.__name__\n\nshow(Conf)\n\ndef use(t): return Conf",
        [2, 5, 6],
    ),
    "a function that is tried out": ("def use(t): return t\n\nuse(1)", [2, 4]),
    "a lambda that is tried out": ("clean = lambda s: s.strip()\n\nclean(' a ')\n\ndef use(t): return clean(t)", [2, 4, 5]),
    "a short way to ask": (
        "from functools import partial\n\nshort = partial(ask, model='sim/small')\n\nshort('hi')\n\ndef use(t): return short(t)",
        [3, 5, 6],
    ),
    "a decorator of a library": (
        "import functools\n\n@functools.cache\ndef other(): pass\n\n@functools.cache\ndef use(t): return t",
        [4, 5],
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_a_definition_goes_along(name: str) -> None:
    """The flow answers as it does in the notebook."""
    cells = sources(CHANGED[name])
    assert run(module_of(*cells))["f"]("x") == run("\n".join(cells))["f"]("x")


@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_only_looks_stays_behind(name: str) -> None:
    """A cell that only tries something out is not kept, and not refused for what it asks."""
    text, numbers = LOOKED_AT[name]
    assert kept(*sources(text)) == numbers
