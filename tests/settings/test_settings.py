"""Settings: every value, where it came from, and a clear word about every mistake."""

from __future__ import annotations

import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ConfigurationError, InvalidRequest, SettingsFileError
from nbllm.redaction import redact
from nbllm.settings import CALL_OPTIONS, SETTABLE, Endpoint, Settings, check_call_options
from nbllm.settings.toml_lines import keys, line_of

KEY = "sk-proj-Zq8Kd2Lm5Nv7Px1Rt4Wy6Bc9"


def loaded(folder: Path, text: str, *, name: str = "nbllm.toml", **environ: str) -> Settings:
    """Write a settings file and load it."""
    (folder / name).write_text(text, encoding="utf-8")
    return Settings.load(start=folder, environ=environ)


def refused(folder: Path, text: str, *, name: str = "nbllm.toml", **environ: str) -> SettingsFileError:
    """Return the error about a settings file."""
    with pytest.raises(SettingsFileError) as caught:
        loaded(folder, text, name=name, **environ)
    return caught.value


def test_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    """Without files and variables every option has the default that the documentation promises."""
    settings = Settings.load(start=tmp_path, environ={})
    call = settings.call
    assert (call["repairs"], call["retries"], call["cache"]) == (2, 2, "use")
    assert (call["deadline_s"], call["ttft_s"], call["idle_s"], call["attempt_s"]) == (300, 60, 60, None)
    assert (call["temperature"], call["sample"], call["partition"], call["extra"]) == (None, 0, "", {})
    assert (settings.cache_size_mb, settings.cache_max_age_days, settings.recordings) == (1024, 90, False)
    assert (settings.retry_budget_share, settings.retry_budget_floor, settings.budgets.soft) == (0.2, 3, 0.8)
    assert settings.home.name == "nbllm"
    assert settings.origins == {}
    assert all(row.origin == "default" for row in settings.explain())


def test_later_sources_win_and_say_so(tmp_path: Path) -> None:
    """Defaults < file < variable < %llm_config < Client(...); explain names the source, a file with its line."""
    settings = loaded(tmp_path, 'model = "a/file"\ndeadline_s = 100\nidle_s = 5\n', NBLLM_MODEL="b/variable", NBLLM_IDLE_S="6")
    settings = settings.replace_values("%llm_config", idle_s="7", ttft_s=8)
    settings = settings.replace_values("Client(...)", ttft_s=9, ladder=["a/b", "c/d"])
    rows = {row.name: (row.value, row.origin) for row in settings.explain()}
    assert rows["retries"] == ("2", "default")
    assert rows["deadline_s"] == ("100", "nbllm.toml:2")
    assert rows["model"] == ("b/variable", "NBLLM_MODEL")
    assert rows["idle_s"] == ("7", "%llm_config")
    assert rows["ttft_s"] == ("9", "Client(...)")
    assert settings.ladder == ("a/b", "c/d")


def test_the_nearest_file_counts_and_pyproject_too(tmp_path: Path) -> None:
    """Files are looked for upwards; nbllm.toml goes before pyproject.toml beside it; foreign pyprojects are passed by."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n\n[tool.nbllm]\nmodel = "top/x"\n')
    (tmp_path / "a" / "pyproject.toml").write_text("broken = = toml, and none of our business\n")
    settings = Settings.load(start=inner, environ={})
    assert (settings.model, settings.origin("model")) == ("top/x", "pyproject.toml:5")
    (tmp_path / "nbllm.toml").write_text('model = "own/x"\n')
    assert Settings.load(start=inner, environ={}).model == "own/x"


def test_a_whole_file(tmp_path: Path) -> None:
    """Endpoints, routes and budgets by feature and user are tables; money is Decimal, addresses are normalised."""
    settings = loaded(
        tmp_path,
        """
home = "cache"
ladder = ["lab/qwen", "cheap"]
[endpoints.lab]
base_url = "HTTP://Example.org:80/v1//"
api_key_env = "LAB_KEY"
input_usd_per_mtok = 0.15
rpm = 60
headers = { X-Team = "blue", X-Portkey-Api-Key = "$PORTKEY" }
[routes]
cheap = ["sim/small", "sim/large"]
[budget]
session_usd = 5
soft = 0.5
[budget.features]
summaries = 0.1
[budget.users]
"a.b@c" = 2
""",
        PORTKEY=KEY,
    )
    lab = settings.endpoints["lab"]
    assert settings.home == tmp_path / "cache"
    assert (lab.base_url, lab.rpm, lab.input_usd_per_mtok) == ("http://example.org/v1", 60, Decimal("0.15"))
    assert lab.headers == {"X-Team": "blue", "X-Portkey-Api-Key": "$PORTKEY"}
    assert settings.routes == {"cheap": ("sim/small", "sim/large")}
    assert (settings.budgets.session_usd, settings.budgets.soft) == (Decimal(5), 0.5)
    assert (settings.budgets.features, settings.budgets.users) == ({"summaries": Decimal("0.1")}, {"a.b@c": Decimal(2)})
    assert settings.origin("budget.features.summaries") == "nbllm.toml:16"
    assert KEY not in repr(settings)
    assert KEY not in str(settings.explain())
    assert redact(f"it said {KEY}") == "it said [redacted]"


MISTAKES = {
    "unknown name": ('model = "a/b"\ndeadlin_s = 3\n', 2, "deadline_s"),
    "unknown table": ("\n[endpoint.lab]\nx = 1\n", 2, "endpoints"),
    "unknown budget": ("[budget]\nsesion_usd = 1\n", 2, "session_usd"),
    "unknown field": ('[endpoints.a]\nbase_url = "http://x/v1"\nrpn = 3\n', 3, "rpm"),
    "zero deadline": ("deadline_s = 0\n", 1, "greater than 0"),
    "negative budget": ("[budget]\n\nday_usd = -1\n", 3, "negative"),
    "nan": ("[budget.features]\nx = 1\ny = nan\n", 3, "finite"),
    "inf": ("ttft_s = inf\n", 1, "finite"),
    "boolean for a number": ("retries = true\n", 1, "whole number"),
    "text for a number": ('retries = "2"\n', 1, "whole number"),
    "wrong choice": ('cache = "yes"\n', 1, "use, refresh, off"),
    "key in an endpoint": (f'[endpoints.a]\nbase_url = "http://x/v1"\napi_key = "{KEY}"\n', 3, "never keys"),
    "key instead of a name": (f'[endpoints.a]\nbase_url = "http://x/v1"\napi_key_env = "{KEY}"\n', 3, "environment variable"),
    "key in a header": (f'[endpoints.a]\nbase_url = "http://x/v1"\nheaders = {{ Authorization = "Bearer {KEY}" }}\n', 3,
        "never keys"),
    "credentials in an address": ('[endpoints.a]\nbase_url = "http://me:pw123456@x/v1"\n', 2, "credentials"),
    "no address": ("[endpoints.a]\nrpm = 3\n", 1, "base_url"),
    "call option": ("\nbudget_usd = 1\n", 2, "budget.request_usd"),
    "code in a file": ('schema = "Answer"\n', 1, "with the call"),
    "route of one text": ('[routes]\na = "x/y"\n', 2, "list"),
    "empty route": ("[routes]\na = []\n", 2, "at least one"),
    "ladder of one text": ('ladder = "x/y"\n', 1, "list"),
    "no quotes": ("model = a/b\n", 1, "TOML"),
    "open string": ('x = 1\nmodel = "a/b\n', 2, "TOML"),
    "open table": ('[budget\nmodel = "x"\n', 1, "TOML"),
    "twice": ("retries = 1\nretries = 2\n", 2, "TOML"),
    "inline": ("budget = { session_usd = -1 }\n", 1, "negative"),
    "after a long text": ('system = """\nretries = 99\n"""\nretries = 99\n', 4, "at most 20"),
    "after a list": ('ladder = [\n  "a/b", # retries = 99 ]\n]\nretries = 99\n', 4, "at most 20"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake: str, tmp_path: Path) -> None:
    """The error names file, line and value, says what would do, and never shows a key."""
    text, line, says = MISTAKES[mistake]
    error = refused(tmp_path, text)
    assert error.line == line
    assert error.path.endswith("nbllm.toml")
    assert f"line {line}" in str(error)
    assert says in str(error)
    assert KEY not in str(error)
    assert "pw123456" not in str(error)


def test_lines_hold_in_pyproject_too(tmp_path: Path) -> None:
    """In pyproject.toml the line is that of the whole file; a broken file is ours when it has our table."""
    error = refused(
        tmp_path, '[project]\nname = "x"\n[tool.nbllm]\nretries = 2\n[tool.nbllm.budget]\nsoft = 2\n', name="pyproject.toml"
    )
    assert (error.line, "at most 1" in str(error)) == (6, True)
    assert refused(tmp_path, "[tool.nbllm]\nmodel = x\n", name="pyproject.toml").line == 2


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    """Neither wrong encoding nor a huge file is a crash."""
    (tmp_path / "nbllm.toml").write_bytes(b'model = "a"\nsystem = "\xff"\n')
    with pytest.raises(SettingsFileError, match=r"line 2.*UTF-8"):
        Settings.load(start=tmp_path, environ={})
    (tmp_path / "nbllm.toml").write_bytes(b"#" * 1_100_000)
    with pytest.raises(SettingsFileError, match="1 MB"):
        Settings.load(start=tmp_path, environ={})


def test_windows_files_load(tmp_path: Path) -> None:
    """A byte order mark and Windows line ends are no mistakes, and lines still count right."""
    (tmp_path / "nbllm.toml").write_bytes(b'\xef\xbb\xbfmodel = "a/b"\r\nretries = 1\r\n')
    assert Settings.load(start=tmp_path, environ={}).origin("retries") == "nbllm.toml:2"


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("NBLLM_BUDGET_SESION_USD", "1", "NBLLM_BUDGET_SESSION_USD"),
        ("NBLLM_DEADLINE_S", "0", "greater than 0"),
        ("NBLLM_DEADLINE_S", "nan", "finite"),
        ("NBLLM_DEADLINE_S", "soon", "number"),
        ("NBLLM_BUDGET_DAY_USD", "-3", "negative"),
        ("NBLLM_BUDGET_DAY_USD", "inf", "finite"),
        ("NBLLM_RECORDINGS", "maybe", "true or false"),
        ("NBLLM_RETRIES", "2.5", "whole number"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, says: str, tmp_path: Path) -> None:
    """The message names the variable; a near miss of a name is a mistake, because a budget may hang on it."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(start=tmp_path, environ={variable: text})
    assert variable in str(caught.value)
    assert says in str(caught.value)


def test_variables_have_systematic_names(tmp_path: Path) -> None:
    """NBLLM_ and the name in capitals sets every setting that is no table; empty means unset; strangers are noted."""
    assert {o.variable for o in SETTABLE.values()} >= {
        "NBLLM_HOME",
        "NBLLM_MODEL",
        "NBLLM_LADDER",
        "NBLLM_BUDGET_SESSION_USD",
        "NBLLM_SESSION",
    }
    environ = {
        "NBLLM_LADDER": "a/b, c/d",
        "NBLLM_BUDGET_SOFT": "70%",
        "NBLLM_RECORDINGS": "on",
        "NBLLM_MODEL": "",
        "NBLLM_XYZZY": "1",
    }
    settings = Settings.load(start=tmp_path, environ={**environ, "NBLLM_HOME": str(tmp_path / "h"), "NBLLM_EXTRA": '{"a": 1}'})
    assert (settings.ladder, settings.budgets.soft, settings.recordings, settings.model) == (("a/b", "c/d"), 0.7, True, None)
    assert (settings.home, settings.call["extra"]) == (tmp_path / "h", {"a": 1})
    assert any("NBLLM_XYZZY" in note for note in settings.notes)


def test_keys_of_the_environment_are_masked_from_the_start(tmp_path: Path) -> None:
    """What looks like a key by its variable's name is known to the redactor once settings are loaded."""
    Settings.load(start=tmp_path, environ={"STRANGE_API_KEY": "qqwweerrttyyuuiioopp", "SSH_KEY": "/home/me/.ssh/some_key_file"})
    assert "qqwweerrttyyuuiioopp" not in redact("said qqwweerrttyyuuiioopp")
    assert redact("in /home/me/.ssh/some_key_file") == "in /home/me/.ssh/some_key_file"


def test_values_can_be_replaced_and_taken_back() -> None:
    """%llm_config and Client(...) set anything, as text or as values; None removes an endpoint or a named budget."""
    settings = Settings().replace_values(
        "%llm_config", **{"budget.features.a": "0.5", "budget_day_usd": "$2", "cache_size_mb": "10"}
    )
    assert (settings.budgets.features, settings.budgets.day_usd, settings.cache_size_mb) == ({"a": Decimal("0.5")}, Decimal(2), 10)
    settings = settings.replace_values("Client(...)", endpoints={"lab": {"base_url": "http://x/v1"}}, routes={"r": ["a/b"]})
    assert settings.endpoints["lab"].base_url == "http://x/v1"
    settings = settings.replace_values("x", **{"endpoints.lab": None, "budget.features.a": None})
    assert (dict(settings.endpoints), settings.budgets.features) == ({}, {})
    with pytest.raises(ConfigurationError, match=r"deadlin[\s\S]*deadline_s"):
        settings.replace_values("%llm_config", deadlin="3")


def test_settings_travel_to_other_processes() -> None:
    """They can be pickled, as pools and multiprocessing ask for."""
    settings = Settings().replace_values("x", endpoints={"a": Endpoint(base_url="http://x/v1", headers={"a": "b"})}, model="a/b")
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301  our own bytes


BAD_OPTIONS = {
    "temperature": [-1, float("nan"), "0.5", True], "max_tokens": [0, 1.5, True, "9"], "top_p": [0, 1.1], "stop": [5, [""]],
    "tools": [{}, "x"], "response_format": ["json"], "logprobs": [-1, 21, "yes"], "extra": [None, [1]], "check": ["f", 3],
    "repairs": [-1, None, 21], "retries": [-1, True], "cache": ["yes", True, None], "ttl_s": [0, -1], "deadline_s": [0, None,
        float("inf"), 10**9],
    "ttft_s": [0], "on_interrupt": ["stop"], "feature": ["", "a\nb", "x" * 300, 5], "user": [" "], "sample": [-1, 0.5],
    "budget_usd": [-1, float("nan"), float("inf"), True, "cheap", Decimal("-0.01")], "tags": [5, [None]], "system": [5],
        "partition": [None],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_bad_option_of_a_call_is_refused(name: str) -> None:
    """Every bad value is InvalidRequest that names the option, and nothing else is raised."""
    for value in BAD_OPTIONS[name]:
        with pytest.raises(InvalidRequest) as caught:
            check_call_options({name: value})
        assert name in str(caught.value)


def test_good_options_come_out_in_their_normal_form() -> None:
    """Numbers, money and texts may be given in the forms that Python users have at hand."""
    got = check_call_options(
        {"stop": "x", "budget_usd": 0.1, "max_tokens": 5, "temperature": 0, "tags": ["a"], "logprobs": True, "ttft_s": None}
    )
    assert got == {
        "stop": ("x",), "budget_usd": Decimal("0.1"), "max_tokens": 5, "temperature": 0.0, "tags": ("a",), "logprobs": True,
        "ttft_s": None,
    }  # fmt: skip
    assert Settings().call_options({"retries": 0})["retries"] == 0
    with pytest.raises(InvalidRequest, match="temperature"):
        check_call_options({"temprature": 1})


@given(
    st.sampled_from(sorted(CALL_OPTIONS)),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.text())),
)
def test_any_value_is_either_taken_or_refused(name: str, value: object) -> None:
    """No value makes the check fail in any other way, and what it takes it takes again."""
    try:
        taken = check_call_options({name: value})
    except InvalidRequest:
        return
    assert check_call_options(taken) == taken


@given(st.sampled_from(sorted(SETTABLE)), st.text(max_size=12))
def test_any_text_is_either_parsed_or_refused(name: str, text: str) -> None:
    """Nor does any text that a person may put into a variable."""
    try:
        Settings().replace_values("x", **{name: text})
    except ConfigurationError:
        return


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "ftp://x"}, {"base_url": "x:80/v1"}, {"base_url": "http://"}, {"base_url": "http://u:p@h/v1"},
        {"base_url": "http://h/v1?k=1"},
        {"base_url": "http://h/v1#a"}, {"base_url": "http://h h/v1"}, {"base_url": "http://h:99999/v1"},
        {"base_url": "http://h\\@evil/v1"},
        {"base_url": "http://h/\nv1"}, {"base_url": None}, {"rpm": 0}, {"rpm": True}, {"tpm": 1.5}, {"max_concurrency": -1},
        {"input_usd_per_mtok": -1}, {"output_usd_per_mtok": float("nan")}, {"input_usd_per_mtok": True}, {"api_key": "a b"},
        {"api_key": "a\r\nX: y"}, {"api_key": ""}, {"api_key": "schlüssel-1234"}, {"api_key_env": "A B"}, {"api_key_env": KEY},
        {"headers": {"a b": "x"}},
        {"headers": {"a": "x\r\ny"}}, {"headers": "x"}, {"identity": " "}, {"verify_tls": None}, {"json_mode": "yes"},
    ],
)  # fmt: skip
def test_an_endpoint_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    """At once, when it is made, with ConfigurationError, and without showing a key."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint(**fields)  # type: ignore[arg-type]  # that is the test
    assert KEY not in str(caught.value)


def test_an_endpoint_never_shows_its_key() -> None:
    """Neither repr nor explain hold api_key or headers, and the redactor knows both."""
    endpoint = Endpoint(base_url="https://h/v1", api_key="kkkk-llll-mmmm-nnnn", headers={"X-Api-Key": "oooo-pppp-qqqq-rrrr"})
    settings = Settings().replace_values("Client(...)", endpoints={"lab": endpoint})
    for shown in (repr(endpoint), repr(settings), str(settings.explain()), redact("kkkk-llll-mmmm-nnnn oooo-pppp-qqqq-rrrr")):
        assert "kkkk" not in shown
        assert "oooo" not in shown


@given(st.text(alphabet="ab.=[]{}\"'#\n \\", max_size=60))
def test_lines_of_any_text_can_be_counted(text: str) -> None:
    """The line finder never fails and stays inside the text, even where the text is no TOML."""
    assert all(1 <= line <= text.count("\n") + 1 for line, _ in keys(text))
    line_of(text, ("a", "b"))


def test_importing_settings_is_cheap() -> None:
    """Importing them loads no TOML, JSON, folder or matching library."""
    code = "import sys, nbllm.settings as s; "
    code += "print(sorted({'tomllib', 'platformdirs', 'difflib', 'pydantic', 'asyncio', 'urllib.request'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
