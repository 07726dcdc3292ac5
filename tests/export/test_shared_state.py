"""What a flow changes of the module while it runs is told, since all callers of a service share it."""

from __future__ import annotations

import pytest

from tests.export.making import HEAD, sliced

CHAT = """@flow
def f(t):
    history.append(t)
    return ask(str(history)).text"""
SESSION = """
class Session:
    def __init__(self): self.seen = []
    def note(self, t): self.seen.append(t)
    def say(self, t):
        self.note(t)
        return ask(str(self.seen)).text
    def shown(self): return len(self.seen)

S = Session()"""
TOLD = {
    "a list": (["history = []", CHAT], "Cell 3, line 3: f changes history,"),
    "a dict in a helper": (
        ["memo = {}", "def g(t):\n    memo[t] = ask(t).text\n    return memo[t]", "@flow\ndef f(t): return g(t)"],
        "Cell 3, line 2: g changes memo,",
    ),
    "a number": (["n = 0", "@flow\ndef f(t):\n    global n\n    n += 1\n    return n"], "Cell 3, line 4: f changes n,"),
    "an object's attribute": (
        ["class C: pass\nc = C()", "@flow\ndef f(t):\n    c.last = t\n    return ask(t).text"],
        "Cell 3, line 3: f changes c,",
    ),
    "an object by its method": ([SESSION, "@flow\ndef f(t): return S.say(t)"], "Cell 3, line 2: f changes S,"),
    "a class": (["class C: n = 0", "@flow\ndef f(t):\n    C.n += 1\n    return C.n"], "Cell 3, line 3: f changes C,"),
    "in a lambda": (["L = []", "add = lambda t: L.append(t)", "@flow\ndef f(t): return add(t)"], "Cell 3, line 1: add changes L,"),
    "in a method": (
        ["L = []", "class C:\n    def add(self, t): L.append(t)", "@flow\ndef f(t): return C().add(t)"],
        "Cell 3, line 2: C changes L,",
    ),
}
FINE = {
    "its own": ["@flow\ndef f(t):\n    history = []\n    history.append(t)\n    return history"],
    "a parameter": ["history = [1]", "@flow\ndef f(t, history: list):\n    history.append(t)\n    return history"],
    "a copy": ["base = []", "@flow\ndef f(t):\n    found = [*base]\n    found.append(t)\n    return found"],
    "what only reads": ["d = {'a': 1}", "@flow\ndef f(t): return d['a'], d.get(t), sorted(d)"],
    "what only a cell runs": ["L = []", "def fill(): L.append(1)\nfill()", "@flow\ndef f(t): return L"],
    "an object's own": [SESSION, "@flow\ndef f(t): return Session().say(t), S.shown()"],
    "a module": ["import sys", "@flow\ndef f(t): return sys.argv.index(t)"],
    "a local function": ["@flow\ndef f(t):\n    found = {}\n    def add(x): found[x] = t\n    add(1)\n    return found"],
}


@pytest.mark.parametrize("name", TOLD)
def test_what_callers_share_is_told_with_its_place(name: str) -> None:
    """A name of the module that a run of the flow changes is told of once, with cell, line and the function that does it."""
    sources, place = TOLD[name]
    (note,) = sliced(HEAD, *sources).notes
    assert note.startswith(place)
    assert "all callers of the service share" in note


@pytest.mark.parametrize("name", FINE)
def test_what_belongs_to_one_run_is_not_told(name: str) -> None:
    """Variables of the flow, what it only reads, and what cells changed before it are no state that callers share."""
    assert [note for note in sliced(HEAD, *FINE[name]).notes if "share" in note] == []
