"""The magics on settings and books, on a real client whose models are played."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.client import Client
from nbllm.core.ports import UsageRow
from nbllm.core.usage_table import simulated_note
from nbllm.errors import ConfigurationError
from nbllm.notebook.views import Column, Table, View
from nbllm.settings import BudgetSettings, Settings
from nbllm.testing import FakeProvider


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real client in an empty home; every sim model answers at once."""
    with Client(home=tmp_path, settings=Settings(), providers={"simulated": FakeProvider()}, recordings=True) as made:
        monkeypatch.setattr("nbllm.notebook.extension.current_client", lambda: made)
        yield made


def run(shell: Any, line: str) -> View:
    """Run a line magic and check that what it returns shows itself in all three ways."""
    name, _, rest = line.partition(" ")
    view = shell.run_line_magic(name, rest)
    bundle = view._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "text/markdown"}
    assert all(bundle.values())
    assert max(map(len, bundle["text/plain"].splitlines())) <= 80
    assert "$" not in bundle["text/html"]
    return view  # type: ignore[no-any-return]


def test_before_the_first_call_every_view_says_what_to_do(shell: Any, client: Any) -> None:
    """Empty tables are no dead ends."""
    assert "Ask something with %%llm" in str(run(shell, "llm_calls"))
    assert "--all" in str(run(shell, "llm_usage"))
    assert "The cache is empty" in str(run(shell, "llm_cache"))
    assert "no hard limit" in str(run(shell, "llm_budget"))
    assert "Nothing to plot yet" in repr(shell.run_line_magic("llm_plot", "latency"))


def test_calls_are_listed_shown_and_forgotten(shell: Any, client: Any) -> None:
    """The list, one call with its texts, and texts deleted while numbers stay."""
    first = client.ask("The first <b>question</b>", model="sim/small", feature="f")
    client.ask("The first <b>question</b>", model="sim/small")
    listed = str(run(shell, "llm_calls"))
    assert "cache hit" in listed
    assert "answered" in listed
    view = run(shell, f"llm_calls {first.call_id[-8:]}")
    assert "The first <b>question</b>" in str(view)
    assert "<b>" not in view.html()
    assert "feature" in str(view)
    assert "of 1 call was deleted" in str(run(shell, f"llm_calls forget {first.call_id}"))
    assert "not recorded, or were forgotten" in str(run(shell, f"llm_calls {first.call_id}"))
    with pytest.raises(UsageError, match="There is no call 'zzz'"):
        run(shell, "llm_calls zzz")
    with pytest.raises(UsageError, match="forget ID"):
        run(shell, "llm_calls forget")


def test_usage_is_summed_by_what_is_asked(shell: Any, client: Any) -> None:
    """By model, or by a word that is known; another is refused with the nearest."""
    client.ask("x", model="sim/small", feature="triage")
    client.ask("x", model="sim/small", feature="triage")
    text = str(run(shell, "llm_usage feature"))
    assert "triage" in text
    assert "  2  " in text
    assert "No call fits" in str(run(shell, "llm_usage --model lab/*"))
    with pytest.raises(UsageError, match="Did you mean feature"):
        run(shell, "llm_usage featur")


def test_the_cache_is_shown_and_purged_by_what_is_said(shell: Any, client: Any) -> None:
    """Entries, size and savings; purging needs to be told what."""
    client.ask("x", model="sim/small")
    client.ask("x", model="sim/small")
    client.ask("y", model="sim/large")
    text = str(run(shell, "llm_cache -n 1"))
    assert text.startswith("2 stored answers")
    assert "1 hit in 3 calls" in " ".join(text.split())
    assert "newest 1 are shown" in text
    for line in ("llm_cache purge", "llm_cache --all", "llm_cache purge --all --model sim/small", "llm_cache prune"):
        with pytest.raises(UsageError):
            run(shell, line)
    assert "1 stored answer was deleted" in str(run(shell, "llm_cache purge --model sim/small"))
    assert "0 stored answers were deleted" in str(run(shell, "llm_cache purge --older-than 7d"))
    assert "1 stored answer was deleted" in str(run(shell, "llm_cache purge --all"))


def test_budgets_are_set_shown_and_lifted(shell: Any, client: Any) -> None:
    """Amounts, shares and names; a bar has its number beside it."""
    text = str(run(shell, "llm_budget session 5.00 --soft 50%"))
    assert "The session budget is $5.00. All budgets warn once when 50% is used." in text
    assert "0%" in text
    assert client.settings.budgets.session_usd == Decimal("5.00")
    assert "feature summaries" in str(run(shell, "llm_budget feature summaries $1"))
    assert "One call may cost at most $0.05" in str(run(shell, "llm_budget request 0.05"))
    run(shell, "llm_budget session 2 --soft 1")
    assert client.settings.budgets.soft == 0.5
    assert "The session budget is off." in str(run(shell, "llm_budget session off"))
    assert client.settings.budgets.session_usd is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sesion 5", "Did you mean session"),
        ("session", "For example %llm_budget session 5.00"),
        ("feature 1.00", "NAME AMOUNT"),
        ("session five", "such as 5.00"),
        ("session -1", "must not be negative"),
        ("session NaN", "finite"),
        ("session 1 --soft 2", "at most the budget"),
        ("session off --soft 80%", "needs an amount"),
        ("session 1 --soft 0%", "above 0%"),
        ("--soft 80%", "goes with a budget"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(shell: Any, client: Any, line: str, said: str) -> None:
    """Nothing is changed, and the message says what to write."""
    with pytest.raises(UsageError) as caught:
        run(shell, f"llm_budget {line}")
    assert said in str(caught.value)
    assert client.settings.budgets == BudgetSettings()


def test_settings_are_shown_with_their_origin_set_and_reset(shell: Any, client: Any) -> None:
    """What was set stands first with who set it; --reset gives back what was there before."""
    assert "recordings" in str(run(shell, "llm_config"))
    text = str(run(shell, "llm_config model=sim/small deadline_s=30"))
    assert "%llm_config" in text.partition("Defaults")[0]
    assert (client.settings.model, client.settings.call["deadline_s"]) == ("sim/small", 30.0)
    run(shell, "llm_config deadline_s=60")
    reset = str(run(shell, "llm_config --reset"))
    assert "%llm_config  " not in reset, "what is shown is what holds after the reset"
    assert (client.settings.model, client.settings.call["deadline_s"]) == (None, 300.0)
    assert client.settings.origin("deadline_s") == "default"
    with pytest.raises(ConfigurationError, match="deadline"):
        run(shell, "llm_config dedline_s=30")
    with pytest.raises(UsageError, match="deadline_s needs a value: write %llm_config deadline_s=VALUE"):
        run(shell, "llm_config deadline_s 30")


def test_setting_one_value_shows_that_value_and_one_can_be_reset_by_name(shell: Any, client: Any) -> None:
    """No table of defaults as the answer to one change; spaces around = are no matter; reset takes names."""
    text = str(run(shell, "llm_config deadline_s = 5"))
    assert "deadline_s" in text
    assert len(text.splitlines()) < 12
    assert client.settings.call["deadline_s"] == 5.0
    run(shell, "llm_config model=sim/small budget_session_usd=2")
    run(shell, "llm_config --reset deadline_s")
    assert (client.settings.model, client.settings.call["deadline_s"]) == ("sim/small", 300.0)
    assert "model" in str(run(shell, "llm_config reset model"))
    assert client.settings.model is None
    with pytest.raises(UsageError, match="has not set 'model'"):
        run(shell, "llm_config --reset model")
    with pytest.raises(UsageError, match="Did you mean deadline_s"):
        run(shell, "llm_config dedline_s")


def test_descriptions_are_not_cut_in_a_terminal(shell: Any, client: Any) -> None:
    """A sentence that is wider than its column goes on below."""
    _, _, defaults = str(run(shell, "llm_config")).partition("Defaults")
    assert len(defaults.splitlines()) > 20
    assert "…" not in defaults


def test_a_spent_call_tells_by_words_and_an_id_may_stand_in_a_variable(shell: Any, client: Any) -> None:
    """The list says what was asked for what, and what a hit saved; $name and {name} are the notebook's."""
    r = client.ask("Why is the sky blue?", model="sim/small", feature="physics")
    client.ask("Why is the sky blue?", model="sim/small")
    shell.user_ns["r"] = r
    listed = unescape(run(shell, "llm_calls").html())
    assert "physics: Why is the sky blue?" in listed
    assert "saved" in listed
    for line in ("%llm_calls $r.call_id", "%llm_calls {r.call_id}"):
        shell.run_cell(f"x = {line}")
        assert r.call_id in str(shell.user_ns["x"])


def test_a_budget_below_what_is_spent_says_what_follows(shell: Any, client: Any) -> None:
    """It is set as asked, and the next call is not a surprise."""
    client.ask("x", model="sim/large")
    text = " ".join(str(run(shell, "llm_budget session 0.0000001")).split())
    assert "is spent already: every call that costs money is refused until you raise it" in text
    assert "spent already" not in str(run(shell, "llm_budget session 5"))


def test_simulated_money_is_called_so_wherever_it_is_shown(shell: Any, client: Any) -> None:
    """Nobody should take the dollars of the tour for dollars."""
    client.ask("x", model="sim/small")
    for line in ("llm_usage", "llm_usage feature", "llm_calls", "llm_cache", "llm_budget"):
        assert "simulated" in str(run(shell, line)), line
    for kind in ("cost", "latency", "timeline", "tokens", "cache"):
        assert ", simulated" in repr(shell.run_line_magic("llm_plot", kind)), kind
    for by in ("model", "feature", "day", "total", "status"):
        assert "simulated" in str(run(shell, f"llm_usage {by}")), by
        assert "simulated" in repr(client.usage(by)), by
        assert "simulated" in client.usage(by)._repr_markdown_(), by
    assert "simulated" in repr(client.usage())
    assert "simulated" in client.usage()._repr_markdown_()


def test_a_providers_models_and_the_key_it_needs(shell: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, its key set or not; without a name the providers stand below with their variables."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    text = str(run(shell, "llm_models openai"))
    assert "models of openai" in text
    assert "openai/gpt-4" in text
    assert "not set" in run(shell, "llm_models openai").html()
    everything = unescape(run(shell, "llm_models").html())
    assert "GROQ_API_KEY" in everything
    assert "ANTHROPIC_API_KEY" in everything


def test_models_are_listed_with_prices(shell: Any, client: Any) -> None:
    """What can be asked, narrowed down by a word."""
    text = str(run(shell, "llm_models"))
    assert "sim/small" in text
    assert "simulated" in text
    assert "No model that can be asked now has 'zzz'" in str(run(shell, "llm_models zzz"))


def test_plots_take_filters_and_unknown_ones_are_refused(shell: Any, client: Any) -> None:
    """The kind comes first; a wrong one names the nearest."""
    client.ask("x", model="sim/small")
    assert "n = 1" in repr(shell.run_line_magic("llm_plot", "timeline --model sim/* --since 10m"))
    assert "n = 0" in repr(shell.run_line_magic("llm_plot", "timeline --feature none"))
    for line, said in (("", "needs one of latency"), ("latancy", "Did you mean latency"), ("latency --since soon", "10m or 1.5h")):
        with pytest.raises(UsageError, match=said.replace("?", r"\?")):
            shell.run_line_magic("llm_plot", line)


def test_the_whole_cell_on_the_road(shell: Any, client: Any, capsys: Any) -> None:
    """%%llm through the real client: streamed, booked, cached; the second run says that it was a hit."""
    client.configure(model="sim/small")
    shell.run_cell("%%llm -o a --feature f\nHi")
    shell.run_cell("%%llm -o b\nHi")
    a, b = shell.user_ns["a"], shell.user_ns["b"]
    assert (a.source, b.source, a.text) == ("model", "cache", b.text)
    assert b.cost_usd == 0
    shown = capsys.readouterr().out
    assert shown.count(a.text) >= 2
    assert "cache hit" in shown


def test_hostile_names_stay_text_in_every_form() -> None:
    """Names come from users and servers: no tag, link, formula or table cell is made of them."""
    evil = "<img src=x onerror=alert(1)>|[x](javascript:alert(1)) $x$ `c` **b** https://evil.example"
    view = View(evil, (Table(columns=(Column(evil),), rows=[(evil,)]),), (evil,))
    assert "<img" not in view.html()
    assert "$" not in view.html()
    markdown = view.markdown()
    assert "<img" not in markdown
    assert "](" not in markdown
    assert "https://" not in markdown
    assert markdown.count("|") == 6


def test_models_of_a_provider_are_told_apart_at_80_columns(shell: Any, client: Any) -> None:
    """The key that all of them need is said once, so that there is room for names; each model is on one line."""
    text = str(run(shell, "llm_models openai"))
    assert text.count("OPENAI_API_KEY") == 1
    names = [line.split()[0] for line in text.splitlines() if line.startswith("openai/")]
    assert len(names) == len(set(names)) >= 50
    assert "openai/gpt-4o-mini" in names


def test_simulated_dollars_are_told_from_real_ones() -> None:
    """In sums over both it is said how much of the cost nobody is billed for; where all is simulated, that is said."""

    def row(model: str, cost: str) -> UsageRow:
        return UsageRow(
            group=model, calls=1, failed=0, hits=0, attempts=1, input_tokens=1, output_tokens=1, cost_usd=Decimal(cost),
            estimated_usd=Decimal(0), unknown_cost_calls=0, saved_usd=Decimal(0), saved_s=0.0,
        )  # fmt: skip

    assert simulated_note([row("openai/x", "0.5")]) == ""
    assert simulated_note([row("openai/x", "0.5"), row("sim/small", "0.002")]).startswith("$0.002 of the cost is simulated")
    refused = replace(row("openai/x", "0"), attempts=0)
    assert simulated_note([refused, row("sim/small", "0.002")]).startswith("All of it is simulated"), "nothing was sent to it"
    assert simulated_note([row("static", "0.5"), row("sim/small", "0.002")]).startswith("All of it is simulated")
    assert simulated_note([row("sim/large", "0.5"), row("sim/small", "0.002")]).startswith("All of it is simulated")
