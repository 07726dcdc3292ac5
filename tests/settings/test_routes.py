"""Routes with a strategy in settings: what is understood, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Client, Endpoint, Settings
from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.settings.option import BadValue
from nbllm.settings.patterns import SEARCHED_CHARS, checked_pattern
from nbllm.settings.route_tables import route_from, table_of
from nbllm.settings.strategies import ByTask, Cascade, Rule, Weighted, models_of
from tests.starvation import Stopwatch

EVERY: dict[str, dict[str, Any]] = {
    "task": {
        "strategy": "task",
        "rules": [
            {"feature": "sum*", "use": "sim/small"},
            {"language": "de", "contains": ["x", "y"], "matches": "a+", "use": ["sim/small", "sim/large"]},
            {"longer_than": 100, "shorter_than": 200, "tag": "t", "user": "u", "use": "sim/small"},
        ],
        "otherwise": "sim/large",
    },
    "classifier": {"strategy": "classifier", "model": "sim/small", "labels": {"a": "sim/small"}, "otherwise": "sim/large"},
    "learned": {
        "strategy": "learned", "plan": "p.json", "embedder": "sim/small", "labels": {"a": "sim/small"}, "otherwise": "sim/large",
        "strong_share": 0.3,
    },
    "logprob": {"strategy": "cascade", "models": ["sim/small", "sim/large"], "accept": "logprob", "min_logprob": -0.5},
    "valid": {"strategy": "cascade", "models": ["sim/small", "sim/large"], "accept": "valid", "repairs": 1, "if_none": "raise"},
    "verifier": {"strategy": "cascade", "models": ["sim/small", "sim/large"], "accept": "verifier", "verifier": "sim/large"},
    "weighted": {"strategy": "weighted", "weights": {"sim/small": 3.0, "sim/large": 1.0}, "by": "request"},
    "canary": {"strategy": "canary", "stable": "sim/small", "canary": "sim/large", "share": 0.05},
    "cheapest": {"strategy": "cheapest", "models": ["sim/small", "sim/large"]},
    "fastest": {"strategy": "fastest", "models": ["sim/small", "sim/large"], "min_calls": 9},
    "spill_over": {"strategy": "spill_over", "models": ["sim/small", "sim/large"], "wait_s": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("table", EVERY.values(), ids=EVERY)
def test_a_strategy_is_its_table(table: dict[str, Any]) -> None:
    """Every strategy reads from a table, and writes back the table that it is made of."""
    spec = route_from(table)
    assert route_from(table_of(spec)) == spec
    assert table_of(spec) == table


def test_routes_stand_in_a_file(tmp_path: Path) -> None:
    """Lists and tables stand side by side; a plan is relative to the file; the settings show each route on a line."""
    (tmp_path / "nbllm.toml").write_text(
        """
[routes]
plain = ["sim/small", "sim/large"]
[routes.first]
strategy = "cascade"
models = ["sim/small", "sim/large"]
accept = "logprob"
plan = "plans/cut.json"
[routes.by]
strategy = "task"
otherwise = "first"
[[routes.by.rules]]
feature = "f"
use = "plain"
""",
        encoding="utf-8",
    )
    settings = Settings.load(start=tmp_path, environ={})
    assert settings.routes["plain"] == ("sim/small", "sim/large")
    assert isinstance(settings.routes["first"], Cascade)
    assert settings.routes["first"].plan == str(tmp_path / "plans/cut.json")
    assert isinstance(settings.routes["by"], ByTask)
    assert settings.routes["by"].rules == (Rule(use=("plain",), feature="f"),)
    assert models_of("by", settings.routes) == ("sim/small", "sim/large")
    shown = {one.name: one.value for one in settings.explain()}
    assert shown["routes.by"] == "task: plain, first"
    assert settings.origin("routes.by") == "nbllm.toml:9"


CASCADE = '[routes.a]\nstrategy = "cascade"\nmodels = ["sim/small", "sim/large"]\naccept = '
CHEAPEST = '[routes.{}]\nstrategy = "cheapest"\nmodels = {}\n'
CANARY = '[routes.{}]\nstrategy = "canary"\nstable = "{}"\ncanary = "sim/large"\nshare = 0.5\n'
NO_LOGPROBS = '[endpoints.lab]\nbase_url = "http://127.0.0.1:1/v1"\nsupports_logprobs = false'
BAD: list[tuple[str, int, str]] = [
    ('[routes.a]\nmodels = ["sim/small"]', 1, "strategy is missing"),
    ('[routes.a]\nstrategy = "cascades"', 2, "no strategy 'cascades'"),
    ('[routes.a]\nstrategy = "weighted"\nweights = { "sim/small" = 0, "sim/large" = 0 }', 3, "sum to 0"),
    ('[routes.a]\nstrategy = "weighted"\nweights = { "sim/small" = -1, "sim/large" = 2 }', 3, "at least 0"),
    ('[routes.a]\nstrategy = "weighted"\nweights = { "sim/small" = nan }', 3, "finite"),
    ('[routes.a]\nstrategy = "weighted"\nweights = {}', 3, "must map models to weights"),
    ('[routes.a]\nstrategy = "canary"\nstable = "sim/small"\ncanary = "sim/large"\nshare = 1.5', 5, "at most 1"),
    ('[routes.a]\nstrategy = "canary"\nstable = "sim/small"\nshare = 0.5', 1, "needs canary"),
    ('[routes.a]\nstrategy = "fastest"\nmodels = ["sim/small", "a"]', 1, "names the route a among others"),
    ('[routes.a]\nstrategy = "cheapest"\nmodel = ["sim/small"]', 3, "no field 'model'"),
    ('[routes.a]\nstrategy = "cheapest"\nmodels = ["sim/small", "sim/small"]', 3, "twice"),
    ('[routes.a]\nstrategy = "task"\nrules = []\notherwise = "sim/small"', 3, "must be a list of rules"),
    ('[routes.a]\nstrategy = "task"\nrules = [{ matches = "(a+)+b", use = "sim/small" }]\notherwise = "sim/small"', 3, "rule 1"),
    ('[routes.a]\nstrategy = "task"\nrules = [{ feature = "f" }]\notherwise = "sim/small"', 3, "rule 1 needs use"),
    (CASCADE + '"logprob"', 1, "needs min_logprob"),
    (CASCADE + '"logprob"\nmin_logprob = 0.5', 5, "at most 0"),
    (CASCADE + '"verifier"', 1, "needs verifier"),
    ('[routes.a]\nstrategy = "cascade"\nmodels = ["sim/small"]\naccept = "valid"', 3, "at least two models"),
    (CASCADE + '"valid"\ncheck = "f"', 5, "a function"),
    (CANARY.format("a", "a"), 1, "names itself"),
    (CANARY.format("a", "b") + CANARY.format("b", "a"), 1, "itself by way of b > a"),
    ('[routes]\nlist = ["a"]\n' + CHEAPEST.format("a", '["sim/small"]'), 2, "names the route a, and a list holds model ids only"),
    (CHEAPEST.format("a", '["b"]') + CHEAPEST.format("b", '["sim/small"]'), 1, "chooses by itself"),
    ('ladder = ["a", "sim/small"]\n' + CHEAPEST.format("a", '["sim/small"]'), 1, "chooses by itself"),
    (CASCADE.replace("sim/small", "lab/m") + '"logprob"\nmin_logprob = -1\n' + NO_LOGPROBS, 1, "supports_logprobs"),
    ("[routes]\na = 3", 2, "text or a list of texts"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), BAD)
def test_a_route_that_cannot_work_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    """What is wrong with a route is said where the file is read, with file and line and what to do, before any call."""
    (tmp_path / "nbllm.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsFileError) as caught:
        Settings.load(start=tmp_path, environ={})
    assert words in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ({"a": {"strategy": "canary", "stable": "a", "canary": "sim/small", "share": 1}}, "names itself"),
        ({"a": {"strategy": "weighted", "weights": {"sim/small": 0}}}, "sum to 0"),
        ({"a": ["nowhere/m"]}, "no endpoint or provider 'nowhere'"),
        ({"a": {"strategy": "cheapest", "models": ["sim/small", "nowhere/m"]}}, "no endpoint or provider 'nowhere'"),
        ({"a": {**EVERY["classifier"], "model": "nowhere/m"}}, "no endpoint or provider 'nowhere'"),
        ({"a": {**EVERY["valid"], "check": 3}}, "must be a function"),
    ],
)
def test_routes_of_code_are_checked_where_they_are_given(tmp_path: Path, routes: dict[str, Any], words: str) -> None:
    """Client(routes=...) and configure() refuse what cannot work, unknown models included, and change nothing."""
    with pytest.raises(ConfigurationError, match=words):
        Client(home=tmp_path, routes=routes)
    with Client(home=tmp_path) as client:
        with pytest.raises(ConfigurationError, match=words):
            client.configure(routes=routes)
        assert client.settings.routes == {}


def test_a_route_can_be_given_as_its_dataclass(tmp_path: Path) -> None:
    """A strategy made in code is checked like its table, and a check function stays with it."""

    def check(text: str) -> bool:
        return bool(text)

    cascade = Cascade(models=("sim/small", "sim/large"), accept="valid", check=check)
    with Client(home=tmp_path, routes={"a": cascade}) as client:
        (spec,) = client.settings.routes.values()
        assert isinstance(spec, Cascade)
        assert spec.check is check
    with pytest.raises(ConfigurationError, match="sum to 0"):
        Client(home=tmp_path, routes={"a": Weighted(weights={"sim/small": 0})})


def test_endpoints_say_whether_they_give_log_probabilities() -> None:
    """False refuses a cascade that needs them; None and True do not; the last model needs none."""
    route = EVERY["logprob"] | {"models": ["lab/m", "sim/large"]}
    for supports, fine in ((None, True), (True, True), (False, False)):
        lab = Endpoint(base_url="http://127.0.0.1:1/v1", supports_logprobs=supports)
        given = {"endpoints": {"lab": lab}, "routes": {"a": route}}
        if fine:
            Settings().replace_values("test", **given)
        else:
            with pytest.raises(ConfigurationError, match="supports_logprobs"):
                Settings().replace_values("test", **given)
        Settings().replace_values("test", **given | {"routes": {"a": route | {"models": ["sim/large", "lab/m"]}}})


# ---------------------------------------------------------------------------------------------------- patterns

GOOD = [
    r"\bsql\b",
    r"(?i)invoice\s++number",
    r".*foo",
    r"[a-z]{1,9}x[0-9]{1,9}",
    r"(foo|bar)?baz",
    r"(\d{3}-){2}",
    r"^(a|b|cc)$",
    r"(?=x)a+",
]
EVIL = [
    r"(a+)+$", r"(a|aa)*b", r"(.*)*x", r".*.*x", r"(\w+\s?)*!", r"(a*)*", r"(a)\1", r"\s+number\s+x", r"(x+x+)+y",
    r"(?:a{0,50}){0,50}b", "(", "a" * 501, "",
]  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_ordinary_patterns_are_taken(pattern: str) -> None:
    """Words, classes, one open repeat, bounded and possessive ones are enough for rules."""
    assert checked_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", EVIL)
def test_patterns_that_can_take_ages_are_refused(pattern: str) -> None:
    """Repeats within repeats, several open ones, alternatives in a repeat and references back are refused by name."""
    with pytest.raises(BadValue, match="matches"):
        checked_pattern(pattern)


@given(st.text(st.sampled_from("ab(|)*+?{1,9}[].\\ds^$"), max_size=12), st.sampled_from(["a", "ab", "a b", "1"]))
def test_whatever_is_taken_is_quick(pattern: str, piece: str) -> None:
    """No pattern that is taken needs longer than a fraction of a second on a text made to be hard."""
    import re

    try:
        checked_pattern(pattern)
    except BadValue:
        return
    text = (piece * SEARCHED_CHARS)[: SEARCHED_CHARS - 1] + "!"
    watch = Stopwatch()
    re.compile(pattern).search(text)
    assert watch.s < 1


def test_a_plan_of_code_is_read_where_it_is_given(tmp_path: Path) -> None:
    """A plan that is not there, or is none, is an error of Client(routes=...), not of the first call."""
    for content, words in ((None, "cannot be read"), ("{", "is no JSON"), ('{"kind": "other"}', "which kind of plan")):
        if content is not None:
            (tmp_path / "p.json").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=words):
            Client(home=tmp_path, routes={"a": EVERY["learned"] | {"plan": str(tmp_path / "p.json")}})


@pytest.mark.parametrize(("names", "word"), [(["a"], "names itself"), (["b"], "names the route b")])
def test_a_list_that_names_a_route_says_so(names: list[str], word: str) -> None:
    """A list holds model ids only; one that leads to itself, or to another route, is told apart from a mistyped model."""
    with pytest.raises(ConfigurationError, match=word):
        Settings().replace_values("test", routes={"a": names, "b": ["sim/small"]})
