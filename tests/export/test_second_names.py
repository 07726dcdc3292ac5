"""Classes and functions that cells change under other names, or after something was made of them."""

from __future__ import annotations

import pytest

from tests.export.making import kept, module_of, run, sources

CONF = "class Conf:\n    limit = 1\n\n"
CHANGED = {
    "a loop over classes": CONF
    + """
class More: limit = 2

for c in (Conf, More):
    c.limit = 9

def use(t): return Conf.limit, More.limit""",
    "a second name": CONF + "Other = Conf\n\nOther.limit = 4\n\ndef use(t): return Conf.limit",
    "a class in a list": CONF + "kinds = [Conf]\n\nkinds[0].limit = 4\n\ndef use(t): return Conf.limit",
    "values of a dict": CONF + "table = {'a': Conf}\n\nfor v in table.values(): v.limit = 7\n\ndef use(t): return Conf.limit",
    "a method that sets up a class": CONF
    + """
class Setup:
    def apply(self, c): c.limit = 5

Setup().apply(Conf)

def use(t): return Conf.limit""",
    "a function that map calls": CONF + "def cfg(c): c.limit = 3\n\nlist(map(cfg, [Conf]))\n\ndef use(t): return Conf.limit",
    "a lambda": CONF + "(lambda c: setattr(c, 'limit', 5))(Conf)\n\ndef use(t): return Conf.limit",
    "a second name in a function": CONF + "def cfg(c):\n    d = c\n    d.limit = 3\n\ncfg(Conf)\n\ndef use(t): return Conf.limit",
    "a function of any number": CONF + "def cfg(*cs):\n    for c in cs: c.limit = 3\n\ncfg(Conf)\n\ndef use(t): return Conf.limit",
    "a function in the function": CONF
    + """
def cfg(c):
    def inner(): c.limit = 3
    inner()

cfg(Conf)

def use(t): return Conf.limit""",
    "the class of an object": CONF + "c = Conf()\n\nc.__class__.limit = 5\n\ntype(c).limit += 1\n\ndef use(t): return Conf.limit",
    "a method that sets its class": """
class K:
    a = 1
    def load(self, v): self.__class__.a = v

K().load(6)

def use(t): return K.a""",
    "functions in a loop": "def g(): return g.n\n\nfor fn in (g,): fn.n = 3\n\ndef use(t): return g()",
    "members of an enum": """
from enum import Enum

class E(Enum):
    A = 1

for e in E: e.note = e.name * 2

def use(t): return E.A.note""",
    "its dict": CONF
    + """
def g(): return g.n

g.__dict__['n'] = 2

h = g

vars(h).update(n=3)

def use(t): return g()""",
    "what partial is given": CONF
    + """
import functools

def cfg(c, n): c.limit = n

five = functools.partial(cfg, Conf)

five(5)

def use(t): return Conf.limit""",
    "what a function gives back": CONF + "def pick(): return Conf\n\npick().limit = 8\n\ndef use(t): return Conf.limit",
    "what an object holds": CONF
    + """
class Box:
    def __init__(self, c): self.c = c

box = Box(Conf)

box.c.limit = 8

def use(t): return Conf.limit""",
    "a class, after its object was made": CONF + "c = Conf()\n\nConf.limit = 5\n\ndef use(t): return c.limit",
    "a base, after the class was made": CONF
    + "class D(Conf): pass\n\nd = D()\n\nConf.limit = 5\n\ndef use(t): return d.limit, D.limit",
    "a function, after it was listed": "def g(): 'old'\n\nTOOLS = {'g': g}\n\n"
    "g.__doc__ = 'new'\n\ndef use(t): return TOOLS['g'].__doc__",
    "a method that is added": CONF
    + "c = Conf()\n\ndef shout(self): return 'X'\n\nConf.shout = shout\n\ndef use(t): return c.shout()",
    "a counter of a decorator": """
def counted(fn):
    def inner(*a):
        inner.calls += 1
        return fn(*a)
    inner.calls = 0
    return inner

@counted
def g(): return 1

g()

def use(t): return g.calls""",
    "classes that are found": """
class Base: pass

class One(Base): pass

class Two(One): pass

def use(t):
    return sorted(c.__name__ for c in Base.__subclasses__() + One.__subclasses__())""",
}
LOOKED_AT = {
    "a function that is handed on": (
        """
def use(t): return t.strip()

list(map(use, 'ab')), sorted('ab', key=use), [use][0]('x'), {'u': use}

print(use.__name__)""",
        [2, 5],
    ),
    "a function in a pool that asks": (
        """
from concurrent.futures import ThreadPoolExecutor

def use(t): return ask(t).text

with ThreadPoolExecutor(2) as pool:
    found = list(pool.map(use, ['a', 'b']))

found[0]""",
        [3, 6],
    ),
    "objects of a class": (
        CONF
        + """
found = [Conf(), Conf()]

for one in found: one.limit = 3

found[0].limit += 1

def use(t): return Conf""",
        [2, 6, 7],
    ),
    "a schema": (
        """
from pydantic import BaseModel

class T(BaseModel): n: int

r = ask('x', schema=T)

r.data.n = 3

def use(t): return ask(t, schema=T).data""",
        [3, 6, 7],
    ),
    "an enum that is gone through": (
        """
from enum import Enum

class E(Enum):
    A = 1

[e.value for e in E]

counts = {e: 0 for e in E}

counts[E.A] += 1

def use(t): return E""",
        [3, 7, 8],
    ),
    "a setting that is read": (
        CONF
        + """
import os

Conf.limit = os.getenv('L', 2)

def use(t): return ask(t, max_tokens=Conf.limit).text

use('x')""",
        [2, 4, 5, 7],
    ),
    "a dict without a default": ("d = {'a': 1}\n\nd['a']\n\ndef use(t): return d", [2, 4, 5]),
    "classes that nobody looks for": ("class Base: pass\n\nclass One(Base): pass\n\ndef use(t): return Base", [2, 4, 5]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_a_definition_by_another_name_goes_along(name: str) -> None:
    """The flow answers as it does in the notebook, whatever a cell called what it changed."""
    cells = sources(CHANGED[name])
    assert run(module_of(*cells))["f"]("x") == run("\n".join(cells))["f"]("x")


@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_only_hands_a_definition_around_stays_behind(name: str) -> None:
    """Using a function or class as a value is no change of it: such a cell is not kept, and not refused for what it asks."""
    text, numbers = LOOKED_AT[name]
    assert kept(*sources(text)) == numbers
