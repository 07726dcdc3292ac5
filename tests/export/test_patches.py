"""Monkeypatches are refused with cell, line and reason: those that go along, and those that the flow would miss."""

from __future__ import annotations

from contextlib import suppress
from unittest.mock import patch as patched

import pytest

from nbllm.export import ExportRefused
from nbllm.export.requirements import needed_by
from tests.export.making import HEAD, kept, module_of, reasons, refused, sliced

USES = "import json, math\n@flow\ndef f(t):\n    return math.pi, json.dumps(t), ask(t)"

CHANGES = [
    "import math\nmath.pi = 3",
    "import nbllm\nnbllm.ask = lambda p: 'always'",
    "import math\nmath.__dict__['sqrt'] = 3",
    "import math\nvars(math)['sqrt'] = 3",
    "import math\nvars(math).update(pi=3)",
    "import math\nmath.__dict__.update(pi=3)",
    "import math\nsetattr(math, 'pi', 3)",
    "import math\nmath.__setattr__('pi', 3)",
    "import math\ndel math.pi",
    "import math\ndelattr(math, 'pi')",
    "import math\nmath.pi += 1",
    "import math\nmath.pi, x = 3, 4",
    "import math\nfor math.pi in [3]: pass",
    "import math as m\nm.pi = 3",
    "import math\nm = math\nm.pi = 3",
    "import math, json\nfor m in (json, math): m.pi = 3",
    "import importlib\nimportlib.import_module('math').pi = 3",
    "__import__('math').pi = 3",
    "import sys\nsys.modules['math'].pi = 3",
    "import sys\nsys.modules['json'] = None",
    "import sys\nsys.modules.update(json=None)",
    "import sys\ndel sys.modules['json']",
    "import builtins\nbuiltins.len = lambda x: 0",
    "__builtins__.len = lambda x: 0",
    "import builtins\nsetattr(builtins, 'len', print)",
    "from unittest import mock\nmock.patch('json.dumps').start()",
    "from unittest.mock import patch\nimport json\npatch.object(json, 'dumps').start()",
    "from unittest.mock import patch\nimport json\np = patch.object(json, 'dumps')\np.start()",
    "from unittest.mock import patch\npatch.dict('sys.modules', {'json': None}).start()",
    "import contextlib, unittest.mock as um\ncontextlib.ExitStack().enter_context(um.patch('json.dumps'))",
    "import pytest\npytest.MonkeyPatch().setattr('json.dumps', print)",
    "import pytest, json\nmp = pytest.MonkeyPatch()\nmp.setattr(json, 'dumps', print)",
    "import pytest, sys\npytest.MonkeyPatch().setitem(sys.modules, 'json', None)",
    "from json import JSONEncoder\nJSONEncoder.item_separator = ';'",
    "import json\njson.JSONEncoder.item_separator = ';'",
    "import json\ntype.__setattr__(json.JSONEncoder, 'default', print)",
    "import ssl\nssl._create_default_https_context = ssl._create_unverified_context",
    "import os\nos.path.join = lambda *parts: ''",
    "import gevent.monkey\ngevent.monkey.patch_all()",
    "def change():\n    import math\n    math.pi = 3\nchange()",
    "import math\nclass Change:\n    def now(self):\n        math.pi = 3\nChange().now()",
    "import math\nif math:\n    math.pi = 3",
]


@pytest.mark.parametrize("source", CHANGES)
def test_a_patch_that_the_flow_could_see_is_refused_wherever_it_stands(source: str) -> None:
    """Of a module, class or builtin that the slice uses, in whatever way, in a cell that the flow does not name."""
    line = {CHANGES[-3]: 3, CHANGES[-2]: 4}.get(source, source.count("\n") + 1)
    (found,) = [r for r in refused(HEAD, source, USES).refusals if r.kind == "monkeypatch"]
    assert (found.cell, found.line) == (2, line)
    assert "for everybody" in found.reason
    assert found.todo


def test_all_of_them_at_once() -> None:
    """Each patch is a line of its own, with its own place."""
    sources = ["import math\nmath.pi = 3\nmath.e = 2", "import json\nsetattr(json, 'dumps', print)"]
    assert reasons(HEAD, *sources, USES) == [("monkeypatch", 2, 2), ("monkeypatch", 2, 3), ("monkeypatch", 3, 2)]


@pytest.mark.parametrize(
    "source",
    [
        "import colorsys\ncolorsys.ONE_THIRD = 3",  # nothing that the flow uses reads it
        "import networkx\nnetworkx.draw = print",  # neither the flow nor what it needs imports it
        "def test_it(monkeypatch):\n    monkeypatch.setattr('json.dumps', print)",  # nobody calls it
        "import math\ndef change():\n    math.pi = 3",
        "from unittest.mock import patch\nwith patch('json.dumps'):\n    pass",  # over when its cell is
        "from unittest.mock import patch\n@patch('json.dumps')\ndef test_it(dumps): pass",
        "import pandas as pd\npd.options.display.max_rows = 5",  # an option, not what a module is
        "class json:\n    dumps = 1\nclass K: pass\nK.x = lambda: 1",
        "def g(math):\n    math.pi = 3\ng([])",
        "import os\nprint(os.environ['HOME'])",
    ],
)
def test_what_the_flow_cannot_see_is_in_nobodys_way(source: str) -> None:
    """Patches of what neither the slice nor its libraries use, of what is over, and options of libraries."""
    assert kept(HEAD, source, "import math\n@flow\ndef f(t):\n    return math.pi, ask(t)") == [3]


def test_a_library_that_a_library_of_the_flow_needs() -> None:
    """A patch of something below what the flow imports is seen through it; one of nbllm's own libraries always is."""
    flow = "import pydantic\n@flow\ndef f(t):\n    return pydantic, ask(t)"
    (found,) = refused(HEAD, "import pydantic_core\npydantic_core.to_json = print", flow).refusals
    assert (found.cell, found.line) == (2, 2)
    assert "pydantic too" in found.reason
    (found,) = refused(HEAD, "import aiohttp\naiohttp.ClientSession = None", "@flow\ndef f(t):\n    return ask(t)").refusals
    assert "nbllm too" in found.reason
    assert needed_by("no_such_module_anywhere") == frozenset()


def test_a_plain_value_of_pythons_own_modules_is_seen_by_libraries() -> None:
    """Nobody knows which constants a foreign module reads; where there is none, the flow's own imports say it."""
    change = "import colorsys\ncolorsys.ONE_THIRD = 3"
    assert reasons(HEAD, change, "import numpy\n@flow\ndef f(t):\n    return numpy, ask(t)") == [("monkeypatch", 2, 2)]


def test_an_option_goes_along_when_its_cell_is_marked() -> None:
    """`#| export` says that a plain value set on a library belongs to the service; code set on one stays refused."""
    use = "import litellm\n@flow\ndef f(t):\n    return litellm, ask(t)"
    (found,) = refused(HEAD, "import litellm\nlitellm.drop_params = True", use).refusals
    assert "export" in found.todo
    assert "litellm.drop_params = True" in module_of(HEAD, "#| export\nimport litellm\nlitellm.drop_params = True", use)
    assert reasons(HEAD, "#| export\nimport litellm\nlitellm.completion = print", use) == [("monkeypatch", 2, 3)]


SETS = "import os\nos.environ['TOKENIZERS_PARALLELISM'] = 'false'"


def test_the_environment_is_refused_where_the_flow_could_read_it() -> None:
    """A variable that a dropped cell sets is missed by libraries of the flow; set in the slice, it goes along as it stands."""
    foreign = "import numpy\n@flow\ndef f(t):\n    return numpy, ask(t)"
    (found,) = refused(HEAD, SETS, foreign).refusals
    assert (found.kind, found.cell, found.line) == ("monkeypatch", 2, 2)
    assert "numpy may read" in found.reason
    assert kept(HEAD, SETS, "@flow\ndef f(t):\n    return ask(t)") == [3]
    assert kept(HEAD, f"#| export\n{SETS}", foreign) == [2, 3]
    assert kept(HEAD, SETS, "@flow\ndef f(t):\n    return os.environ['A'], ask(t)") == [2, 3]
    assert kept(HEAD, SETS, "import os\n@flow\ndef f(t):\n    return os.environ['A'], ask(t)") == [2, 3]
    for change in ("os.environ.update(A='1')", "os.environ.setdefault('A', '1')", "del os.environ['A']", "os.putenv('A', '1')",
                   "os.environ |= {'A': '1'}"):  # fmt: skip
        assert reasons(HEAD, f"import os\n{change}", foreign) == [("monkeypatch", 2, 2)], change
    for magic in ("%env A=1", "%set_env A 1"):
        assert reasons(HEAD, f"x = 1\n{magic}", foreign) == [("monkeypatch", 2, 2)], magic
        assert kept(HEAD, magic, "@flow\ndef f(t):\n    return ask(t)") == [3]
    assert kept(HEAD, "%env A", foreign) == [3]
    ours = "import os\nos.environ['NBLLM_MODEL'] = 'sim/large'"
    assert "nbllm may read" in str(refused(HEAD, ours, "@flow\ndef f(t):\n    return ask(t)"))


@pytest.mark.parametrize("change", ["import os\nos.environ['DSN'] = 'hunter2'", "x = 1\n%env DSN=hunter2",
                                    "import os\nos.environ.setdefault('DSN', 'hunter2')"])  # fmt: skip
def test_what_a_variable_is_set_to_is_not_shown(change: str) -> None:
    """It may be a secret that looks like none."""
    error = str(refused(HEAD, change, "import numpy\n@flow\ndef f(t):\n    return numpy, ask(t)"))
    assert "DSN" in error
    assert "hunter2" not in error


def test_code_of_any_depth_is_read() -> None:
    """Thousands of brackets or calls in a row end in an answer or a refusal, never in an error of ours."""
    for deep in ("x = " + "(" * 150 + "1" + ")" * 150, "import math\nmath" + ".a" * 3000 + " = 1", "f" + "()" * 2000,
                 "import math\nmath.pi = " + "-" * 3000 + "1"):  # fmt: skip
        with suppress(ExportRefused):
            assert sliced(HEAD, deep, USES).kept


def test_a_key_in_the_environment_is_told_and_not_refused() -> None:
    """os.environ["X_API_KEY"] = getpass() is how keys come into notebooks; a service is given them where it runs."""
    source = "import os\nfrom getpass import getpass\nos.environ['OPENAI_API_KEY'] = getpass()"
    found = sliced(HEAD, source, "import numpy\n@flow\ndef f(t):\n    return numpy, ask(t)")
    assert [one.number for one in found.kept] == [3]
    assert found.notes == ("Cell 2 sets OPENAI_API_KEY: the service needs that variable where it runs.",)


def test_the_user_has_the_last_word_on_patches() -> None:
    """A cell with the tag no-export is not asked about, and installed packages are looked at for foreign modules only."""
    with patched("nbllm.export.requirements.metadata.packages_distributions", side_effect=AssertionError("looked")):
        assert kept(HEAD, "#| no-export\nimport math\nmath.pi = 3", USES) == [3]
        assert reasons(HEAD, "import math\nmath.pi = 3", USES) == [("monkeypatch", 2, 2)]
