"""settings.toml: what the flow's calls need, read back as it was, and never a key."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Endpoint, Settings
from nbllm.export import Cell
from nbllm.export.asked import asked
from nbllm.export.magic_settings import with_magics
from nbllm.export.settings_file import SettingsFile, settings_file
from nbllm.export.toml_text import key, value
from nbllm.service.configuration import ServiceSettings, load_service
from tests.export.making import cells

HEAD = "import nbllm\nfrom nbllm import ask\n"
SECRET = "sk-proj-" + "a1B2" * 12


def written(flows: str = "ask('x', model='sim/small')", **given: object) -> SettingsFile:
    """The file for settings as %llm_config gives them."""
    return settings_file(Settings().replace_values("%llm_config", **given), HEAD + flows)


def read_back(found: SettingsFile, folder: Path) -> Settings:
    """The settings that the file's text gives, [service] left out."""
    assert found.refusals == ()
    (folder / "nbllm.toml").write_text(found.text.partition("\n[service]")[0], encoding="utf-8")
    return Settings.load(start=folder, environ={})


def test_what_was_set_is_read_back(tmp_path: Path) -> None:
    """Options, ladder, budgets, routes and endpoints come back as they were; the home and recordings stay here."""
    endpoint = Endpoint(base_url="http://10.0.0.7:8000/v1", api_key_env="LAB_KEY", input_usd_per_mtok=Decimal("0.10"), rpm=60,
                        headers={"x-team": "search", "authorization": "$LAB_TOKEN"}, identity="vllm:qwen",
                        verify_tls=False)  # fmt: skip
    given = {"ladder": ["lab/qwen", "sim/large"], "deadline_s": 12.5, "static": 'Try "later".\n\\',
             "extra": {"top_k": 3, "a": [1, True]},
             "budget.day_usd": "5.00", "budget.features.triage": "0.5", "routes.cheap": ["sim/small"], "endpoints.lab": endpoint,
             "home": str(tmp_path), "recordings": True, "temperature": 0.0}  # fmt: skip
    found = written("ask('x', model='cheap')", **given)
    back = read_back(found, tmp_path)
    flat = Settings().replace_values("x", **given).flat()
    assert {n: v for n, v in back.flat().items() if n not in {"home", "recordings"}} == {
        n: v for n, v in flat.items() if n not in {"home", "recordings"}
    }
    assert dict(found.keys) == {"LAB_KEY": "lab", "LAB_TOKEN": "lab"}
    assert found.key_hosts == ("LAB_KEY@10.0.0.7", "LAB_TOKEN@10.0.0.7")


VALUES = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.integers(-99, 99)),
)


@given(st.text(), VALUES)
def test_any_value_reads_back(name: str, given_value: object) -> None:
    """No text can end its line or become another key: TOML's own reader gives back what went in."""
    try:
        line = f"{key('t', name)} = {value(given_value)}"
        line.encode("utf-8")
    except UnicodeEncodeError:
        return
    assert "\n" not in line
    assert tomllib.loads(line) == {"t": {name: given_value}}


def test_keys_are_refused_or_become_names() -> None:
    """A key given in code becomes a variable; one in a header, in extra or in a text stops the export; none is in the file."""
    found = written("ask('x', model='lab/q')", **{"endpoints.lab": Endpoint(base_url="http://127.0.0.1:9/v1", api_key=SECRET)})
    assert SECRET not in found.text
    assert 'api_key_env = "LAB_API_KEY"' in found.text
    assert dict(found.keys) == {"LAB_API_KEY": "lab"}
    assert any("LAB_API_KEY" in note for note in found.notes)
    header = Endpoint(base_url="http://127.0.0.1:9/v1", headers={"authorization": f"Bearer {SECRET}"})
    for given_values in ({"endpoints.lab": header}, {"extra": {"api_key": SECRET}}, {"static": f"my key is {SECRET}"}):
        refused = written("ask('x', model='lab/q')", **given_values)
        assert [r.kind for r in refused.refusals] == ["literal key"]
        assert SECRET not in refused.text + "".join(map(str, refused.refusals))


def test_the_semantic_cache_travels_with_its_plan(tmp_path: Path) -> None:
    """Its settings, the plan and the guards' words come along, and so does the endpoint that embeds; what cannot is refused."""
    (tmp_path / "my plan.json").write_text("{}")
    (tmp_path / "words.toml").write_text("names = ['apple']")
    given = {
        "semantic_cache": {"mode": "on", "embedder": "lab/e5", "plan": str(tmp_path / "my plan.json"), "audit_share": 0.1},
        "semantic_cache.guard_words": str(tmp_path / "words.toml"),
        "endpoints.lab": Endpoint(base_url="http://10.0.0.7:8000/v1", api_key_env="LAB_KEY"),
    }
    found = written(**given)
    assert found.files == {"plans/my_plan.json": b"{}", "plans/words.toml": b"names = ['apple']"}
    back = read_back(found, tmp_path).semantic_cache
    assert (back.mode, back.embedder, back.audit_share) == ("on", "lab/e5", 0.1)
    assert back.plan == str(tmp_path / "plans" / "my_plan.json")
    assert "LAB_KEY" in found.keys
    for bad, word in (
        ({"plan": str(tmp_path / "none.json")}, "cannot be read"),
        ({"embedder": "local:/models/e5"}, "this machine"),
    ):
        (refusal,) = written(semantic_cache={"mode": "shadow", **bad}).refusals
        assert word in refusal.reason


def test_endpoints_that_no_call_names_stay_here() -> None:
    """Only what the settings' own models and the flow's texts name; everything where a model is chosen by a value."""
    both = {f"endpoints.{n}": Endpoint(base_url=f"http://{n}.example.org/v1") for n in ("one", "two")}
    assert "[endpoints.two]" not in written("ask('x', model='one/m')", **both).text
    assert "[endpoints.two]" in written("def f(m):\n    return ask('x', model=m)", model="sim/small", **both).text
    assert "[endpoints.two]" in written("def f(o):\n    return ask('x', **o)", model="sim/small", **both).text
    assert "[endpoints.two]" not in written("M = 'one/m'\nask('x', model=M)", **both).text


def test_the_model_is_settled() -> None:
    """Where nothing names one: what answered the recorded calls; without those it is refused."""
    flows = HEAD + "ask('x')"
    assert [r.kind for r in settings_file(Settings(), flows).refusals] == ["settings"]
    found = settings_file(Settings(), flows, used=("sim/large", "sim/small"))
    assert 'model = "sim/large"' in found.text
    assert settings_file(Settings(), HEAD + "ask('x', model='sim/small')").refusals == ()


def test_a_model_that_code_puts_together_is_told() -> None:
    """The service has what the recorded calls asked, its key and LiteLLM; which models it has, and how to name others, is said."""
    flows = HEAD + "def f(m):\n    return ask('x', model='anthropic/' + m)"
    found = settings_file(Settings(model="sim/small"), flows, used=("anthropic/claude-sonnet-4-5",))
    assert (found.litellm, dict(found.keys)) == (True, {"ANTHROPIC_API_KEY": "anthropic"})
    (note,) = found.notes
    assert "anthropic/claude-sonnet-4-5" in note
    assert "write others as texts" in note
    assert settings_file(Settings(model="sim/small"), HEAD + "ask('x', model='sim/small')").notes == ()


def test_servers_of_this_machine_are_told() -> None:
    """An endpoint on loopback cannot be reached from a container: the file and the notes say so, and who started it."""
    settings = Settings().replace_values("%serve", **{"endpoints.vllm": Endpoint(base_url="http://127.0.0.1:4567/v1")})
    found = settings_file(settings, HEAD + "ask('x', model='vllm/qwen')")
    assert "# of this machine; NBLLM_ENDPOINTS__VLLM__BASE_URL says where else it is" in found.text
    assert any("started by %serve" in note and "NBLLM_ENDPOINTS__VLLM__BASE_URL" in note for note in found.notes)
    assert found.local == ("vllm",)


def test_what_calls_can_name() -> None:
    """Texts, whether every call names its model, and whether a model is hidden in a value."""
    assert asked("from nbllm import ask as a\na('x', model='m/n')").all_named
    assert not asked("from nbllm import ask\nask('x')").all_named
    assert asked("import nbllm\nnbllm.ask('x', model=f'm/{n}')").hidden
    assert not asked("import nbllm\nnbllm.ask('x', model=['m/n', 'm/o'])").hidden


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["%llm_config model=sim/small deadline_s = 30"], {"model": "sim/small", "deadline_s": 30.0}),
        (["%llm_config model=sim/small", "%llm_config model=sim/large"], {"model": "sim/large"}),
        (["%llm_config model=sim/small deadline_s=5", "%llm_config --reset model"], {"model": None, "deadline_s": 5.0}),
        (["%llm_config model=sim/small", "%llm_config reset"], {"model": None}),
        (["%llm_budget session 5.00 --soft 80%"], {"budget.session_usd": Decimal("5.00"), "budget.soft": 0.8}),
        (["%llm_budget day 5 --soft 4"], {"budget.day_usd": Decimal(5), "budget.soft": 0.8}),
        (["%llm_budget feature notes 1", "%llm_budget feature notes off"], {"budget.features.notes": None}),
        (["%llm_config", "%llm_budget"], {}),
    ],
)
def test_lines_of_the_notebook_are_settings(lines: list[str], wanted: dict[str, object]) -> None:
    """%llm_config and %llm_budget count as they do in a session, in the order of the cells."""
    settings, refusals = with_magics(Settings(), cells(*lines))
    assert refusals == []
    assert {name: settings.flat().get(name) for name in wanted} == wanted


def test_lines_that_do_not_count() -> None:
    """Those of cells that are left out, and of a session, whose client has them already."""
    line = "%llm_config model=sim/small"
    for cell in (Cell(number=1, source=line, tags=("no-export",)), Cell(number=1, source=line, live=True)):
        assert with_magics(Settings(), [cell])[0].model is None


def test_lines_that_cannot_be_read_are_refused_with_their_place() -> None:
    """Cell and line of each."""
    _, refusals = with_magics(
        Settings(), cells("x = 1\n%llm_config nonsense=1", "%llm_config deadline_s=soon", "%llm_budget week 3")
    )
    assert [(r.kind, r.cell, r.line) for r in refusals] == [("settings", 1, 2), ("settings", 2, 1), ("settings", 3, 1)]


def test_the_services_table_is_one_that_the_service_reads(tmp_path: Path) -> None:
    """Each line of [service] that a reader may take the # off is a setting that there is."""
    text = written().text
    head, _, table = text.partition("\n[service]\n")
    lines = [line.removeprefix("# ") for line in table.splitlines() if line.strip()]
    (tmp_path / "settings.toml").write_text("\n".join([head, "[service]", *lines]), encoding="utf-8")
    _, config = load_service(tmp_path / "settings.toml", {})
    plain = ServiceSettings()
    assert (config.port, config.max_running, config.flow_timeout_s) == (plain.port, plain.max_running, plain.flow_timeout_s)
    assert config.tiers["default"].requests_per_minute == plain.tiers["default"].requests_per_minute
